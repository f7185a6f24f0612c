"""Many recordings on many machines, with Ray Data.

    python -m cohere_lite.batch RECORDINGS --out FOLDER     (pip install 'cohere-lite[ray]')

    __main__.py  the options
    inputs.py    folders, lists, tables and patterns -> recordings, each once, in groups
    worker.py    what runs on the cluster: a pool of actors with a model each; and the count of attempts
    run.py       groups -> cluster -> journal; progress, summary
    journal.py   transcripts.jsonl, which is the state, too

Each comes out once: Ray does everything at least once, and one process, the driver, writes the lines, and none for an
id that is done. Ray's own checkpoints (2.60) would write first and take note of it after that, so that a crash between
the two gives a recording twice; and they need a file system that all nodes share. Here only what is read needs one.

Ray restarts actors, and repeats their tasks, without end. So what failed in Python becomes a line with an error in the
actor; and what kills the process is counted where it cannot die of it, in an actor of its own (worker.Attempts).
"""
