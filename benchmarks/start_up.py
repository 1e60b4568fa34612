"""What a command costs before it does anything, beside a bare interpreter and the import of torch."""

import sys

from timing import compare

if __name__ == "__main__":
    cli = [sys.executable, "-m", "diffbench"]
    compare(
        {
            "python -c pass": [sys.executable, "-c", "pass"],
            "diffbench --help": [*cli, "--help"],
            "diffbench list variants (reads config)": [*cli, "list", "variants"],
            "python -c 'import torch'": [sys.executable, "-c", "import torch"],
        }
    )
