"""The kinds of figures: each makes a chart from the results that exist.

curve            a metric against a number that solvers stand for (a guidance weight): mean and
                 standard deviation over seeds
learning         a metric against the training step, of one solver or likelihood with the weights of
                 every step that the benchmark asks for: mean and standard deviation over seeds
nfe              a metric against the function evaluations that each solver took, as its results say, or
                 against the seconds of its run record, a panel each variant: mean and standard deviation
                 over seeds
extrapolation    FD of sets of N samples against 1/N, and the line that is fitted to it, at the left end FD at
                 infinite N: mean and standard deviation over seeds; there, with one seed, its standard error
terms            the terms of the discrete variational bound, L_0 (decoder) to L_{T-1}, in bits/dim: mean
                 over seeds; the x axis is t + 1, for it is logarithmic
gradient-noise   E |g - E g|^2 of each estimator's gradient g over the course of training, relative
                 to the squared norm of the mean gradient of L_vlb (left) and of the estimator's own
                 mean gradient (right): geometric mean over seeds, and their range.  Improved Denoising
                 Diffusion Probabilistic Models (Nichol & Dhariwal 2021,
                 https://arxiv.org/abs/2102.09672), section 3.3, where an estimator whose expectation
                 is scaled by a constant keeps its noise on the right, and not on the left
reconstruction   error of test images that were encoded to the prior and decoded again, against the
                 number of steps: mean and standard deviation over seeds
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from diffbench.plan.jobs import Plan
from diffbench.reporting.cells import Cell, state
from diffbench.reporting.charts import Chart, Line, Panel, Point
from diffbench.reporting.layout import (
    AT_INFINITY,
    CurveFigureSpec,
    CurvePointSpec,
    CurveSeriesSpec,
    ExtrapolationFigureSpec,
    GradientNoiseFigureSpec,
    LearningFigureSpec,
    Metrics,
    MetricSpec,
    NFEFigureSpec,
    ReconstructionFigureSpec,
    SeriesSpec,
    TermsFigureSpec,
)
from diffbench.reporting.records import Records, absent, stages_of
from diffbench.reporting.results import Outcome
from diffbench.specs.weights import step_of
from diffbench.store import paths, run_record

Series = Mapping[float, float]
#: Terms below this fraction of the largest are not drawn: with few grey levels the decoder's term is nearly 0.
LOWEST_TERM = 1e-6
RELATIVE = {
    "noise / |mean gradient of L_vlb|²": "vlb",
    "noise / |own mean gradient|²": "own",
}
#: Why samples have no curve.
NO_CURVE = "its scores have no curve of FD: measures has no fd-infinity, or there are less than 4 samples a feature"
RECONSTRUCTION = "reconstruction error (per pixel, [0, 1])"


class Curves:
    """A figure of the kind ``curve`` (see the module)."""

    def __init__(self, spec: CurveFigureSpec) -> None:
        self.spec = spec

    def make(self, results: Records, metrics: Metrics) -> Chart:
        """Return the chart: a panel for each metric."""
        panels = [
            Panel(
                metrics[name].head,
                [_curve(results, each, name, metrics) for each in self.spec.series],
            )
            for name in self.spec.metrics
        ]
        title = f"{self.spec.title}: {results.plan.benchmark.name}"
        return Chart(title, self.spec.x, panels, note=self.spec.note)


def _curve(results: Records, series: CurveSeriesSpec, name: str, metrics: Metrics) -> Line:
    points = sorted(series.points, key=lambda point: point.x)
    items = [results.plan.item_at(each.variant, each.item, each.at) for each in points]
    cells = [
        results.number(point.variant, item, name) for point, item in zip(points, items, strict=True)
    ]
    found = list(zip(points, cells, strict=True))
    return Line(series.label, [_curve_point(point, cell, metrics[name]) for point, cell in found])


def _curve_point(point: CurvePointSpec, cell: Cell, metric: MetricSpec) -> Point:
    lacking = f"{point.variant}: {cell.note}" if cell.note else f"{point.variant} {point.item}"
    return _point(point.x, cell, metric, lacking)


def _point(x: float | None, cell: Cell, metric: MetricSpec, lacking: str) -> Point:
    """Return a cell as a point; without a number the point has the note ``lacking``."""
    if cell.mean is None:
        return Point(x, status=cell.status, note=lacking)
    sd = None if cell.sd is None else cell.sd * metric.scale
    return Point(x, *_ranged(cell.mean * metric.scale, sd), cell.seeds, cell.status, cell.note)


def _ranged(mean: float, sd: float | None) -> tuple[float, float | None, float | None]:
    """Return a mean and the ends of its error bar; with one seed there is no error bar."""
    return (mean, None, None) if sd is None else (mean, mean - sd, mean + sd)


class Learning:
    """A figure of the kind ``learning`` (see the module)."""

    def __init__(self, spec: LearningFigureSpec) -> None:
        self.spec = spec

    def make(self, results: Records, metrics: Metrics) -> Chart:
        """Return the chart: a panel for each metric."""
        panels = [
            Panel(
                metrics[name].head,
                [_learned(results, each, name, metrics[name]) for each in self.spec.series],
            )
            for name in self.spec.metrics
        ]
        title = f"{self.spec.title}: {results.plan.benchmark.name}"
        log = self.spec.log.replace("none", "")
        return Chart(title, "training step", panels, log=log, note=self.spec.note)


def _learned(results: Records, series: SeriesSpec, name: str, metric: MetricSpec) -> Line:
    plan, variant, item = results.plan, series.variant, series.item
    training = plan.variants[variant].training if variant in plan.variants else None
    if training is None or not (jobs := plan.along(variant, item)):
        return Line(series.label, [_lacking(absent(plan, variant, [item]))])
    found = {step_of(job.choice.at_step, training.steps): job.item for job in jobs if job.choice}
    points = []
    for step, each in sorted(found.items()):
        cell = results.number(variant, each, name)
        lacking = f"{variant} {each}{f': {cell.note}' if cell.note else ''}"
        points.append(_point(float(step), cell, metric, lacking))
    return Line(series.label, points)


class Evaluations:
    """A figure of the kind ``nfe`` (see the module)."""

    def __init__(self, spec: NFEFigureSpec) -> None:
        self.spec = spec

    def make(self, results: Records, metrics: Metrics) -> Chart:
        """Return the chart: a panel for each variant."""
        metric = metrics[self.spec.metric]
        panels = [
            Panel(f"{metric.head}, {variant}", self._lines(results, variant, metric))
            for variant in self.spec.variants
        ]
        title = f"{self.spec.title}: {results.plan.benchmark.name}"
        if self.spec.against == "nfe":
            return Chart(title, "function evaluations", panels, log="xy", note=self.spec.note)
        x = f"seconds for {results.plan.benchmark.samples:,} samples"
        note = f"{self.spec.note} Wall time on: {'; '.join(_machines(results)) or 'not known'}."
        return Chart(title, x, panels, log="xy", note=note.strip())

    def _lines(self, results: Records, variant: str, metric: MetricSpec) -> list[Line]:
        """Return a variant's series, without the solvers that it does not have."""
        plan = results.plan
        series = {
            label: [item for item in items if stages_of(plan, variant, item)]
            for label, items in self.spec.series.items()
        }
        lines = [
            Line(label, self._points(results, variant, items, metric))
            for label, items in series.items()
            if items
        ]
        return lines or [Line(variant, [_lacking(self._none(plan, variant))])]

    def _none(self, plan: Plan, variant: str) -> Cell:
        """Return a cell that says why a variant has none of the solvers, which are too many to list."""
        items = [item for each in self.spec.series.values() for item in each]
        cell = absent(plan, variant, items)
        if cell.status == "refused" or variant not in plan.variants:
            return cell
        return Cell("missing", "this benchmark has none of these solvers")

    def _points(
        self, results: Records, variant: str, items: Sequence[str], metric: MetricSpec
    ) -> list[Point]:
        points = []
        for item in items:
            cell = results.number(variant, item, self.spec.metric)
            if self.spec.against == "nfe":
                took, lacking = cell.nfe, "its scores have no function evaluations"
            else:
                seconds = results.number(variant, item, "sample_seconds")
                took, lacking = seconds.mean, f"no seconds: {seconds.note}"
            points.append(_placed(item, took, cell, metric, lacking))
        return sorted(points, key=lambda point: (point.x is None, point.x))


def _placed(item: str, took: float | None, cell: Cell, metric: MetricSpec, lacking: str) -> Point:
    """Return a cell as a point at what it took; without that it has no place on a logarithmic axis."""
    if cell.mean is not None and not took:
        cell = Cell("missing", lacking)
    return _point(took or None, cell, metric, f"{item}: {cell.note}" if cell.note else item)


def _machines(results: Records) -> list[str]:
    """Return what the samples were drawn on, from their run records."""
    ran = [
        run_record.known(paths.product(results.root, job.spec)) for job in results.plan.of("sample")
    ]
    told = (", ".join(each[key] for key in ("device", "platform") if key in each) for each in ran)
    return list(dict.fromkeys(filter(None, told)))


class Extrapolation:
    """A figure of the kind ``extrapolation`` (see the module)."""

    def __init__(self, spec: ExtrapolationFigureSpec) -> None:
        self.spec = spec

    def make(self, results: Records, metrics: Metrics) -> Chart:
        """Return the chart: one panel."""
        lines = [_extrapolated(results, each) for each in self.spec.series]
        title = f"{self.spec.title}: {results.plan.benchmark.name}"
        return Chart(title, "1/N, N samples", [Panel("FD", lines)], note=self.spec.note)


def _extrapolated(results: Records, series: SeriesSpec) -> Line:
    variant, item = series.variant, series.item
    read = results.outcomes_of("sample", variant, item)
    if not read:
        return Line(series.label, [_lacking(absent(results.plan, variant, [item]))])
    if not any("curves" in each.content for each in read.values()) and state(read)[0] == "ok":
        return Line(series.label, [_lacking(Cell("missing", NO_CURVE))])
    points, fitted = (
        _over_seeds(*_parsed(read, partial(_curve_of, key=key)), average)
        for key, average in (("values", _deviating), ("line", _arithmetic))
    )
    end = _end(results.number(variant, item, AT_INFINITY))
    return Line(series.label, points, [end, fitted[-1]] if end.y is not None else ())


def _curve_of(content: Mapping[str, Any], key: str) -> Series:
    curve = content["curves"][AT_INFINITY]
    return {1 / n: float(fd) for n, fd in zip(curve["images"], curve[key], strict=True)}


def _end(cell: Cell) -> Point:
    """Return FD at infinite N, where 1/N is 0."""
    error = cell.se if cell.sd is None else cell.sd
    if cell.mean is None:
        return Point(0.0, status=cell.status, note=cell.note)
    return Point(0.0, *_ranged(cell.mean, error), cell.seeds, cell.status, cell.note)


class Terms:
    """A figure of the kind ``terms`` (see the module)."""

    def __init__(self, spec: TermsFigureSpec) -> None:
        self.spec = spec

    def make(self, results: Records, metrics: Metrics) -> Chart:
        """Return the chart: one panel."""
        lines = [_terms(results, each) for each in self.spec.series]
        title = f"{self.spec.title}: {results.plan.benchmark.name}"
        panels = [Panel("term (bits/dim)", lines)]
        x = "step t + 1 (1: decoder)"
        return Chart(title, x, panels, log="xy", floor=LOWEST_TERM, note=self.spec.note)


def _terms(results: Records, series: SeriesSpec) -> Line:
    variant, item = series.variant, series.item
    read = results.outcomes_of("likelihood", variant, item)
    if not read:
        return Line(series.label, [_lacking(absent(results.plan, variant, [item]))])
    return Line(series.label, _over_seeds(*_parsed(read, _bound_terms), _arithmetic))


def _bound_terms(content: Mapping[str, Any]) -> Series:
    terms = content["terms"]
    times = content.get("times") or range(len(terms))
    return {float(t) + 1: float(term) for t, term in zip(times, terms, strict=True)}


class GradientNoiseFigure:
    """A figure of the kind ``gradient-noise`` (see the module)."""

    def __init__(self, spec: GradientNoiseFigureSpec) -> None:
        self.spec = spec

    def make(self, results: Records, metrics: Metrics) -> Chart:
        """Return the chart: two panels."""
        read = results.outcomes_of("analysis", self.spec.variant, self.spec.item)
        panels = [Panel(name, self._lines(results, read, kind)) for name, kind in RELATIVE.items()]
        title = f"{self.spec.title}: {results.plan.benchmark.name}"
        return Chart(title, "training step", panels, log="y", band=True, note=self.spec.note)

    def _lines(self, results: Records, read: Mapping[int, Outcome], kind: str) -> list[Line]:
        spec = self.spec
        if not read:
            cell = absent(results.plan, spec.variant, [spec.item])
            return [Line(spec.item, [_lacking(cell)])]
        names = _estimators(read)
        if not names:
            return [Line(spec.item, [_lacking(Cell(*state(read)))])]
        lines = []
        for name in names:
            checked, found = _parsed(read, partial(_noise, estimator=name, kind=kind))
            lines.append(Line(name, _over_seeds(checked, found, _geometric)))
        return lines


def _estimators(read: Mapping[int, Outcome]) -> list[str]:
    named: dict[str, None] = {}
    for outcome in read.values():
        estimators = outcome.content.get("estimators")
        named |= dict.fromkeys(estimators if isinstance(estimators, dict) else ())
    return list(named)


def _noise(content: Mapping[str, Any], estimator: str, kind: str) -> Series:
    """Return the relative noise by step, where noise and squared norm are above 0: the axis is logarithmic."""
    own = content["estimators"][estimator]
    scale = content["mean_square"] if kind == "vlb" else own["mean_square"]
    rows = zip(content["steps"], own["noise"], scale, strict=True)
    return {float(step): noise / square for step, noise, square in rows if noise > 0 < square}


class Reconstruction:
    """A figure of the kind ``reconstruction`` (see the module)."""

    def __init__(self, spec: ReconstructionFigureSpec) -> None:
        self.spec = spec

    def make(self, results: Records, metrics: Metrics) -> Chart:
        """Return the chart: one panel."""
        panels = [Panel(RECONSTRUCTION, [_reconstruction(results, s) for s in self.spec.series])]
        title = f"{self.spec.title}: {results.plan.benchmark.name}"
        return Chart(title, "steps", panels, log="xy", note=self.spec.note)


def _reconstruction(results: Records, series: SeriesSpec) -> Line:
    variant, item = series.variant, series.item
    read = results.outcomes_of("analysis", variant, item)
    if not read:
        return Line(series.label, [_lacking(absent(results.plan, variant, [item]))])
    return Line(series.label, _over_seeds(*_parsed(read, _errors), _deviating))


def _errors(content: Mapping[str, Any]) -> Series:
    """Return the errors by number of steps, where they are above 0: the axis is logarithmic."""
    rows = zip(content["steps"], content["error"], strict=True)
    return {float(steps): float(error) for steps, error in rows if error > 0}


def _parsed(
    read: Mapping[int, Outcome], parse: Callable[[Mapping[str, Any]], Series]
) -> tuple[dict[int, Outcome], dict[int, Series]]:
    """Return the outcomes and a series for each file that has one; a file without one becomes a failed outcome."""
    checked, found = dict(read), {}
    for seed, outcome in read.items():
        if outcome.status != "ok":
            continue
        try:
            found[seed] = parse(outcome.content)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"its file is not as expected: {type(error).__name__}: {error}"
            checked[seed] = Outcome("failed", reason)
    return checked, found


def _over_seeds(
    read: Mapping[int, Outcome],
    found: Mapping[int, Series],
    average: Callable[[Sequence[float]], tuple[float, float | None, float | None]],
) -> list[Point]:
    """Return the points that all seeds with a series have, or one point that says why there are none."""
    status, note = state(read)
    shared = set.intersection(*map(set, found.values())) if found else set()
    if not shared:
        return [_lacking(Cell(status if not found else "missing", note or "no step has values"))]
    seeds = len(found)
    return [
        Point(x, *average([each[x] for each in found.values()]), seeds, status, note)
        for x in sorted(shared)
    ]


def _arithmetic(values: Sequence[float]) -> tuple[float, None, None]:
    return statistics.fmean(values), None, None


def _deviating(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    return _ranged(statistics.fmean(values), statistics.stdev(values) if values[1:] else None)


def _geometric(values: Sequence[float]) -> tuple[float, float, float]:
    return statistics.geometric_mean(values), min(values), max(values)


def _lacking(cell: Cell) -> Point:
    return Point(None, status=cell.status, note=cell.note)
