"""``python -m diffbench`` is ``diffbench``; where there is a job server, it runs the command."""

import sys

from diffbench.store import stopping

if __name__ == "__main__":
    stopping.heed()
    try:
        from diffbench.server.client import watched

        status = watched(sys.argv[1:])
        if status is None:
            from diffbench.cli import main

            status = main(sys.argv[1:])
    except stopping.Stopped as stopped:
        status = stopping.last_words(" ".join(sys.argv[1:2]), stopped)
    sys.exit(status)
