"""Controls: images of a split, and noise."""

import numpy as np

from diffbench.data.controls import NoiseControl, SplitControl
from diffbench.specs.controls import NoiseControlSpec, SplitControlSpec


def draw(control, digits, samples, seed=0):
    return control.draw(digits, samples, np.random.default_rng(seed))


def test_a_small_split_is_given_whole(digits):
    control = SplitControl(SplitControlSpec(split="test"))
    assert np.array_equal(draw(control, digits, 1000), digits.test)


def test_a_large_split_is_drawn_from_without_repeats(digits):
    # Each training image stands in the draw at most as often as in the split (a few digits are twins).
    drawn = draw(SplitControl(SplitControlSpec(split="train")), digits, 1000)
    assert drawn.shape == (1000, 8, 8, 1)
    values, counts = np.unique(drawn.reshape(1000, -1), axis=0, return_counts=True)
    available = {row.tobytes(): 0 for row in values}
    for row in digits.train.reshape(len(digits.train), -1):
        if row.tobytes() in available:
            available[row.tobytes()] += 1
    assert all(count <= available[row.tobytes()] for row, count in zip(values, counts, strict=True))


def test_noise_is_uniform_over_the_levels_and_a_function_of_the_seed(digits):
    control = NoiseControl(NoiseControlSpec())
    noise = draw(control, digits, 2000)
    # 128,000 pixels, 17 levels: each count is 7529 +- 84; five standard deviations either way.
    counts = np.bincount(noise.ravel(), minlength=17)
    assert len(counts) == 17
    assert np.abs(counts - 128000 / 17).max() < 5 * np.sqrt(128000 / 17)
    assert np.array_equal(noise, draw(control, digits, 2000))
    assert not np.array_equal(noise, draw(control, digits, 2000, seed=1))
