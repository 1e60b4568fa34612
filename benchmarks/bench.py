"""Every comparison with a peer, in one table: what the peer needs in units of what ours needs.

    make bench                       # with the peers in an environment of their own, .venv-peers; about half an hour
    python benchmarks/bench.py [--only SCRIPT] [--write docs/records/trials]

Each script takes both sides in turns, as a job of one thread runs and with the same precision, and stops where their
results differ; one that fails is named at the end, and the others run.  A ratio is the median over its rounds, with the
least and the most.  The gate is what a ratio should be at least.
"""

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from statistics import median

from facts import commit, versions
from in_process import ROWS

HERE = Path(__file__).resolve().parent
#: Each script with its arguments.
COMMANDS = [
    ["unet.py"],
    ["unet.py", "--precision", "bf16", "--channels", "32", "--rounds", "3"],
    ["solver_steps.py"],
    ["reflected_score.py"],
    ["reflected_score.py", "--compile"],
    ["dct_blur.py"],
    ["likelihood.py"],
    ["inception.py"],
    ["frechet.py"],
    ["precision_recall.py", "--count", "5000"],
]
#: What is compared -> the beginning of an item's name -> the ratio that it should reach at least.
TIMES = {
    "U-Net, forward pass, fp32": 1.2,
    "U-Net, forward pass, bf16": 1.0,
    "U-Net, training step, fp32": 1.2,
    "solver step, ancestral": 1.4,
    "solver step, DDIM": 4.0,
    "solver step, Heun": 1.5,
    "solver step, DPM-Solver++": 1.5,
    "reflected score": 40.0,
    "blur of a width an image, 32": 6.0,
    "blur of a width an image, 64": 8.0,
    "likelihood": 5.0,
    "features by Inception-v3": 1.5,
    "FID of 2048 features": 2.5,
    "precision and recall": 3.0,
}
GATES = {
    "CPU time": TIMES,
    "peak memory": {"U-Net, training step, fp32": 1.54},
    "network passes": {"likelihood": 1.5},
}
#: The commands that failed; the table lacks their rows.
FAILED: list[str] = []
PACKAGES = ("torch", "numpy", "scipy", "diffusers", "azula", "k-diffusion", "torch-fidelity")


def gate(item: str, what: str) -> str:
    """The ratio that an item should reach at least in what is compared, or a dash."""
    found = [f"{value:g}" for start, value in GATES[what].items() if item.startswith(start)]
    return found[0] if found else "–"


def rows_of(arguments: list[str], file: Path) -> list[dict[str, str]]:
    """Run one script, and return its rows of the table; of one that fails the rows that it made before."""
    shown = " ".join(["python", f"benchmarks/{arguments[0]}", *arguments[1:]])
    print(f"\n$ {shown}", flush=True)
    command = [sys.executable, str(HERE / arguments[0]), *arguments[1:]]
    status = subprocess.run(command, check=False, env={**os.environ, ROWS: str(file)}).returncode
    if status:
        FAILED.append(f"{shown} (exit status {status})")
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    file.write_text("", encoding="utf-8")
    return [
        {
            "item": each["item"],
            "peer": each["peer"],
            "of": each["what"],
            "peer / ours": f"{median(each['ratios']):.2f}",
            "least and most": f"{min(each['ratios']):.2f} to {max(each['ratios']):.2f}",
            "rounds": str(len(each["ratios"])),
            "gate": gate(each["item"], each["what"]),
            "command": shown,
        }
        for each in lines
    ]


def merged(file: Path, found: list[dict[str, str]], script: str | None) -> list[dict[str, str]]:
    """The rows of a table in which those of one script are new; all of them where no script was chosen."""
    if script is None or not file.is_file():
        return found
    with file.open(encoding="utf-8", newline="") as kept:
        rows = list(csv.DictReader(kept))
    rest = [row for row in rows if f"/{script}" not in row["command"]]
    first = next((i for i, row in enumerate(rows) if row not in rest), len(rows))
    return rest[:first] + found + rest[first:]


def machine() -> dict[str, str]:
    """What the times are of: processor, load, versions, commit."""
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    found = {
        "processor": f"{model[0] if model else platform.processor()}, {os.cpu_count()} cores",
        "load": f"{os.getloadavg()[0]:.1f}",
        "date": date.today().isoformat(),
    }
    return found | dict.fromkeys(PACKAGES, "not installed") | versions(PACKAGES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=sorted({script for script, *_ in COMMANDS}))
    wanted = "the folder of bench.csv and bench.json; with --only, their other rows stay"
    parser.add_argument("--write", type=Path, help=wanted)
    options = parser.parse_args()
    about, made_by, found = machine(), commit(), []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows")
        file.touch()
        for arguments in COMMANDS:
            if options.only in (None, arguments[0]):
                found += rows_of(arguments, file)
    if not found:
        sys.exit("no script made a row")
    for row in found:
        row["commit"] = made_by
    shown = list(found[0])[:-2]
    print("\n| " + " | ".join(shown) + " |\n|" + "---|" * len(shown))
    for row in found:
        print("| " + " | ".join(row[key] for key in shown) + " |")
    print("\n" + ", ".join(f"{key} {value}" for key, value in about.items()))
    if options.write:
        options.write.mkdir(parents=True, exist_ok=True)
        found = merged(options.write / "bench.csv", found, options.only)
        with (options.write / "bench.csv").open("w", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(out, list(found[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(found)
        whole = json.dumps({"machine": about, "rows": found, "failed": FAILED}, indent=1) + "\n"
        (options.write / "bench.json").write_text(whole, encoding="utf-8")
    if FAILED:
        sys.exit("these failed: " + "; ".join(FAILED))


if __name__ == "__main__":
    main()
