"""A figure of restorations: test images, their measurements, and what each method made of these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffbench.reporting.cells import Cell, state
from diffbench.reporting.galleries import Gallery, ImageRow, Pane
from diffbench.reporting.layout import (
    Metrics,
    RestorationsFigureSpec,
)
from diffbench.reporting.listing import RESTORE, RowKey, planned_rows
from diffbench.reporting.records import TRUTH, Records
from diffbench.store import paths
from diffbench.store.products import reading

MEASUREMENT = "pseudo-inverse"


class RestoredImages:
    """A gallery of restored images (see the module)."""

    def __init__(self, spec: RestorationsFigureSpec) -> None:
        self.spec = spec

    def make(self, results: Records, metrics: Metrics) -> Gallery:
        """Return the gallery: a pane for each task, without what is impossible."""
        plan = results.plan
        planned = [row_key for row_key, reason in planned_rows(plan, RESTORE).items() if not reason]
        panes = []
        for task in plan.benchmark.restorations.tasks:
            here = [row_key for row_key in planned if row_key[1].partition("/")[0] == task]
            if here:
                panes.append(Pane(task, self._rows(results, here)))
        title = f"{self.spec.title}: {plan.benchmark.name}"
        return Gallery(title, panes, plan.benchmark.data.levels, self.spec.note)

    def _rows(self, results: Records, here: Sequence[RowKey]) -> list[ImageRow]:
        archives = {row_key: self._archive(results, row_key) for row_key in here}
        first = next((each for each in archives.values() if isinstance(each, dict)), None)
        known = [
            ImageRow(label, first[key]) if first else ImageRow(label, None, "missing")
            for label, key in ((TRUTH, "truth"), (MEASUREMENT, "measurement"))
        ]
        return [*known, *(_drawn(row_key, each) for row_key, each in archives.items())]

    def _archive(self, results: Records, row_key: RowKey) -> dict[str, Any] | Cell:
        """Return the images that the first seed with any has stored, or why there are none."""
        import numpy as np

        found = results.outcomes_of(RESTORE, *row_key)
        seed = next((seed for seed, each in found.items() if each.status == "ok"), None)
        if seed is None:
            return Cell(*state(found))
        job = results.plan.job(RESTORE, row_key[0], seed, row_key[1])
        # The checksum has just been verified with that of the scores.
        path = paths.products(results.root, job.spec)[1]
        with reading(path), np.load(path) as archive:
            return {name: archive[name][: self.spec.images] for name in archive.files}


def _drawn(row_key: RowKey, archive: dict[str, Any] | Cell) -> ImageRow:
    variant, item = row_key
    label = f"{variant} {item.partition('/')[2]}"
    if isinstance(archive, Cell):
        return ImageRow(label, None, archive.status, archive.note)
    return ImageRow(label, archive["restorations"][:, 0])
