"""The figures' layouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from diffbench.plan.jobs import Plan
from diffbench.reporting.layout.cell import Asking, Column, Items, Named
from diffbench.specs.base import Float, PositiveInt, Registered, Spec
from diffbench.specs.weights import CellAt

#: The metric whose curve is FD against the number of samples.
AT_INFINITY = "fd_infinity"


class FigureSpec(Asking, Registered):
    """A figure of any layout; ``note`` is printed below it."""

    kind: ClassVar[str] = "figure"
    chosen_by: ClassVar[str] = "layout"

    layout: str
    title: str
    note: str = ""


class CurvePointSpec(Spec):
    """A point of a curve: the scores or the bits per dimension of one item, at ``x``."""

    x: Float
    variant: str
    item: str
    at: CellAt = None


class CurveSeriesSpec(Spec):
    """A curve and its name in the legend."""

    label: str
    points: Annotated[list[CurvePointSpec], Field(min_length=1)]


class CurveFigureSpec(FigureSpec):
    """Metrics, one panel each, against a number ``x`` of the solvers."""

    layout: Literal["curve"] = "curve"
    implementation: ClassVar[str] = "diffbench.reporting.figures:Curves"

    x: str
    metrics: Annotated[list[str], Field(min_length=1)]
    series: Annotated[list[CurveSeriesSpec], Field(min_length=1)]

    @property
    def asked(self) -> dict[str, Column]:
        """The cells of each panel."""
        points = [
            (each.variant, each.item, each.at) for series in self.series for each in series.points
        ]
        return {metric: Column(metric, points) for metric in self.metrics}


class SeriesSpec(Spec):
    """A variant's solver, likelihood or analysis, and its name in the legend."""

    label: str
    variant: str
    item: str

    @property
    def named(self) -> Named:
        """The item, of the last step's weights."""
        return self.variant, self.item, None


class LearningFigureSpec(FigureSpec):
    """Metrics, one panel each, against the training step: a point for each step whose weights have the item.

    log: which axes are logarithmic.
    """

    layout: Literal["learning"] = "learning"
    implementation: ClassVar[str] = "diffbench.reporting.figures:Learning"

    metrics: Annotated[list[str], Field(min_length=1)]
    series: Annotated[list[SeriesSpec], Field(min_length=1)]
    log: Literal["none", "x", "y", "xy"] = "none"

    @property
    def asked(self) -> dict[str, Column]:
        """A panel for each metric, of whatever steps are planned."""
        return {metric: Column(metric) for metric in self.metrics}

    def in_plan(self, plan: Plan) -> bool:
        """Return whether an item is planned, of whatever step."""
        return super().in_plan(plan) or any(plan.along(s.variant, s.item) for s in self.series)

    @property
    def cells_named(self) -> list[Named]:
        """The item of each series."""
        return [each.named for each in self.series]


class NFEFigureSpec(FigureSpec):
    """A metric against what the solvers took: function evaluations, or seconds.

    against: ``nfe``, or ``seconds`` of wall time for all samples, which belong to one machine.
    variants: one panel each, in this order.
    series: a curve's name in the legend -> ids of its solvers; a variant may lack some or all of them.
    """

    layout: Literal["nfe"] = "nfe"
    implementation: ClassVar[str] = "diffbench.reporting.figures:Evaluations"

    metric: str = "fid_test"
    against: Literal["nfe", "seconds"] = "nfe"
    variants: Annotated[list[str], Field(min_length=1)]
    series: Annotated[dict[str, Items], Field(min_length=1)]

    @property
    def asked(self) -> dict[str, Column]:
        """The one metric, of whatever is planned."""
        return {self.metric: Column(self.metric)}

    @property
    def cells_named(self) -> list[Named]:
        """The solvers of all series, of each variant."""
        items = [item for each in self.series.values() for item in each]
        return [(variant, item, None) for variant in self.variants for item in items]


class TermsFigureSpec(FigureSpec):
    """The terms of the variational bound, one for each step."""

    layout: Literal["terms"] = "terms"
    implementation: ClassVar[str] = "diffbench.reporting.figures:Terms"

    series: Annotated[list[SeriesSpec], Field(min_length=1)]

    @property
    def cells_named(self) -> list[Named]:
        """The item of each series."""
        return [each.named for each in self.series]


class ExtrapolationFigureSpec(FigureSpec):
    """FD against one over the number of samples, and the line fitted to it, to infinitely many."""

    layout: Literal["extrapolation"] = "extrapolation"
    implementation: ClassVar[str] = "diffbench.reporting.figures:Extrapolation"

    series: Annotated[list[SeriesSpec], Field(min_length=1)]

    @property
    def asked(self) -> dict[str, Column]:
        """The numbers of infinitely many samples."""
        return {AT_INFINITY: Column(AT_INFINITY, [each.named for each in self.series])}


class GradientNoiseFigureSpec(FigureSpec):
    """The noise of the gradient of each estimator of the bound, from a run's ``analysis``."""

    layout: Literal["gradient-noise"] = "gradient-noise"
    implementation: ClassVar[str] = "diffbench.reporting.figures:GradientNoiseFigure"

    variant: str
    item: str

    @property
    def cells_named(self) -> list[Named]:
        """The analysis."""
        return [(self.variant, self.item, None)]


class ReconstructionFigureSpec(FigureSpec):
    """The error of test images that were encoded and decoded again, against the number of steps."""

    layout: Literal["reconstruction"] = "reconstruction"
    implementation: ClassVar[str] = "diffbench.reporting.figures:Reconstruction"

    series: Annotated[list[SeriesSpec], Field(min_length=1)]

    @property
    def cells_named(self) -> list[Named]:
        """The item of each series."""
        return [each.named for each in self.series]


class RestorationsFigureSpec(FigureSpec):
    """The first ``images`` test images, their measurements, and a restoration by each method, task by task."""

    layout: Literal["restorations"] = "restorations"
    implementation: ClassVar[str] = "diffbench.reporting.restorations:RestoredImages"

    images: PositiveInt = 6

    @property
    def whole(self) -> Sequence[str]:
        """Restorations."""
        return ("restore",)


class TrajectoriesFigureSpec(FigureSpec):
    """States of the first ``images`` images on the way from noise, a pane for each process and solver."""

    layout: Literal["trajectories"] = "trajectories"
    implementation: ClassVar[str] = "diffbench.reporting.trajectories:TrajectoriesFigure"

    images: PositiveInt = 2

    @property
    def whole(self) -> Sequence[str]:
        """Trajectories."""
        return ("trajectory",)


class SchedulesFigureSpec(FigureSpec):
    """The noise of each process over time, and the noise levels of the solvers' grids and of training."""

    layout: Literal["schedules"] = "schedules"
    implementation: ClassVar[str] = "diffbench.reporting.schedules:SchedulesFigure"

    @property
    def whole(self) -> Sequence[str]:
        """Schedules."""
        return ("schedule",)


AnyFigure = Annotated[SerializeAsAny[FigureSpec], BeforeValidator(FigureSpec.choose)]
