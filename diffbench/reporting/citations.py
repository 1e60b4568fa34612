r"""What a benchmark's numbers build on, as BibTeX: papers, data sets, metrics and software.

``config/papers.yaml`` has each work once, with what uses it; ``CITATION.cff`` has diffbench.  A work is cited when a
variant names it as its ``paper``, when a published number beside ours is from it, or when something that it is ``of``
was used:

    solvers: [ddim]     a part of a variant by its name
    w: [any]            a key of a part, with one of these values or any
    data, extractor     of the benchmark
    metrics: [fid]      a number that was measured
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from diffbench.plan import reading
from diffbench.plan.jobs import Plan
from diffbench.plan.reading import refuse_unknown
from diffbench.reporting import layout
from diffbench.reporting.cells import DASH
from diffbench.reporting.exports import Export
from diffbench.reporting.formats import Table, escaped
from diffbench.specs.base import Spec
from diffbench.specs.errors import PlanError

PAPERS, SOFTWARE = Path("config") / "papers.yaml", Path("CITATION.cff")
#: The field in which a kind of entry has its venue.
VENUES = {
    "inproceedings": "booktitle",
    "article": "journal",
    "techreport": "institution",
    "misc": "howpublished",
}
ANY = "any"
#: The accents of LaTeX by the combining characters of Unicode, and letters that have none.
ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0308": '"',
    "\u030c": "v ",
    "\u0327": "c ",
}
LETTERS = {"ł": r"{\l}", "Ł": r"{\L}", "ø": r"{\o}", "Ø": r"{\O}", "ß": r"{\ss}"}


class Work(Spec):
    """A paper, a data set or software.

    kind: the kind of entry; by default a paper of a conference, or ``misc`` where there is no venue.
    authors: each as "First Last", or "Last, First" where the last name has several words.
    of: what uses it: a part, a key or ``metrics`` -> names or values.
    """

    kind: Literal["inproceedings", "article", "techreport", "misc"] | None = None
    title: str
    authors: Annotated[list[str], Field(min_length=1)]
    year: int | None = None
    venue: str = ""
    arxiv: Annotated[str, Field(pattern=r"^(\d{4}\.\d{4,5})?$")] = ""
    doi: str = ""
    url: str = ""
    version: str = ""
    of: dict[str, list[str]] = {}

    def entry(self, key: str) -> str:
        """Return the entry of BibTeX."""
        kind = self.kind or ("inproceedings" if self.venue else "misc")
        link = self.url or (f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else "")
        fields = {
            "title": f"{{{_latex(self.title)}}}",
            "author": " and ".join(map(_latex, self.authors)),
            "year": str(self.year or ""),
            VENUES[kind]: _latex(self.venue),
            "eprint": self.arxiv,
            "archiveprefix": "arXiv" if self.arxiv else "",
            "doi": self.doi,
            "url": link,
            "note": f"Version {self.version}" if self.version else "",
        }
        lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
        return "\n".join([f"@{kind}{{{key},", *lines, "}"])


@dataclass(frozen=True)
class Used:
    """What numbers build on.

    Attributes:
        variants: each with everything merged into it, in plain values.
        settings: the keys of the benchmark file that all numbers depend on, in plain values.
        metrics: the metrics that were measured, or are to be.
        papers: keys of works whose published numbers stand beside ours.
    """

    variants: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]
    metrics: frozenset[str]
    papers: frozenset[str] = field(default_factory=frozenset)

    def of_variants(self, names: Iterable[str], where: object) -> Used:
        """Return what these variants build on.

        Raises:
            PlanError: when there is no such variant in ``where``, with the nearest name.
        """
        chosen = list(names)
        for name in chosen:
            refuse_unknown("variant", name, self.variants, where)
        kept = {name: self.variants[name] for name in chosen} if chosen else self.variants
        return replace(self, variants=kept)

    def of_table(self, lines: Sequence[Mapping[str, str]]) -> Used:
        """Return what the rows of a table's CSV build on."""
        variants = {
            name: _with_items(each, {line["solver"] for line in lines if line["variant"] == name})
            for name, each in self.variants.items()
            if any(line["variant"] == name for line in lines)
        }
        metrics = frozenset(line["metric"] for line in lines)
        papers = frozenset(line["paper"] for line in lines)
        return replace(self, variants=variants, metrics=metrics, papers=papers)

    def parts(self) -> set[tuple[str, str]]:
        """Return what ``of`` of a work can name: (part or key, name or value)."""
        found = {("metrics", metric) for metric in self.metrics}
        for variant in self.variants.values():
            for section, value in variant.items():
                found.update(_parts(section, value))
        for section in ("data", "extractor"):
            found.update(_parts(section, self.settings.get(section)))
        return found


def _with_items(variant: Mapping[str, Any], items: set[str]) -> dict[str, Any]:
    """Return a variant with only these of its solvers, likelihoods, restorers and analyses."""
    # A restoration is task/restorer, weights along training are solver@step.
    named = {word for item in items for word in (item, *item.split("/"), item.partition("@")[0])}
    parts = ("solvers", "likelihoods", "restorers", "analyses")
    kept = {part: {k: v for k, v in variant.get(part, {}).items() if k in named} for part in parts}
    return {**variant, **kept}


def _parts(section: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the names and the values in a part of a variant; an inner solver is a solver."""
    section = {"solver": "solvers", "corrector": "solvers"}.get(section, section)
    if isinstance(value, Mapping):
        if isinstance(value.get("name"), str):
            yield section, value["name"]
        for key, each in value.items():
            named = isinstance(each, Mapping) and key not in ("solver", "corrector")
            yield from _parts(section if named else str(key), each)
    elif value is not None and value != "none":
        yield section, ANY
        yield section, str(value)


def of_export(export: Export, lines: Iterable[Mapping[str, str]] = ()) -> Used:
    """Return what an export builds on, and the rows of tables (of their CSV) with published numbers."""
    metrics = frozenset(export.frame["metric"])
    published = {each["paper"] for each in lines if each.get("published", DASH) != DASH}
    about = export.about
    variants = _with_shared(about["variants"], about["settings"])
    return Used(variants, about["settings"], metrics, frozenset(published))


def of_plan(plan: Plan) -> Used:
    """Return what the numbers and the tables of a benchmark build on, whether it was run or not."""
    tables = layout.of_plan(plan).tables.values()
    metrics = frozenset(metric for table in tables for metric in table.named)
    published = frozenset(paper for table in tables for paper in _published(table.model_dump()))
    variants = {
        name: each.model_dump(mode="json", exclude_none=True)
        for name, each in plan.variants.items()
    }
    settings = plan.benchmark.model_dump(mode="json")
    return Used(_with_shared(variants, settings), settings, metrics, published)


def _with_shared(
    variants: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    """Return the variants with the restorers that the benchmark tries on their models."""
    shared = settings.get("restorations", {})
    found = dict(variants)
    for name, each in variants.items():
        if any(fnmatchcase(name, pattern) for pattern in shared.get("variants", [])):
            both = {**shared.get("restorers", {}), **each.get("restorers", {})}
            found[name] = {**each, "restorers": both}
    return found


def rows_of(results: Path, name: str | None) -> list[dict[str, str]]:
    """Return the rows of a table of a results folder, from its CSV; those of all its tables where none is named.

    Raises:
        PlanError: when there is no such table, or it is no table of variants.
    """
    found = {
        path.stem: list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        for path in sorted(results.glob("tables/*.csv"))
        if path.stem != layout.EXPORT
    }
    if name is None:
        return [row for rows in found.values() for row in rows if "variant" in row]
    return _named(name, found, results)


def rows_in(name: str, tables: Mapping[str, Table], where: object) -> list[dict[str, str]]:
    """Return the rows of one of a benchmark's tables, as its CSV has them.

    Raises:
        PlanError: as ``rows_of``.
    """
    found = {key: [row.line(key) for row in each.records] for key, each in tables.items()}
    return _named(name, found, where)


def _named(
    name: str, tables: Mapping[str, list[dict[str, str]]], where: object
) -> list[dict[str, str]]:
    refuse_unknown("table", name, tables, where)
    if not all("variant" in row for row in tables[name]):
        raise PlanError(f"{where}: the table {name} has no variants: leave --table out")
    return tables[name]


def _published(value: Any) -> Iterator[str]:
    """Yield the papers whose published numbers a table names."""
    if isinstance(value, Mapping):
        chosen = value.get("published")
        if isinstance(chosen, Mapping) and "paper" in chosen:
            yield str(chosen["paper"])
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _published(each)


def works(repository: Path) -> dict[str, Work]:
    """Return the works of ``config/papers.yaml`` by key, and diffbench itself; none where the files do not exist.

    Raises:
        PlanError: for the first mistake in the file.
    """
    found: dict[str, Work] = {}
    if (repository / PAPERS).is_file():
        kinds = TypeAdapter(dict[str, Work])
        tree = reading.read(repository / PAPERS)
        found = reading.validated(kinds.validate_python, dict[str, Work], tree)
    if (repository / SOFTWARE).is_file():
        told = reading.read(repository / SOFTWARE).value
        found["diffbench"] = Work(
            kind="misc",
            title=told["title"],
            authors=[f"{{{each['name']}}}" for each in told["authors"]],
            version=told["version"],
        )
    return found


def cited(used: Used, known: Mapping[str, Work]) -> tuple[list[str], list[str]]:
    """Return the keys of the works that numbers build on, in the order of ``known``; and papers without a work."""
    parts = used.parts()
    papers = used.papers | {str(each.get("paper") or "") for each in used.variants.values()}
    keys = [
        key
        for key, work in known.items()
        if key in papers
        or key == "diffbench"
        or any((section, name) in parts for section, names in work.of.items() for name in names)
    ]
    return keys, sorted(papers - known.keys() - {"", DASH})


def bibtex(used: Used, repository: Path) -> str:
    """Return the entries of all works that numbers build on, and a line for each paper without one.

    It is empty where the repository names no works.
    """
    known = works(repository)
    if not known:
        return ""
    keys, lacking = cited(used, known)
    # BibTeX has no comments: what is outside an entry must have no @.
    lines = [
        f"% no entry in {PAPERS}: {re.sub('[^A-Za-z0-9 .:-]', '_', key)[:80]}" for key in lacking
    ]
    return "\n\n".join([*(known[key].entry(key) for key in keys), *lines]) + "\n"


def _latex(text: str) -> str:
    """Return text as LaTeX in ASCII; braces around a name of one part are kept."""
    if text.startswith("{") and text.endswith("}"):
        return f"{{{_latex(text[1:-1])}}}"
    return "".join(map(_letter, escaped(text)))


def _letter(letter: str) -> str:
    parts = unicodedata.normalize("NFD", letter)
    base = parts[0]
    for accent in parts[1:]:
        base = f"{{\\{ACCENTS[accent]}{base}}}" if accent in ACCENTS else letter
    return LETTERS.get(base, base)
