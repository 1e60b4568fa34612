"""A figure of trajectories: the same images on the way from noise, as each process and solver made them.

A state x_t is shown as m + (x_t - m)/sqrt(alpha_t^2 + sigma_t^2), for data in [-1, 1] around the middle m, so that
noise has one contrast on every process; at the image this changes nothing.  States between walls are shown as they are.
The CSV has the noise levels, and how far each state is from the image as it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from diffbench.plan.jobs import Job
from diffbench.reporting.charts import Chart, Line, Panel, Point, to_csv
from diffbench.reporting.galleries import Gallery, ImageRow, Pane
from diffbench.reporting.layout import Metrics, TrajectoriesFigureSpec
from diffbench.reporting.records import Records
from diffbench.reporting.results import Outcome
from diffbench.specs.jobs import TrajectorySpec
from diffbench.specs.processes import ProcessSpec
from diffbench.store import paths
from diffbench.store.products import reading

NOTE = (
    "From the solver's start on the left to the image on the right, with sigma/alpha below each state: the noise over "
    "the signal, for data in [-1, 1]; two numbers are those of the lowest and of the highest frequency. States are "
    "divided by sqrt(alpha^2 + sigma^2), except between walls. All start from the same random numbers, which are "
    "added to blurred training images where only blur changes."
)
NONE = "This benchmark keeps no trajectories: its file has no key `trajectory`, such as {images: 8, states: 12}."
#: Shown levels: 0 to 255; and that of a place without a state.
LEVELS, EMPTY = 256, 225


@dataclass(frozen=True)
class Trajectories(Gallery):
    """A gallery whose numbers are those of ``panels``."""

    panels: Sequence[Panel] = ()
    abreast: ClassVar[int] = 2

    def csv(self, name: str) -> str:
        """Return the noise levels and the distances from the images as CSV."""
        return to_csv(name, Chart(self.title, "steps", self.panels))


class TrajectoriesFigure:
    """A gallery of trajectories (see the module)."""

    def __init__(self, spec: TrajectoriesFigureSpec) -> None:
        self.spec = spec

    def make(self, results: Records, metrics: Metrics) -> Trajectories:
        """Return the gallery: a pane for each variant whose states are kept."""
        plan = results.plan
        title = f"{self.spec.title}: {plan.benchmark.name}"
        made = [self._pane(results, job) for job in plan.of("trajectory")]
        if not made:
            lacking = Line("states", [Point(None, status="missing", note=NONE)])
            return Trajectories(title, [], LEVELS, NONE, [Panel("none", [lacking])])
        note = f"{NOTE} {self.spec.note}".strip()
        panes, panels = zip(*made, strict=True)
        return Trajectories(title, panes, LEVELS, note, panels)

    def _pane(self, results: Records, job: Job) -> tuple[Pane, Panel]:
        """Return the pictures of one job, and their numbers."""
        import numpy as np

        assert isinstance(job.spec, TrajectorySpec)
        assert job.spec.sample.train is not None
        name = f"{job.variant}, {job.item}"
        outcome = results.files.whole(job)
        if outcome.status != "ok":
            return _lacking(name, outcome)
        # The checksum has just been verified.
        path = paths.product(results.root, job.spec)
        with reading(path), np.load(path) as archive:
            kept = {key: archive[key] for key in archive.files}
        shown = pictures(kept, job.spec.sample.train.process)[:, : self.spec.images]
        spread = spaced(shown, job.spec.states)
        rows = [
            ImageRow(f"image {index + 1}", spread[:, index]) for index in range(spread.shape[1])
        ]
        feet = [""] * len(spread)
        for place, foot in zip(places(len(shown), job.spec.states), _feet(kept), strict=True):
            feet[place] = foot
        return Pane(name, rows, feet), Panel(name, _numbers(kept, shown))


def _lacking(name: str, outcome: Outcome) -> tuple[Pane, Panel]:
    why = Point(None, status=outcome.status, note=outcome.reason)
    row = ImageRow("image 1", None, outcome.status, outcome.reason)
    return Pane(name, [row]), Panel(name, [Line("states", [why])])


def pictures(kept: Mapping[str, Any], process: ProcessSpec) -> Any:
    """Return states as pictures, uint8 (S, N, H, W, C) in 0..255 (see the module).

    Args:
        kept: the arrays of a trajectory's product.
        process: the process that the states are of.
    """
    import numpy as np

    x = (kept["states"].astype(float) - process.middle) / process.half_range
    if not process.bounded:
        scale = np.sqrt(kept["alpha"] ** 2 + kept["sigma"] ** 2)
        x = x / scale[:, None, None, None, None]
    return np.round((x.clip(-1, 1) + 1) / 2 * (LEVELS - 1)).astype(np.uint8)


def places(count: int, columns: int) -> list[int]:
    """Return the column of each of ``count`` states, evenly spaced, the last one in the last column."""
    return [round((columns - 1) * i / max(count - 1, 1)) for i in range(count)]


def spaced(shown: Any, columns: int) -> Any:
    """Return pictures (S, ..) in ``columns`` places, with empty ones between them where S is smaller."""
    import numpy as np

    spread = np.full((columns, *shown.shape[1:]), EMPTY, shown.dtype)
    spread[places(len(shown), columns)] = shown
    return spread


def _ratios(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Return sigma/alpha by name: one, or that of the lowest and of the highest frequency where they differ."""
    import numpy as np

    named = {"sigma/alpha": kept["alpha"]}
    if not np.array_equal(kept["alpha"], kept["alpha_highest"]):
        named["sigma/alpha, highest frequency"] = kept["alpha_highest"]
    # The signal of the highest frequency may be 0, in the precision of numbers.
    with np.errstate(divide="ignore"):
        return {name: kept["sigma"] / alpha for name, alpha in named.items()}


def _feet(kept: Mapping[str, Any]) -> list[str]:
    """Return what stands below each state: its noise levels."""
    levels = zip(*_ratios(kept).values(), strict=True)
    return ["\n".join(map(short, each)) for each in levels]


def short(value: float) -> str:
    """Return a number in at most six letters: ``0.013``, ``80``, ``3e5``."""
    if 100 <= value < 10_000:
        return f"{value:.0f}"
    return f"{value:.2g}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")


def _numbers(kept: Mapping[str, Any], shown: Any) -> list[Line]:
    """Return the noise levels by step, and the root mean square difference from the image, in grey values 0 to 1."""
    import numpy as np

    levels = shown.astype(float) / (LEVELS - 1)
    away = np.sqrt(((levels - levels[-1]) ** 2).mean((1, 2, 3, 4)))
    series = _ratios(kept) | {"difference from the image": away}
    return [
        Line(
            name,
            [
                Point(float(step), float(y) if np.isfinite(y) else None, seeds=1)
                for step, y in zip(kept["steps"], values, strict=True)
            ],
        )
        for name, values in series.items()
    ]
