"""``python -m diffbench`` is ``diffbench``; where there is a job server, it runs the command."""

import sys

from diffbench.server.client import served

if __name__ == "__main__":
    status = served(sys.argv[1:])
    if status is None:
        from diffbench.cli import main

        status = main()
    sys.exit(status)
