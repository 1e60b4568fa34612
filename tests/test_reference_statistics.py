"""What is measured of a data set once: moments joined from parts, and what is kept."""

import numpy as np
import pytest
from test_fidelity import Projection, images

from diffbench.metrics import reference_statistics
from diffbench.metrics.distances import joined
from diffbench.metrics.extractor import features_and_logits

SPLITS = {"train": images(300, seed=1), "test": images(100, seed=2)}


def test_moments_joined_from_parts_are_those_of_the_whole():
    """Far from 0, where sums of squares would lose 12 of 16 digits."""
    z = np.random.RandomState(0).standard_normal((1000, 5)) + 1e6
    whole = joined(iter([z]))
    assert np.array_equal(whole["sigma"], np.cov(z, rowvar=False))
    for cuts in ([10], [500], [4, 5, 999], [333, 666]):
        parts = joined(iter(np.split(z, cuts)))
        assert np.allclose(parts["mu"], z.mean(0), rtol=1e-15)
        assert np.allclose(parts["sigma"], np.cov(z, rowvar=False), atol=1e-9)


@pytest.mark.parametrize("part", [7, 100, 1000])
def test_parts_do_not_matter(part):
    whole = reference_statistics.measure(Projection(), SPLITS)
    found = reference_statistics.measure(Projection(), SPLITS, part=part)
    z, _ = features_and_logits(Projection(), SPLITS["train"])
    assert np.allclose(found.features, z, atol=1e-5)
    for split in SPLITS:
        for key in ("mu", "sigma"):
            assert np.allclose(
                found.statistics[split][key], whole.statistics[split][key], atol=1e-5
            )


def test_the_neighbours_are_spread_over_the_split_and_statistics_are_of_all_of_it():
    whole = reference_statistics.measure(Projection(), SPLITS)
    few = reference_statistics.measure(Projection(), SPLITS, neighbours=4, part=90)
    assert np.allclose(few.features, whole.features[[0, 100, 199, 299]], atol=1e-5)
    assert np.allclose(few.test_features, whole.test_features[[0, 33, 66, 99]], atol=1e-5)
    assert np.allclose(few.statistics["train"]["mu"], whole.features.mean(0), atol=1e-5)
    assert few.counts == {"train": 300, "test": 100}


def test_what_was_saved_is_loaded(tmp_path):
    measured = reference_statistics.measure(Projection(), SPLITS, opinions={"other": Projection()})
    measured.save(tmp_path / "statistics.npz")
    again = reference_statistics.load(tmp_path / "statistics.npz")
    # A float32 network's features: nothing is lost.
    assert np.array_equal(again.features, measured.features)
    assert np.array_equal(again.test_features, measured.test_features)
    assert np.array_equal(again.opinion_features["other"], measured.opinion_features["other"])
    assert (again.counts, again.nearest_of_test) == (measured.counts, measured.nearest_of_test)
    for found, wanted in (
        (again.statistics, measured.statistics),
        (again.opinions, measured.opinions),
    ):
        assert found.keys() == wanted.keys()
        for name, each in wanted.items():
            assert all(np.array_equal(found[name][key], each[key]) for key in each)
    first = (tmp_path / "statistics.npz").read_bytes()
    measured.save(tmp_path / "statistics.npz")
    assert (tmp_path / "statistics.npz").read_bytes() == first
