"""What the tests of comparisons, claims and figures share: their own layouts, made-up results."""

import csv
import io
import json
from dataclasses import replace
from functools import cache
from hashlib import sha256

import fast_yaml
from commands import REPOSITORY
from test_reporting import METRICS, PROTOCOL, bits_content, plan_of, record

from diffbench.reporting import exports, layout
from diffbench.reporting.claims import CLAIMS
from diffbench.reporting.formats import csv_of
from diffbench.store import paths
from diffbench.store.products import write_json_product, write_product

SEEDS = [0, 1, 2]
#: FID of each solver of the tiny benchmark with seeds 0, 1 and 2.
FIDS = {"ancestral-10": [2.0, 3.0, 4.0], "ddim-5": [12.0, 13.5, 14.0], "heun-3": [2.5, 2.0, 5.0]}
BITS = [2.0, 2.5, 3.0]


@cache
def metrics():
    """The repository's metrics, which no test may change."""
    return fast_yaml.load((REPOSITORY / layout.TABLES).read_text())["metrics"]


def configured(folder, tables=None, figures=None, claims=None, **benchmark):
    """The tiny benchmark with three seeds, beside whose Snakefile these layouts and claims are."""
    content = {"metrics": metrics(), "tables": tables or {}, "figures": figures or {}}
    (folder / "config").mkdir(exist_ok=True)
    (folder / layout.TABLES).write_text(fast_yaml.dump(content, sort_keys=False))
    (folder / layout.PUBLISHED).write_bytes((REPOSITORY / layout.PUBLISHED).read_bytes())
    if claims is not None:
        (folder / CLAIMS).write_text(fast_yaml.dump(claims, sort_keys=False))
    wanted = {"seeds": SEEDS, "tables": list(tables or {}), "figures": list(figures or {})}
    return replace(plan_of(**wanted | benchmark), repository=folder)


def scores(value, floor=None):
    metrics = {name: {"value": value, "se": 0.1} for name in METRICS}
    floored = {} if floor is None else {"mean": floor / 2, "sd": floor / 4, "value": floor}
    floors = dict.fromkeys(("fid", "fid_test"), floored) if floored else {}
    return {"metrics": metrics, "floors": floors, "nfe": 10, "samples": 64}


def fill(plan, root, fids=None, terms=None, floor=None):
    """Write every product of the plan; ``terms`` go into the likelihoods, with each seed, ``floor`` is that of FIDs."""
    for run in plan.jobs:
        for path in paths.products(root, run.spec):
            if run.stage == "score":
                values = {
                    name: (fids or FIDS).get(name, SEEDS)[run.seed] for name in run.spec.samples
                }
                solvers = {name: scores(value, floor) for name, value in values.items()}
                write_json_product(path, {"solvers": solvers, "protocol": PROTOCOL}, run.spec)
            elif run.stage == "likelihood":
                content = bits_content(run.spec, BITS[run.seed])
                write_json_product(path, content | (terms or {}).get(run.seed, {}), run.spec)
            else:
                write_product(path, b"whole", run.spec)
            record(path)


def filled(folder, monkeypatch):
    """The plan of three seeds, run as it were in this folder, which becomes the working directory."""
    monkeypatch.chdir(folder)
    plan = configured(folder)
    fill(plan, plan.root)
    return plan


def rows_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def grid_row(text, first):
    """The cells of a Markdown table's row."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {first} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def forged(export, path, change=None, **told):
    """A copy of an export with other rows and other keys of its JSON file, whose checksums agree.

    A function changes each row, and leaves out those for which it returns False.
    """
    rows = [row for row in rows_of(export) if change is None or change(row) is not False]
    for row in rows:
        row["check"] = exports.check_of(row)
    about = json.loads(export.with_suffix(".json").read_bytes()) | {"rows": len(rows)}
    return whole(path, csv_of(rows, list(exports.COLUMNS)).encode(), about | told)


def whole(path, content, about):
    """An export of this content, with the JSON file that says that it is whole."""
    about = about | {"sha256": sha256(content).hexdigest()}
    path.with_suffix(".json").write_text(json.dumps(about))
    path.write_bytes(content)
    return path
