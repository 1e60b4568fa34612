"""``python -m diffbench`` is ``diffbench``; where there is a job server, it runs the command.

The workflow calls this package by its path, ``python CHECKOUT/diffbench``: then it is this one, wherever it lies and
whatever else is installed.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from diffbench.specs.errors import Stopped
from diffbench.store import stopping

if __name__ == "__main__":
    stopping.heed()
    try:
        from diffbench.server.client import watched

        status = watched(sys.argv[1:])
        if status is None:
            from diffbench.cli import main

            status = main(sys.argv[1:])
    except Stopped as stopped:
        status = stopping.last_words(" ".join(sys.argv[1:2]), stopped)
    sys.exit(status)
