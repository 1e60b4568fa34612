"""What a finished benchmark measured, kept in the repository: ``docs/records/{benchmark}/``.

    cells.csv     a row a number, over the seeds of the plan: which cell it is, mean, spread, N, protocol, the hash of
                  the specs that made it, and the commits of the code that made it
    budgets.csv   what each variant was trained with
    claims.csv    the table of claims
    {figure}.png, {figure}.csv  each figure, and the numbers in it

Results themselves are not kept in the repository: they are large, and anyone can make them again.  The pages of README
and docs are written from these files alone (``pages``).  A row is ``fresh`` while the plan of the repository asks for
the specs that made it: then a new run would make the same number.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffbench.plan.jobs import Job, Plan
from diffbench.reporting import context, layout, tables
from diffbench.reporting.cells import DASH, Cell, Key, text
from diffbench.reporting.formats import csv_of, to_csv
from diffbench.reporting.numbers import count
from diffbench.reporting.records import Records, with_numbers
from diffbench.specs.errors import PlanError
from diffbench.specs.jobs import SampleSpec, ScoreSpec, StageSpec
from diffbench.store import files, paths, run_record

FOLDER = layout.RECORDS
CELLS, BUDGETS = layout.RECORDED
CLAIMS = "claims"
COLUMNS = (
    "variant",
    "stage",
    "item",
    "metric",
    "mean",
    "sd",
    "se",
    "seeds",
    "samples",
    "nfe",
    "floor",
    "protocol",
    "status",
    "note",
    "spec",
    "commit",
)


@dataclass(frozen=True)
class Entry:
    """One recorded number.

    Attributes:
        key: variant, stage, item and metric.
        cell: the number over seeds, or why there is none.
        protocol: how it was made, in words.
        spec: a hash of the specs of its jobs, all seeds together.
        commit: the commit of the code that made it; several, joined by ``+``, where seeds were run at several.
    """

    key: Key
    cell: Cell
    protocol: str
    spec: str
    commit: str

    def line(self) -> dict[str, str]:
        """Return the row of ``cells.csv``."""
        found = self.cell
        spread = (found.mean, found.sd, found.se, found.seeds, found.images, found.nfe, found.floor)
        rest = (self.protocol, found.status, found.note, self.spec, self.commit)
        values = (*self.key, *spread, *rest)
        return {column: text(value) for column, value in zip(COLUMNS, values, strict=True)}

    def source(self, benchmark: str) -> dict[str, str]:
        """Return where the number is from: the file that records it, and its row without what is not there."""
        row = {column: value for column, value in self.line().items() if value != DASH}
        return {"benchmark": benchmark, "file": f"{FOLDER / benchmark / CELLS}.csv", **row}

    @classmethod
    def read(cls, line: Mapping[str, str]) -> Entry:
        """Return the entry of a row."""
        names = ("mean", "sd", "se", "nfe", "floor")
        mean, sd, se, nfe, floor = (_number(line[name]) for name in names)
        images = _number(line["samples"])
        found = Cell(
            status=line["status"],
            note=_word(line["note"]),
            mean=mean,
            sd=sd,
            se=se,
            seeds=int(line["seeds"]),
            nfe=nfe,
            images=None if images is None else int(images),
            floor=floor,
        )
        key = line["variant"], line["stage"], line["item"], line["metric"]
        return cls(key, found, _word(line["protocol"]), line["spec"], line["commit"])


def _number(word: str) -> float | None:
    return None if word == DASH else float(word)


def _word(word: str) -> str:
    return "" if word == DASH else word


@dataclass(frozen=True)
class Recorded:
    """What is recorded of one benchmark.

    Attributes:
        benchmark: the benchmark's name.
        entries: the recorded numbers.
        claims: rows of the table of claims, by id.
        budgets: what each variant was trained with, in words.
    """

    benchmark: str
    entries: Mapping[Key, Entry]
    claims: Mapping[str, Mapping[str, str]]
    budgets: Mapping[str, str]

    @classmethod
    def read(cls, repository: Path, benchmark: str) -> Recorded | None:
        """Return what the repository has recorded of a benchmark; None where it has recorded nothing."""
        folder = repository / FOLDER / benchmark
        if not (folder / f"{CELLS}.csv").is_file():
            return None
        found = [Entry.read(line) for line in _lines(folder / f"{CELLS}.csv")]
        judged = {line["id"]: line for line in _lines(folder / f"{CLAIMS}.csv")}
        budgets = {line["variant"]: line["budget"] for line in _lines(folder / f"{BUDGETS}.csv")}
        return cls(benchmark, {each.key: each for each in found}, judged, budgets)

    def find(self, variant: str, item: str, metric: str) -> Entry | None:
        """Return a number by its item, whichever stage made it; None where none is recorded."""
        keys = ((variant, stage, item, metric) for stage in with_numbers())
        return next((self.entries[key] for key in keys if key in self.entries), None)

    def samples(self) -> list[tuple[str, str]]:
        """Return the variant and solver of all samples."""
        return list(dict.fromkeys((key[0], key[2]) for key in self.entries if key[1] == "sample"))

    def repeated(self, least: int) -> list[tuple[str, str]]:
        """Return the variant and solver of the samples that have at least so many seeds; not of controls.

        Raises:
            PlanError: when nothing says what was trained.
        """
        if not self.budgets:
            raise PlanError(
                f"{FOLDER / self.benchmark}: no {BUDGETS}.csv: record the benchmark again"
            )
        seeds: dict[tuple[str, str], int] = {}
        for (variant, stage, item, _), entry in self.entries.items():
            if stage == "sample" and variant in self.budgets:
                seeds[variant, item] = max(seeds.get((variant, item), 0), entry.cell.seeds)
        return [named for named, most in seeds.items() if most >= least]

    def run_of(self, named: Sequence[tuple[str, str]]) -> list[str]:
        """Return a sentence for each way in which these samples' models were trained: run, budget, N and commit."""
        groups: dict[tuple[str, str, str], list[str]] = {}
        for key, entry in self.entries.items():
            if key[1] == "sample" and (key[0], key[2]) in named:
                how = self.budgets[key[0]], count(entry.cell.images), entry.commit
                groups.setdefault(how, []).append(key[0])
        return [
            f"{self.benchmark} ({', '.join(dict.fromkeys(variants))}): {budget}; N = {images}; commit {commit}."
            for (budget, images, commit), variants in groups.items()
        ]


def _lines(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file; none where it does not exist."""
    if not path.is_file():
        return []
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def write(plan: Plan, root: Path, repository: Path) -> list[Path]:
    """Write the record of a benchmark's results, and return its files.

    Args:
        plan: the benchmark.
        root: the results folder.
        repository: the folder that has ``docs/records``.

    Returns:
        The files written.

    Raises:
        ValueError: when a job of the plan has no result: only a finished benchmark is recorded.
    """
    entries = list(_entries(plan, root))
    absent = [each for each in entries if each.cell.status in ("missing", "stale")]
    if absent:
        variant, stage, item, _ = absent[0].key
        raise ValueError(
            f"{root}: {len(absent)} numbers are missing, the first of the {stage} {item} of {variant} "
            f"({absent[0].cell.status}): run the benchmark to its end, then record it"
        )
    folder = repository / FOLDER / plan.benchmark.name
    made = {f"{CELLS}.csv": csv_of([each.line() for each in entries], COLUMNS).encode()}
    budgets = [
        {"variant": name, "budget": text}
        for name, each in plan.variants.items()
        if (text := context.made_by(each))
    ]
    made[f"{BUDGETS}.csv"] = csv_of(budgets, ("variant", "budget")).encode()
    found = tables.tables(plan, root)
    if layout.CLAIMS_TABLE in found:
        made[f"{CLAIMS}.csv"] = to_csv(CLAIMS, found[layout.CLAIMS_TABLE]).encode()
    for name, chart in tables.charts(plan, root).items():
        made |= {f"{name}.png": chart.png(), f"{name}.csv": chart.csv(name).encode()}
    for name, content in made.items():
        files.write(folder / name, content)
    return [folder / name for name in made]


def _entries(plan: Plan, root: Path) -> Iterator[Entry]:
    """Yield all numbers of a benchmark in the order of its jobs."""
    results, items = Records(plan, root), jobs_of(plan)
    made_by = {
        item: (digest(plan, jobs), "+".join(_commits(root, jobs))) for item, jobs in items.items()
    }
    for key, found in results.cells.items():
        variant, stage, item, metric = key
        is_figure = found.status == "ok" and not metric
        if (variant, stage, item) in items and not is_figure and metric != f"{stage}_seconds":
            how = context.protocol(metric, found.protocol)
            yield Entry(key, found, how, *made_by[variant, stage, item])


def jobs_of(plan: Plan) -> dict[tuple[str, str, str], list[Job]]:
    """Return the jobs that make numbers, one a seed, by variant, stage and item."""
    found: dict[tuple[str, str, str], list[Job]] = {}
    for job in plan.jobs:
        if job.spec.numbers:
            found.setdefault((job.variant, job.stage, job.item), []).append(job)
    return found


def digest(plan: Plan, jobs: list[Job]) -> str:
    """Return a hash of all that a number depends on: the specs of its jobs and, for samples, how they are scored."""
    content = [spec.model_dump(mode="json") for job in jobs for spec in _specs(plan, job)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _specs(plan: Plan, job: Job) -> list[StageSpec]:
    """Return a job's spec; of samples the spec of the score, without its other samples."""
    if not isinstance(job.spec, SampleSpec):
        return [job.spec]
    score = plan.job("score", job.variant, job.seed).spec
    assert isinstance(score, ScoreSpec)
    return [score.model_copy(update={"samples": {job.item: job.spec}})]


def _commits(root: Path, jobs: list[Job]) -> list[str]:
    found = (run_record.known(paths.product(root, job.spec)).get("commit") for job in jobs)
    return sorted({shortened(str(each)) for each in found if each})


def shortened(commit: str) -> str:
    """Return the first twelve digits of a commit, with its suffix for changed files."""
    digits, dash, dirty = commit.partition("-")
    return f"{digits[:12]}{dash}{dirty}"


def fresh(plan: Plan, records: Recorded) -> set[Key]:
    """Return the keys of the recorded numbers that the plan as it is now would make again."""
    wanted = {key: digest(plan, jobs) for key, jobs in jobs_of(plan).items()}
    return {
        key
        for key, entry in records.entries.items()
        if wanted.get((key[0], key[1], key[2])) == entry.spec
    }
