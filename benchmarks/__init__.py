"""How fast Garçon is, beside what one would do without it: ``make bench``.

``harness``   interleaved measuring, medians and spread, outputs checked equal
``workers/``  the other side: processes that import nothing of Garçon, some in an environment of peers
``peers``     that environment, made from PyPI
``servers``   the servers that are measured
``report``    the table and the picture of ``docs/performance.md``
``painting``  how soon each picture is on the screen of a real browser, which has a table of its own

Each other module is one group of rows: ``request``, ``reads``, ``backups``, ``fetching``, ``notebook``,
``launching``, ``sharded``, ``growth``, ``certificate``, ``atlas``, ``experiments`` (``patching``, ``attribution``). A row prints what was measured, its target, and whether it was met.
"""
