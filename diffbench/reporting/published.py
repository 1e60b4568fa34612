"""The papers' numbers: ``config/published.csv``, and how a table chooses one of them.

The package has a copy of the file as it was when the package was made.  What differs from it is named wherever the
numbers are shown: a row that was added is the user's, and one that was changed is no longer what the paper says.
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from diffbench.plan.reading import nearest
from diffbench.specs.errors import PlanError

#: The columns that say which number a row is; each has one row.
KEY = ("paper", "table", "dataset", "method", "setting", "solver", "nfe", "metric")
#: Where sources are on the web: a pattern of what a source says, and the address that its parts make.
ADDRESSES = (
    (re.compile(r"arXiv:(\d{4}\.\d{5})"), "https://arxiv.org/abs/{}"),
    (re.compile(r"github issue ([\w-]+/[\w-]+)#(\d+)"), "https://github.com/{}/issues/{}"),
    (re.compile(r"^([\w-]+/[\w-]+) README"), "https://github.com/{}"),
)
Row = Mapping[str, str]


@dataclass(frozen=True)
class PublishedValue:
    """One published value as printed, with its source and how it was made; empty where the source does not say.

    Attributes:
        value, source: as printed; paper, table and data set.
        nfe: calls of the network.
        version: of the data set, where there are several: who resized it, or how.
        trained_in, sampled_in: the network's precision.
        row: the columns of its row that are not empty, and the ``address`` of its source where that is known.
    """

    value: str
    source: str
    nfe: str
    version: str = ""
    trained_in: str = ""
    sampled_in: str = ""
    row: Row = field(default_factory=dict, hash=False)


class PublishedValues:
    """All published values.

    Args:
        path: a CSV file with the columns paper, table, dataset, method, setting, solver, nfe,
            metric, value, unit, source, certainty, version, trained_in, sampled_in.

    Raises:
        PlanError: when the file does not exist.
    """

    def __init__(self, path: Path) -> None:
        try:
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                self.rows = list(reader)
                self.columns = list(reader.fieldnames or ())
        except OSError:
            raise PlanError(
                f"{path} cannot be read: tables take published values from it"
            ) from None

    def choose(self, selection: Mapping[str, str]) -> PublishedValue:
        """Return the one value whose columns have the selected values.

        Raises:
            PlanError: as ``line``.
        """
        row = self.rows[self.line(selection)]
        made = {key: row[key] for key in ("nfe", "version", "trained_in", "sampled_in")}
        data = ", ".join(filter(None, (row["dataset"], row["version"])))
        source = f"{row['source']}, {row['table']}, {data} ({row['certainty']})"
        whole = {name: text for name, text in row.items() if text} | address(row["source"])
        return PublishedValue(row["value"], source, **made, row=whole)

    def line(self, selection: Mapping[str, str]) -> int:
        """Return the index in ``rows`` of the one value whose columns have the selected values.

        Raises:
            PlanError: when a column does not exist, or none or several values are selected.
        """
        for column in selection:
            if column not in self.columns:
                known = nearest(column, self.columns)
                raise PlanError(f"tables: published.csv has no column {column!r}{known}")
        found = [
            index
            for index, row in enumerate(self.rows)
            if all(row[k] == v for k, v in selection.items())
        ]
        if len(found) != 1:
            raise PlanError(
                f"tables: {len(found)} published values have {dict(selection)}, and exactly one must"
            )
        return found[0]


def address(source: str) -> dict[str, str]:
    """Return where a source is on the web, as ``address``; empty where its words do not say."""
    for pattern, place in ADDRESSES:
        if found := pattern.search(source):
            return {"address": place.format(*found.groups())}
    return {}


def packaged() -> list[dict[str, str]]:
    """Return the published values that the package was made with."""
    text = resources.files("diffbench.reporting").joinpath("published.csv").read_text("utf-8")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def differences(rows: Sequence[Row], known: Sequence[Row]) -> list[dict[str, str]]:
    """Return how published values differ from known ones.

    Each difference has ``what`` (changed, missing or added), ``row``, which number it is, and ``said``: of a change
    both values of each column that differs.
    """
    mine: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        mine[_key(row)].append(row)
    changed = [each for row in known for each in _changes(row, mine.pop(_key(row), []))]
    added = [("added", key, "not one of the packaged values") for key in mine]
    return [
        {"what": what, "row": ", ".join(filter(None, key)), "said": said}
        for what, key, said in (*changed, *added)
    ]


def _key(row: Row) -> tuple[str, ...]:
    return tuple(row.get(name) or "" for name in KEY)


def _changes(known: Row, mine: Sequence[Row]) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Yield how a known row's number was changed, or that it is missing."""
    if not mine:
        yield "missing", _key(known), f"the packaged value is {known['value']}"
    for row in mine:
        differing = [name for name in known if (row.get(name) or "") != known[name]]
        if differing:
            said = (f"{name} is {row.get(name)!r}, packaged {known[name]!r}" for name in differing)
            yield "changed", _key(known), "; ".join(said)
