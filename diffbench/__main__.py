"""``python -m diffbench`` is ``diffbench``; where there is a job server, it runs the command.

The workflow calls this package by its path, ``python CHECKOUT/diffbench``: then it is this one, wherever it lies and
whatever else is installed.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from diffbench.server.client import served

if __name__ == "__main__":
    status = served(sys.argv[1:])
    if status is None:
        from diffbench.cli import main

        status = main()
    sys.exit(status)
