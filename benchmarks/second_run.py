"""What a run costs that has nothing to do, beside Snakemake's own start-up.

Takes a working directory in which the benchmark has been run (default: the current one) and further
arguments for Snakemake.
"""

import sys
import tempfile
from pathlib import Path

from timing import compare

TRIVIAL = "rule all:\n    shell: 'true'\n"

if __name__ == "__main__":
    directory, *arguments = sys.argv[1:] or ["."]
    root = Path(__file__).resolve().parent.parent
    snakemake = [str(Path(sys.executable).with_name("snakemake")), "--cores", "2", "--quiet"]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Snakefile").write_text(TRIVIAL)
        trivial = ["--snakefile", f"{folder}/Snakefile", "--directory", folder]
        ours = ["--snakefile", str(root / "Snakefile"), "--directory", directory, *arguments]
        compare(
            {
                "snakemake, one trivial job": [*snakemake, *trivial],
                "this benchmark, nothing to do": [*snakemake, *ours],
            },
            rounds=3,
        )
