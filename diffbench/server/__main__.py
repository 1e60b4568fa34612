"""``python -m diffbench.server SOCKET`` serves at a socket until its standard input is closed."""

import shutil
import sys
from pathlib import Path

from diffbench.server.server import Server, preload

if __name__ == "__main__":
    socket = Path(sys.argv[1])
    try:
        preload()
        Server(socket).serve()
    finally:
        shutil.rmtree(socket.parent)
