"""A page for each paper: which of its numbers we fill, by which command, at what cost, and where we deviate.

All of it is read: the works and what uses them (``config/papers.yaml``), the published numbers with the cells that fill
them (``diffbench coverage``), the budgets of the plans, and the settings that differ (``docs/settings.md``, which a
test keeps equal to what ``diffbench settings`` prints).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from diffbench.plan.jobs import Plan
from diffbench.plan.loading import load_plan
from diffbench.reporting import layout
from diffbench.reporting.citations import Work, works
from diffbench.reporting.coverage import HEADS, FillingCell, coverage, filling_cells, read_coverage
from diffbench.reporting.formats import Grid, pipes
from diffbench.reporting.published import PublishedValues
from diffbench.specs.benchmark import VariantSpec

#: The benchmark that tries every restorer.
RESTORATIONS = "digits-restore.yaml"
NO_NUMBERS = "No published number of it is of a data set that a benchmark covers."


@dataclass
class Papers:
    """What is known of all papers.

    Attributes:
        repository: the folder of the Snakefile.
        plans: benchmark file -> its plan.
        filled: paper -> the cells that fill its numbers.
    """

    repository: Path
    plans: dict[str, Plan] = field(default_factory=dict)
    filled: dict[str, list[FillingCell]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = layout.read_tables(self.repository)
        self.published = PublishedValues(self.repository / layout.PUBLISHED)
        for name in read_coverage(self.repository).benchmarks:
            plan = self.plan(name)
            for line, cell in filling_cells(plan, known, self.published):
                self.filled.setdefault(self.published.rows[line]["paper"], []).append(cell)

    def plan(self, name: str) -> Plan:
        """Return the plan of a benchmark file."""
        if name not in self.plans:
            file = self.repository / "config" / name
            self.plans[name] = load_plan([file], {}, self.repository, needs_files=False)
        return self.plans[name]

    @cached_property
    def numbers(self) -> Mapping[str, list[Sequence[str]]]:
        """Paper -> a row for each published number of the data sets that benchmarks cover."""
        found: dict[str, list[Sequence[str]]] = {}
        for grid in coverage(self.repository).grids:
            dataset = grid.caption.partition(":")[0]
            for row in grid.rows:
                found.setdefault(row[0], []).append([dataset, *row[1:]])
        return found

    @cached_property
    def deviations(self) -> Mapping[str, list[tuple[str, list[list[str]]]]]:
        """Paper -> benchmark file and the rows of its settings that differ, with the reason."""
        found: dict[str, list[tuple[str, list[list[str]]]]] = {}
        page = (self.repository / "docs" / "settings.md").read_text()
        for heading, text in re.findall(r"^## (.*)\n\n((?:\|.*\n)+)", page, re.MULTILINE):
            file, _, paper = heading.partition(": ")
            rows = [_cells(line) for line in text.splitlines()[2:]]
            different = [row for row in rows if row[-1]]
            if different and paper != "what differs":
                found.setdefault(paper, []).append((file, different))
        return found

    @cached_property
    def works(self) -> Mapping[str, Work]:
        """The papers that have a page: whose method a variant, a restorer or a published number is."""
        every = works(self.repository)
        named = {
            variant.paper for plan in self.plans.values() for variant in plan.variants.values()
        }
        named |= {row["paper"] for row in self.published.rows}
        return {key: work for key, work in every.items() if key in named or "restorers" in work.of}


def _cells(line: str) -> list[str]:
    return [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def pages(repository: Path) -> dict[str, str]:
    """Return page -> text: a page for each paper, and the list of them."""
    papers = Papers(repository)
    texts = {
        f"papers/{key}.md": "\n".join(paper_page(papers, key, work))
        for key, work in papers.works.items()
    }
    return {"papers/index.md": "\n".join(index(papers)), **texts}


def index(papers: Papers) -> Iterator[str]:
    """Yield the lines of the list of papers."""
    yield from ["# The papers", ""]
    yield (
        "A page for each: which of its published numbers a cell of a benchmark fills, which command fills them, what "
        "they cost, and where our settings are not the paper's. The pages are made of `config/` when the site is built."
    )
    rows = []
    for key, work in papers.works.items():
        filled, every = _counts(papers, key)
        numbers = f"{filled} of {every}" if every else ""
        rows.append([f"[{work.title}]({key}.md)", _authors(work), str(work.year), numbers])
    yield from ["", pipes(Grid(["paper", "by", "", "numbers filled"], rows)), ""]
    yield "`docs/coverage.md` has all numbers on one page, `docs/settings.md` all settings."


def _counts(papers: Papers, key: str) -> tuple[int, int]:
    rows = papers.numbers.get(key, [])
    return sum(not row[-1].startswith("not filled") for row in rows), len(rows)


def _authors(work: Work) -> str:
    first = work.authors[0].split(",")[0].split()[-1]
    return (
        f"{first} et al."
        if len(work.authors) > 2
        else " & ".join(each.split()[-1] for each in work.authors)
    )


def paper_page(papers: Papers, key: str, work: Work) -> Iterator[str]:
    """Yield the lines of one paper's page."""
    yield from [f"# {work.title}", ""]
    venue = f" {work.venue}." if work.venue else ""
    address = f" <https://arxiv.org/abs/{work.arxiv}>" if work.arxiv else ""
    yield f"{', '.join(work.authors)}, {work.year}.{venue}{address}"
    yield from ["", "## What is covered", ""]
    yield from _covered(papers, key, work)
    if cells := papers.filled.get(key, []):
        yield from ["", "## Which command fills which table", ""]
        yield from _commands(cells)
        yield from ["", "## At what cost", ""]
        yield from _costs(papers, cells)
    if rows := papers.numbers.get(key):
        yield from ["", "## The published numbers", ""]
        yield pipes(Grid(["data", *HEADS[1:]], rows, labels=len(HEADS)))
    yield from ["", "## Where we deviate", ""]
    yield from _deviations(papers, key)
    yield ""


def _covered(papers: Papers, key: str, work: Work) -> Iterator[str]:
    filled, every = _counts(papers, key)
    if every:
        yield f"{filled} of {every} published numbers have a cell; the table below says which, or why none."
    else:
        yield NO_NUMBERS
    yield ""
    for kind, names in work.of.items():
        yield f"- {kind}: {', '.join(f'`{name}`' for name in names)}"
    for name, plan in papers.plans.items():
        own = [each for each, variant in plan.variants.items() if variant.paper == key]
        if own:
            yield f"- variants of `config/{name}`: {', '.join(f'`{each}`' for each in own)}"
    if restorers := work.of.get("restorers"):
        offered = papers.plan(RESTORATIONS).benchmark.restorations.restorers
        ids = [each for each, spec in offered.items() if spec.name in restorers]
        told = f", as {', '.join(f'`{each}`' for each in ids)}" if ids else ""
        yield f"- on the digits' inverse problems: `config/{RESTORATIONS}`{told}"


def commands(cells: Sequence[FillingCell]) -> dict[tuple[str, str], list[str]]:
    """Return benchmark and table -> the variants that fill the numbers of it."""
    found: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        variants = found.setdefault((cell.benchmark, cell.table), [])
        if cell.variant not in variants:
            variants.append(cell.variant)
    return found


def _commands(cells: Sequence[FillingCell]) -> Iterator[str]:
    for (benchmark, table), variants in commands(cells).items():
        count = sum((cell.benchmark, cell.table) == (benchmark, table) for cell in cells)
        yield f"For {count} of the numbers in `results/{benchmark}/tables/{table}.md`:"
        yield from ["", "```bash"]
        yield f"snakemake --cores 8 --configfile config/{benchmark}.yaml --config only={','.join(variants)}"
        yield from ["```", ""]


def _costs(papers: Papers, cells: Sequence[FillingCell]) -> Iterator[str]:
    yield (
        "What the plans ask for, for one seed. `diffbench estimate` times a few steps of them on your machine, "
        "and says the hours."
    )
    yield ""
    rows = []
    wanted = {(cell.benchmark, cell.variant) for cell in cells}
    for file, plan in papers.plans.items():
        for name, variant in plan.variants.items():
            if (plan.benchmark.name, name) in wanted:
                rows.append([file, f"`{name}`", *_cost(plan, variant)])
    heads = [
        "benchmark",
        "variant",
        "training",
        "images seen",
        "samples",
        "solvers: steps",
        "other",
    ]
    yield pipes(Grid(heads, rows, labels=2))
    yield from ["", "```bash"]
    for file in dict.fromkeys(row[0] for row in rows):
        names = ",".join(row[1].strip("`") for row in rows if row[0] == file)
        yield f"diffbench estimate config/{file} --set only={names}"
    yield "```"


def _cost(plan: Plan, variant: VariantSpec) -> list[str]:
    budget, solvers = variant.training, variant.solvers.values()
    steps = [getattr(each, "steps", None) for each in solvers]
    adaptive = sum(each is None for each in steps)
    others: dict[str, Sized] = {
        "likelihoods": variant.likelihoods,
        "analyses": variant.analyses,
    }
    total = f"{len(steps)}: {sum(filter(None, steps)):,}" + (
        f" and {adaptive} with steps of their own" if adaptive else ""
    )
    return [
        f"{budget.steps:,} steps of {budget.batch}" if budget else "none",
        f"{budget.steps * budget.batch / 1e6:,.0f} million" if budget else "",
        f"{plan.benchmark.samples:,} of each",
        total,
        ", ".join(f"{kind}: {len(each)}" for kind, each in others.items() if each),
    ]


def _deviations(papers: Papers, key: str) -> Iterator[str]:
    found = papers.deviations.get(key, [])
    if not found:
        yield "`docs/settings.md` has no setting of this paper that differs."
    for file, rows in found:
        yield f"In `config/{file}` (all settings, the same ones too: `docs/settings.md`):"
        yield from [
            "",
            pipes(Grid(["variants", "setting", "the paper's", "source", "ours", "why"], rows)),
            "",
        ]
