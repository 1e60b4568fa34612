"""``python -m diffbench.server SOCKET`` serves at a socket until its standard input is closed."""

import sys
from contextlib import suppress
from pathlib import Path

if not __package__:
    # Called by its path, as the package is.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from diffbench.server.server import Server, preload

if __name__ == "__main__":
    socket = Path(sys.argv[1])
    try:
        preload()
        Server(socket).serve()
    finally:
        socket.unlink(missing_ok=True)
        # The folder that `client.start` made for it; one that holds anything else stays.
        with suppress(OSError):
            socket.parent.rmdir()
