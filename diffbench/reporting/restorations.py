"""A figure of restorations: test images, their measurements, and what each method made of these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffbench.reporting.cells import Cell, state
from diffbench.reporting.galleries import Gallery, Pane, Row
from diffbench.reporting.layout import (
    Metrics,
    RestorationsFigureSpec,
)
from diffbench.reporting.listing import RESTORE, Place, places
from diffbench.reporting.records import TRUTH, Records
from diffbench.store import paths

MEASUREMENT = "pseudo-inverse"


class RestoredImages:
    """A gallery of restored images (see the module)."""

    def __init__(self, spec: RestorationsFigureSpec) -> None:
        self.spec = spec

    def make(self, results: Records, metrics: Metrics) -> Gallery:
        """Return the gallery: a pane for each task, without what is impossible."""
        plan = results.plan
        planned = [place for place, reason in places(plan, RESTORE).items() if not reason]
        panes = []
        for task in plan.benchmark.restorations.tasks:
            here = [place for place in planned if place[1].partition("/")[0] == task]
            if here:
                panes.append(Pane(task, self._rows(results, here)))
        title = f"{self.spec.title}: {plan.benchmark.name}"
        return Gallery(title, panes, plan.benchmark.data.levels, self.spec.note)

    def _rows(self, results: Records, here: Sequence[Place]) -> list[Row]:
        archives = {place: self._archive(results, place) for place in here}
        first = next((each for each in archives.values() if isinstance(each, dict)), None)
        known = [
            Row(label, first[key]) if first else Row(label, None, "missing")
            for label, key in ((TRUTH, "truth"), (MEASUREMENT, "measurement"))
        ]
        return [*known, *(_drawn(place, each) for place, each in archives.items())]

    def _archive(self, results: Records, place: Place) -> dict[str, Any] | Cell:
        """Return the images that the first seed with any has stored, or why there are none."""
        import numpy as np

        found = results.outcomes_of(RESTORE, *place)
        seed = next((seed for seed, each in found.items() if each.status == "ok"), None)
        if seed is None:
            return Cell(*state(found))
        run = results.plan.job(RESTORE, place[0], seed, place[1])
        # The checksum has just been verified with that of the scores.
        with np.load(paths.products(results.root, run.spec)[1]) as archive:
            return {name: archive[name][: self.spec.images] for name in archive.files}


def _drawn(place: Place, archive: dict[str, Any] | Cell) -> Row:
    variant, item = place
    label = f"{variant} {item.partition('/')[2]}"
    if isinstance(archive, Cell):
        return Row(label, None, archive.status, archive.note)
    return Row(label, archive["restorations"][:, 0])
