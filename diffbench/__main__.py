"""``python -m diffbench`` is ``diffbench``."""

import sys

from diffbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
