"""The papers' numbers: ``config/published.csv``, and how a table chooses one of them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diffbench.plan.reading import nearest
from diffbench.specs.errors import PlanError


@dataclass(frozen=True)
class PublishedValue:
    """One published value as printed, with its source and how it was made; empty where the source does not say.

    Attributes:
        value, source: as printed; paper, table and data set.
        nfe: calls of the network.
        version: of the data set, where there are several: who resized it, or how.
        trained_in, sampled_in: the network's precision.
    """

    value: str
    source: str
    nfe: str
    version: str = ""
    trained_in: str = ""
    sampled_in: str = ""


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
        return PublishedValue(row["value"], source, **made)

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
