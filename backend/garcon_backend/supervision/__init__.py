"""The processes of a server: started or forked, watched, started anew, buried.

Not here: how ranks meet and what they say to each other (``distributed``), and what they do.

``start``          the first process, which becomes the supervisor
``preloaded``      a process that has imported what a rank imports, and from which ranks are forked
``birth``          a forked process becomes what one that was started by command would be
``forked``         forked ranks as torch's agent sees them
``process_title``  the command line that ``ps`` shows of them
``supervisor``     the process that starts the ranks and outlives them
``agent``          torch's elastic agent, which watches the ranks and starts them anew
``parent``         no process of a server outlives the one that started it
"""
