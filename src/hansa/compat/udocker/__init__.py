"""udocker's command line on Hansa's containers, installed as ``hansa-udocker``: job scripts run under it unchanged.

The same options, shape of output and exit codes (0, 1; ``run``: the program's). What differs, on purpose: root needs no
``--allow-root``; a program that is not found gives 127, one that cannot be executed 126; VOLUME is heeded; execution
modes are accepted and remembered, but every container runs by the engine that works best on the node.
"""
