"""Which servers there are; starting, finding and ending them.

Not here: what a server is asked (``client``).

``server``             one server, and where what belongs to it lies
``registry``           which servers run, by their files
``fleet_files``        which of them belong to a fleet, by its file
``control``            what can be asked of one without a session, and its end
``settings``           what a server is launched with
``launching``          starting one, and waiting until it is ready
``first_process``      the process that becomes its supervisor on a host
``forked_start``       starting one from the preloaded process of another
``options``            the options of a launch, declared once
``option_forms``       the options as a signature, as a help, and as arguments of a command line
``option_checks``      whether a launch can be asked for so
``limits``             what a server may use, and for how long it stays
``placement``          device and degrees, where nobody said
``preflight``          what is known to fail before a model is loaded
``hosts``              a server over several hosts
``slurm``              a server as a job of Slurm
``slurm_node``         one node of such a job
``tunnels``            a server of another machine, by ssh
``ssh_address``        where such a server is
``remote_watch``       what runs there, and says what becomes of it
``private_directory``  a directory that a process has while it lives
"""
