"""Floors of scores: against the bias of FID in closed form, and what the stages store of them."""

import json

import numpy as np
import pytest
from test_fidelity import SPLITS, Projection, fid, images

from diffbench.metrics import reference_statistics
from diffbench.metrics.distances import fid_statistics
from diffbench.metrics.fidelity import Fidelity
from diffbench.metrics.floors import RealImages, Redraws
from diffbench.metrics.reference_statistics import Reference
from diffbench.specs.floors import FloorSpec

pytestmark = pytest.mark.usefixtures("one_thread")


def normal_reference(images: int, d: int = 8) -> Reference:
    """Standard normal features of as many training images, and of half as many test images."""
    random = np.random.RandomState(0)
    train, test = random.standard_normal((images, d)), random.standard_normal((images // 2, d))
    statistics = {"train": fid_statistics(train), "test": fid_statistics(test)}
    counts = {"train": images, "test": images // 2}
    return Reference(statistics, {}, train, test, {}, counts, 1.0)


def test_the_floor_is_the_bias_of_finite_sets() -> None:
    """Of N draws of N(0, I) in d dimensions FID to N(0, I) is (d + d (d + 1)/4)/N, to first order in 1/N.

    The mean adds |dm|^2 = d/N; the covariance tr(dS^2)/4 = d (d + 1)/(4 N), with Var dS_ij = (1 + [i = j])/N.  As a
    sum of independent squares it has the variance 2 (d + d (d - 1)/8 + d/4)/N^2: a relative sd of .22 for d = 8,
    and of .05 for the mean of 20, of which three are allowed.
    """
    count, d = 500, 8
    found = RealImages(normal_reference(20_000, d), FloorSpec()).of_samples(count)
    expected = (d + d * (d + 1) / 4) / count
    assert found["fid"]["mean"] == pytest.approx(expected, rel=0.15)
    # The test split, 10,000 images, adds its own bias, which is a twentieth.
    assert found["fid_test"]["mean"] == pytest.approx(expected * 1.05, rel=0.15)
    for floor in found.values():
        assert floor["value"] == floor["mean"] + 2 * floor["sd"]
        # Twenty sets tell their sd to 16 %, of which three are allowed.
        assert floor["sd"] / expected == pytest.approx(0.22, rel=0.5)


def test_fewer_images_have_a_higher_floor() -> None:
    real = RealImages(normal_reference(2000), FloorSpec())
    floors = [real.of_samples(count)["fid"]["value"] for count in (1600, 400, 100)]
    assert floors == sorted(floors) and floors[0] < floors[2] / 4


def test_repeating_restorations_makes_no_more_images_of_them() -> None:
    """The floor is that of n images, not of n K."""
    real = RealImages(normal_reference(2000), FloorSpec())
    once, four = (real.of_restorations(50, draws)["fid"]["mean"] for draws in (1, 4))
    assert four == pytest.approx(once, rel=0.05)
    assert real.of_restorations(200, 1)["fid"]["mean"] < four / 2


def test_all_test_images_have_one_redraw() -> None:
    known = normal_reference(400)
    floor = RealImages(known, FloorSpec()).of_restorations(200, 1)["fid"]
    assert floor["sd"] == pytest.approx(0, abs=1e-12)
    expected = fid(known.statistics["test"], known.statistics["train"])
    assert floor["mean"] == pytest.approx(expected, rel=1e-9)


def test_redraws_are_a_pure_function_of_seed_and_number() -> None:
    first, again, other = (
        [rows.tolist() for rows in Redraws(FloorSpec(seed=seed), "floor", 30, True).rows(40)]
        for seed in (0, 0, 1)
    )
    assert first == again and first != other
    assert len({tuple(rows) for rows in first}) == 20


@pytest.mark.parametrize(("count", "repeated"), [(30, False), (31, True)])
def test_images_are_drawn_once_while_there_are_enough(count: int, repeated: bool) -> None:
    for rows in Redraws(FloorSpec(), "floor", 30, replace=False).rows(count):
        assert (len(set(rows.tolist())) < len(rows)) is repeated


def test_a_split_that_is_kept_in_part_is_redrawn_without_repeats() -> None:
    """A redraw with repeats of a sample would have the bias of both."""
    whole = normal_reference(4000)
    part = Reference(
        whole.statistics, {}, whole.features[::8], whole.test_features, {}, whole.counts, 1.0
    )
    drawn = RealImages(part, FloorSpec()).of_samples(250)["fid"]["mean"]
    expected = RealImages(whole, FloorSpec()).of_samples(250)["fid"]["mean"]
    assert drawn == pytest.approx(expected, rel=0.2)


def test_real_images_score_about_the_floor_and_others_above() -> None:
    module = Projection()
    fidelity = Fidelity(module, reference_statistics.measure(module, SPLITS), SPLITS["train"])
    floors = fidelity.real_images.of_samples(150)
    real, dark = images(150, seed=7), images(150, seed=8, most=12)
    assert fidelity.score(real)["fid"]["value"] < 2 * floors["fid"]["value"]
    assert fidelity.score(dark)["fid"]["value"] > 5 * floors["fid"]["value"]
    assert fidelity.protocol["floors"] == {"redraws": 20, "seed": 0}


def test_further_opinions_have_floors_of_their_own() -> None:
    measured = reference_statistics.measure(Projection(), SPLITS, opinions={"other": Projection()})
    floors = RealImages(measured, FloorSpec(redraws=3)).of_samples(100)
    assert floors["other"] == floors["fid"]


def test_floors_can_be_off_and_one_redraw_has_no_spread() -> None:
    real = RealImages(normal_reference(100), FloorSpec(redraws=0))
    assert real.of_samples(50) == {} and real.of_restorations(20, 2) == {}
    with pytest.raises(ValueError, match="redraws must be 0 or at least 2"):
        FloorSpec(redraws=1)


@pytest.mark.slow
def test_scores_hold_their_floors(first) -> None:
    folder, _ = first
    for path in (folder / "results" / "tiny" / "runs").rglob("scores.json"):
        content = json.loads(path.read_text())
        assert content["protocol"]["floors"] == {"redraws": 20, "seed": 0}
        for solver in content["solvers"].values():
            assert set(solver["floors"]) == {"fid", "fid_test"}
            assert all(floor["value"] > floor["mean"] > 0 for floor in solver["floors"].values())
