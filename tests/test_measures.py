"""Measures that a benchmark asks for: closed forms, second implementations, and how they reach scores and specs."""

import itertools
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from commands import REPOSITORY
from numpy.typing import NDArray
from test_fidelity import SPLITS, images, measured, normal

from diffbench.jobs import score
from diffbench.metrics import measures
from diffbench.metrics.distances import (
    FrechetTo,
    bootstrap_rows,
    fid_statistics,
    fitted,
)
from diffbench.metrics.measures import Measured
from diffbench.metrics.neighbours import blocks
from diffbench.metrics.reference_statistics import Reference
from diffbench.plan.jobs import Plan
from diffbench.plan.loading import load_plan
from diffbench.reporting.layout import read_tables
from diffbench.specs.errors import PlanError
from diffbench.specs.measures import (
    AuthenticitySpec,
    DensityCoverageSpec,
    FDInfinitySpec,
    MeasureSpec,
    SpatialFIDSpec,
)
from diffbench.specs.registry import build

pytestmark = pytest.mark.usefixtures("one_thread")

Points = NDArray[np.float64]
NONE = np.zeros((0, 1), np.int64)


def against(known: Points, statistics: dict[str, Points] | None = None) -> Reference:
    """A reference of these features; without statistics, of their own."""
    both = dict.fromkeys(("train", "test"), statistics or fid_statistics(known))
    return Reference(both, {}, known, known, {}, {"train": len(known), "test": 1}, 1.0)


def of(spec: MeasureSpec, z: Points, known: Points) -> Measured:
    found: Measured = build(spec, against(known), "cpu").of(z, NONE)
    return found


def apart(a: Points, b: Points) -> Points:
    """Distances of all pairs, as differences."""
    found: Points = np.linalg.norm(a[:, None] - b, axis=-1)
    return found


def balls(z: Points, known: Points, k: int) -> NDArray[np.bool_]:
    """Which samples (N) are in which balls (M), by sorting."""
    found: NDArray[np.bool_] = apart(z, known) < np.sort(apart(known, known), axis=1)[:, k]
    return found


@pytest.mark.parametrize("numbers", [300, 2**27])
def test_density_and_coverage_by_counting(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "blocks", partial(blocks, numbers=numbers))
    z, known = normal(40, 0), normal(30, 1, 0.5)
    scores = of(DensityCoverageSpec(neighbours=3), z, known).scores
    inside = balls(z, known, 3)
    per_sample = inside.sum(1) / 3
    assert scores["density"]["value"] == pytest.approx(per_sample.mean(), rel=1e-12)
    assert scores["density"]["se"] == pytest.approx(per_sample.std(ddof=1) / 40**0.5, rel=1e-12)
    coverage = inside.any(0).mean()
    assert 0 < coverage < 1 and scores["coverage"]["value"] == pytest.approx(coverage, rel=1e-12)
    # The jackknife, by leaving each sample out.
    without = np.array([np.delete(inside, j, 0).any(0).mean() for j in range(40)])
    error = (39 / 40 * ((without - without.mean()) ** 2).sum()) ** 0.5
    assert error > 0 and scores["coverage"]["se"] == pytest.approx(error, rel=1e-9)


def test_density_and_coverage_of_the_same_distribution_are_known() -> None:
    """E density is 1, and E coverage is 1 - prod_{i < k} (M - 1 - i)/(N + M - 1 - i).

    Of M - 1 + N points the k nearest are all of the M - 1 with that product as probability.
    Both follow from exchangeability.  Means of 60 draws, of which four standard errors are allowed.
    """
    n, m, k = 30, 40, 3
    found = [
        of(DensityCoverageSpec(neighbours=k), normal(n, i), normal(m, i + 500)).scores
        for i in range(60)
    ]
    expected = {
        "density": 1.0,
        "coverage": 1 - math.prod((m - 1 - i) / (n + m - 1 - i) for i in range(k)),
    }
    for name, value in expected.items():
        values = np.array([each[name]["value"] for each in found])
        assert abs(values.mean() - value) < 4 * values.std(ddof=1) / 60**0.5


def test_errors_of_density_and_coverage_are_their_spread_over_draws() -> None:
    """60 draws tell a spread to 9 %, of which three are allowed.

    The jackknife's variance is too large: of balls apart from each other with m = k N/M samples each by a factor m,
    here 4.2, and by less where balls overlap.
    """
    known = normal(60, 1000)
    found = [of(DensityCoverageSpec(), normal(50, i), known).scores for i in range(60)]
    for name, most in (("density", 1.0), ("coverage", 4.2**0.5)):
        values, errors = (np.array([each[name][key] for each in found]) for key in ("value", "se"))
        assert 0.73 < errors.mean() / values.std(ddof=1) < 1.27 * most


def test_copies_have_density_and_coverage_1_and_authenticity_0() -> None:
    """Also where the extractor has rounded their features to float32 in another batch: 1e-7 of their size, here 30."""
    known = normal(50, 0) + 15
    for z in (known, known * (1 + 6e-8)):
        scores = of(DensityCoverageSpec(), z, known).scores
        assert scores["density"]["value"] == scores["coverage"]["value"] == 1
        assert of(AuthenticitySpec(), z, known).scores["authenticity"] == {"value": 0, "se": 0}


def test_density_needs_more_images_than_neighbours() -> None:
    with pytest.raises(ValueError, match="neighbours is 5, but the reference has 5 images"):
        of(DensityCoverageSpec(), normal(20, 0), normal(5, 1))


def test_authenticity_by_sorting() -> None:
    z, known = normal(70, 0, 0.3), normal(50, 1)
    score = of(AuthenticitySpec(), z, known).scores["authenticity"]
    nearest = apart(z, known).argmin(1)
    own = np.sort(apart(known, known), axis=1)[nearest, 1]
    share = (apart(z, known).min(1) > own).mean()
    assert 0 < share < 1 and score["value"] == pytest.approx(share)
    assert score["se"] == pytest.approx((share * (1 - share) / 70) ** 0.5)


def test_authenticity_of_new_points_on_a_line_is_a_third() -> None:
    """The nearest neighbour of a point of a line has it as its own nearest with probability 2/3.

    Of 2,000 samples, each near one of 2,000 known points, the share has a standard error of 0.011; four are allowed.
    """
    random = np.random.RandomState(0)
    z, known = random.rand(2000, 1), random.rand(2000, 1)
    share = of(AuthenticitySpec(), z, known).scores["authenticity"]["value"]
    assert share == pytest.approx(1 / 3, abs=0.044)


STANDARD = {"mu": np.zeros(4), "sigma": np.eye(4)}


def at_infinity(z: Points, rows: NDArray[np.int64] = NONE, **options: int) -> Measured:
    found: Measured = build(FDInfinitySpec(**options), against(z, STANDARD), "cpu").of(z, rows)
    return found


def test_fd_at_infinite_n_is_unbiased_where_fd_is_not() -> None:
    """FD of N draws of N(0.5, I) to N(0, I) is 4/4, and (4 + 4 5/4)/N more by chance (`test_floors`).

    Means of 40 draws; four of their standard errors are allowed, and FD is more than four above.
    """
    scores = [at_infinity(normal(100, i, 0.5)) for i in range(40)]
    values = np.array([each.scores["fd_infinity"]["value"] for each in scores])
    plain = np.array([each.curves["fd_infinity"]["values"][-1] for each in scores])
    assert abs(values.mean() - 1) < 4 * values.std(ddof=1) / 40**0.5
    assert plain.mean() - 1 == pytest.approx(9 / 100, abs=4 * plain.std(ddof=1) / 40**0.5)


def test_the_curve_is_fd_of_sets_of_several_sizes_and_the_line_its_least_squares_fit() -> None:
    z = normal(200, 0)
    found = at_infinity(z, points=5, least=0.2)
    curve = found.curves["fd_infinity"]
    assert curve["images"] == [40, 80, 120, 160, 200]
    assert curve["values"][-1] == pytest.approx(FrechetTo(STANDARD)(fitted(z)), rel=1e-9)
    x, y = 1 / np.array(curve["images"]), np.array(curve["values"])
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    assert found.scores["fd_infinity"]["value"] == pytest.approx(y.mean() - slope * x.mean())
    assert np.allclose(curve["line"], y.mean() + slope * (x - x.mean()))
    assert found == at_infinity(z, points=5, least=0.2)
    assert found != at_infinity(z, points=5, least=0.2, seed=1)
    json.dumps(found.curves)


def test_the_bootstrap_error_of_fd_at_infinite_n_is_its_spread_over_draws() -> None:
    """40 draws tell a spread to 11 %, 20 resamples an error to 16 %, of which eight are averaged."""
    values = [
        at_infinity(normal(100, i, 0.5), points=5).scores["fd_infinity"]["value"] for i in range(40)
    ]
    rows = bootstrap_rows(100, 20, 0)
    errors = [
        at_infinity(normal(100, i, 0.5), rows, points=5).scores["fd_infinity"]["se"]
        for i in range(8)
    ]
    assert 0.65 < np.mean(errors) / np.std(values, ddof=1) < 1.5


def test_fewer_than_four_samples_a_feature_have_no_fd_at_infinite_n() -> None:
    assert at_infinity(normal(15, 0)) == Measured({})
    assert at_infinity(normal(16, 0)).curves["fd_infinity"]["images"][0] == 8


def test_scores_and_protocol_have_what_is_asked_for() -> None:
    asked = [DensityCoverageSpec(), AuthenticitySpec(), FDInfinitySpec(points=3)]
    plain, more = measured(SPLITS), measured(SPLITS, measures=asked)
    found, usual = more.measured(images(60, seed=3)), plain.score(images(60, seed=3))
    assert set(found.scores) - set(usual) == {
        "density", "coverage", "authenticity", "fd_infinity"
    }  # fmt: skip
    assert {name: found.scores[name] for name in usual} == usual
    assert all(each["se"] is not None for name, each in found.scores.items() if name != "recall")
    assert more.protocol == plain.protocol | {"measures": [each.model_dump() for each in asked]}


Planned = Callable[..., Plan]


@pytest.fixture
def planned(tmp_path: Path) -> Planned:
    """A plan of one control on the digits, and its further lines."""
    numbers = itertools.count()

    def make(*lines: str) -> Plan:
        file = tmp_path / f"bench{next(numbers)}.yaml"
        head = "name: bench\ndata: {name: digits}\nsamples: 64\nvariants: [control-test]\n"
        file.write_text(head + "\n".join(lines))
        return load_plan([file], {}, REPOSITORY)

    return make


def test_a_job_stores_curves_where_there_are_some(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = planned().job("sample", "control-test", 0, "draw").spec
    np.savez(tmp_path / "samples.npz", levels=images(60, seed=3), nfe=0)
    monkeypatch.setattr(score, "read_product", lambda path, spec: tmp_path / "samples.npz")
    plain = score.score(measured(SPLITS), spec, tmp_path)
    assert set(plain) == {"metrics", "floors", "nfe", "samples"}
    found = score.score(measured(SPLITS, measures=[FDInfinitySpec()]), spec, tmp_path)
    assert set(found) == set(plain) | {"curves"} and "fd_infinity" in found["metrics"]


def test_a_benchmark_that_asks_for_nothing_has_the_specs_that_it_had(planned: Planned) -> None:
    for lines in ([], ["measures: []"]):
        spec = planned(*lines).job("score", "control-test", 0).spec
        assert "measures" not in spec.canonical() and "opinions" not in spec.canonical()


def test_what_is_asked_for_is_in_the_specs_of_scores(planned: Planned) -> None:
    plan = planned("measures: [{name: density-coverage, neighbours: 3}, authenticity]")
    spec = plan.job("score", "control-test", 0).spec
    assert spec.measures == (DensityCoverageSpec(neighbours=3), AuthenticitySpec())
    assert type(spec).read(spec.canonical()) == spec
    # What of the data set is measured does not depend on them.
    assert plan.job("reference").spec == planned().job("reference").spec


def test_sfid_is_an_opinion_of_the_extractor(planned: Planned) -> None:
    plan = planned("measures: sfid")
    assert plan.benchmark.measures == [SpatialFIDSpec()]
    spec = plan.job("score", "control-test", 0).spec
    assert spec.measures == () and spec.reference.extractor.opinions == ("sfid",)
    both = planned("measures: sfid", "extractor: {name: inception, opinions: [clean_fid]}").job(
        "reference"
    )
    assert both.spec.extractor.opinions == ("clean_fid", "sfid")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("measures: [densety-coverage]", "'densety-coverage' is not a known measure; did you mean"),
        ("measures: [lpips]", "known: authenticity, density-coverage, fd-infinity, sfid"),
        ("measures: [sfid, sfid]", "'sfid' appears twice"),
        ("measures: [{name: fd-infinity, points: 2}]", "measures.0.points"),
        ("measures: [{name: fd-infinity, least: 1}]", "measures.0.least"),
    ],
)
def test_an_unknown_measure_is_refused(planned: Planned, line: str, words: str) -> None:
    with pytest.raises(PlanError) as caught:
        planned(line)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_the_directions_that_measures_state_are_those_of_the_tables() -> None:
    known = read_tables(REPOSITORY).metrics
    stated = {name: way for spec in MeasureSpec.known.values() for name, way in spec.better.items()}
    assert {"density", "coverage", "authenticity", "fd_infinity", "sfid"} <= set(stated)
    assert {name: known[name].better for name in stated if name in known} == stated
