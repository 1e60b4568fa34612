"""Grids against improved-diffusion's spacing rules and Karras's formula."""

import json

import numpy as np
import pytest
import torch
from toys import REFERENCE, close, process_of, recorded

from diffbench.diffusion.core import grids
from diffbench.diffusion.core.process import float64

INDEX = json.loads(str(np.load(REFERENCE / "gd_spacing.npz")["index"]))


def respaced_sections(length: int, counts: list[int]) -> list[int]:
    """The levels that improved-diffusion takes in each of len(counts) equal sections of 0 .. length-1, increasing.

    The first (length mod sections) sections are one level longer.
    """
    short, longer = divmod(length, len(counts))
    levels, start = [], 0
    for i, count in enumerate(counts):
        size = short + (i < longer)
        levels += [start + level for level in grids.respaced(size, count)]
        start += size
    return levels


def levels_of(length: int, rule: str) -> list[int]:
    """The levels that improved-diffusion's rule names."""
    if rule.startswith("ddim"):
        return grids.strided(length, int(rule.removeprefix("ddim")))
    counts = [int(count) for count in rule.split(",")]
    return respaced_sections(length, counts)


@pytest.mark.parametrize(("key", "length", "rule", "schedule"), INDEX)
def test_spacing_and_its_betas(key: str, length: int, rule: str, schedule: str) -> None:
    """The respaced betas are 1 - abar_t/abar_s: the transition's variance between kept levels."""
    arrays, levels = recorded("gd_spacing"), levels_of(length, rule)
    assert levels == arrays[f"{key}_steps"].tolist() == arrays[f"{key}_map"].tolist()
    process = process_of("discrete", schedule=schedule, steps=length)
    t = float64(levels)
    s = torch.cat([float64([process.data_time]), t[:-1]])
    close(process.transition(t, s)[1], arrays[f"{key}_betas"])


def test_uneven_sections_begin_with_the_longer_ones() -> None:
    """Ten levels in sections of 4, 3 and 3; one step is a section's first level."""
    assert respaced_sections(10, [1, 2, 1]) == [0, 4, 6, 7]


@pytest.mark.parametrize("count", range(2, 51))
def test_respaced_keeps_both_ends_and_the_count(count: int) -> None:
    levels = grids.respaced(50, count)
    assert levels[0] == 0 and levels[-1] == 49 and len(set(levels)) == count


def test_halves_are_rounded_to_even() -> None:
    """Positions 2.5 and 3.5, as Python's round."""
    assert grids.respaced(6, 3) == [0, 2, 5] and grids.respaced(8, 3) == [0, 4, 7]


def test_more_steps_than_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot take 11 of 10"):
        grids.respaced(10, 11)


def test_a_stride_that_does_not_exist_is_refused() -> None:
    """Of ten levels, strides 1, 2, 3, 4 and 5 give 10, 5, 4, 3 and 2."""
    assert [grids.strided(10, n)[1] for n in (10, 5, 4, 3, 2)] == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="no integer stride takes exactly 7 of 10"):
        grids.strided(10, 7)


@pytest.mark.parametrize("length", [2, 7, 50, 100])
def test_quadratic_keeps_both_ends_and_the_count_and_increases(length: int) -> None:
    for count in range(2, length + 1):
        levels = np.array(grids.quadratic(length, count))
        assert levels[0] == 0 and levels[-1] == length - 1 and len(levels) == count
        assert (np.diff(levels) > 0).all()
    assert grids.quadratic(length, length) == list(range(length))
    assert grids.quadratic(length, 1) == [0]


@pytest.mark.parametrize(("length", "count"), [(1000, 10), (1000, 12), (100, 8), (4000, 50)])
def test_quadratic_levels_are_squares(length: int, count: int) -> None:
    """floor(c i^2), in integers, with c = (length - 1)/(count - 1)^2; one above the last where that is the
    same level twice.  In floating point c i^2 is just below 999 of 1,000 levels at 12 steps."""
    levels = grids.quadratic(length, count)
    for i, level in enumerate(levels):
        square = (length - 1) * i**2 // (count - 1) ** 2
        assert level == square or (square < level == levels[i - 1] + 1)
    assert levels[count // 2 :] == [
        (length - 1) * i**2 // (count - 1) ** 2 for i in range(count // 2, count)
    ]


@pytest.mark.parametrize("length", [50, 1000])
def test_the_quadratic_grid_of_ddims_code(length: int) -> None:
    """Squares of a line from 0 to sqrt(0.8 T), cut to integers; what is the same level twice is there once."""
    for count in range(2, 200 if length == 1000 else length):
        squares = np.linspace(0, np.sqrt(length * 0.8), count) ** 2
        wanted = sorted({int(square) for square in squares})
        assert grids.quadratic_to(length, count) == wanted
    assert grids.quadratic_to(1000, 10) == [0, 9, 39, 88, 158, 246, 355, 483, 632, 800]
    assert [len(grids.quadratic_to(1000, n)) for n in (20, 50, 100)] == [20, 49, 96]


@pytest.mark.parametrize("kind", ["uniform", "quadratic", "quadratic-0.8"])
def test_a_grid_longer_than_the_chain_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="cannot take 51 of 50 steps"):
        grids.levels(process_of("discrete", schedule="linear", steps=50), kind, 51)


def karras_formula(count: int, smallest: float, largest: float, rho: float) -> list[float]:
    return [
        (largest ** (1 / rho) + i / (count - 1) * (smallest ** (1 / rho) - largest ** (1 / rho)))
        ** rho
        for i in range(count)
    ]


continuous = pytest.mark.parametrize("name", ["vp", "vp-chain", "sub-vp", "ve", "edm", "vp-cosine"])
#: Of sigma/alpha, both inside the range of every process.
between = pytest.mark.parametrize(("smallest", "largest"), [(0.05, 40.0), (0.02, 2.0)])


@continuous
@pytest.mark.parametrize(("smallest", "largest", "rho"), [(0.05, 40.0, 7.0), (0.02, 2.0, 3.0)])
def test_karras_times_have_karras_noise_levels(name, smallest, largest, rho) -> None:
    """Through time_of and back.  Tolerance: VP and sub-VP take ln(1 + ratio^2), whose relative
    rounding error at ratio 0.02 is 1e-16/4e-4."""
    process = process_of(name)
    times = grids.by_ratio(process, "karras", 12, largest, smallest, rho)
    assert (times.diff() < 0).all()
    close(process.ratio(times), float64(karras_formula(12, smallest, largest, rho)), rtol=1e-11)


@continuous
@between
def test_log_snr_times_are_even_in_the_logarithm(name: str, smallest: float, largest: float):
    """A geometric progression of sigma/alpha; the tolerance is that of the Karras levels."""
    process = process_of(name)
    times = grids.by_ratio(process, "log-snr", 12, largest, smallest, 7.0)
    want = [largest * (smallest / largest) ** (i / 11) for i in range(12)]
    close(process.ratio(times), float64(want), rtol=1e-11)


@continuous
@between
@pytest.mark.parametrize(("kind", "power"), [("uniform", 1), ("quadratic", 2)])
def test_grids_of_time_lie_between_the_times_of_their_ratios(
    name: str, smallest: float, largest: float, kind: str, power: int
) -> None:
    """Their (square roots of) times are even."""
    process = process_of(name)
    times = grids.by_ratio(process, kind, 12, largest, smallest, 7.0)
    close(process.ratio(times[[0, -1]]), float64([largest, smallest]), rtol=1e-11)
    steps = times.pow(1 / power).diff()
    close(steps, steps.mean().expand(11), rtol=1e-12)


@continuous
@pytest.mark.parametrize("kind", ["karras", "log-snr", "uniform", "quadratic"])
def test_levels_stay_in_the_range_of_the_process(name: str, kind: str) -> None:
    """Rounding of time_of aside, relative 1e-10 at VP's t = 1e-5, where ratio^2 = 1e-6."""
    process = process_of(name)
    times = grids.by_ratio(process, kind, 5, 1e9, 1e-9, 7.0)
    ends = float64([process.t_max, process.t_min])
    close(times[[0, -1]], ends, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["karras", "log-snr"])
def test_ratios_on_a_chain_take_nearest_levels_once(kind: str) -> None:
    process = process_of("discrete", schedule="linear", steps=50)
    ratios = process.ratio(float64(range(50)))
    ends = float(ratios[0]), float(ratios[-1])
    wanted = {
        "karras": karras_formula(40, *ends, 7),
        "log-snr": np.geomspace(*ends, 40).tolist(),
    }[kind]
    want = [(ratios - sigma).abs().argmin().item() for sigma in wanted]
    times = grids.by_ratio(process, kind, 40, 1e9, 1e-9, 7.0)
    assert times.tolist() == sorted(set(want), reverse=True)
    assert len(times) < 40
    assert grids.to_data(process, times).tolist()[-2:] == [0.0, -1.0]
    close(grids.descending(process, kind, 40), times)


@pytest.mark.parametrize(("kind", "power"), [("uniform", 1), ("quadratic", 2)])
def test_times_on_a_chain_between_two_ratios_are_rounded(kind: str, power: int) -> None:
    """The times of the ratios of levels 40 and 3, and 11 levels even between them, or their roots."""
    process = process_of("discrete", schedule="linear", steps=50)
    largest, smallest = (float(process.ratio(float64(level))) for level in (40, 3))
    times = grids.by_ratio(process, kind, 11, largest, smallest, 7.0)
    want = np.round(np.linspace(40 ** (1 / power), 3 ** (1 / power), 11) ** power)
    assert times.tolist() == want.tolist()


@pytest.mark.parametrize("kind", ["uniform", "strided", "quadratic", "quadratic-0.8"])
def test_levels_of_a_chain_are_without_the_data(kind: str) -> None:
    process = process_of("discrete", schedule="linear", steps=50)
    times = grids.descending(process, kind, 5)
    assert times.tolist() == grids.levels(process, kind, 5).tolist()
    assert times[-1] == 0 and (times.diff() < 0).all() and len(times) == 5


@continuous
@pytest.mark.parametrize("kind", ["uniform", "quadratic", "karras", "log-snr"])
@pytest.mark.parametrize("last", [None, 0.3])
def test_a_descent_goes_from_the_largest_time_to_the_last(name, kind, last) -> None:
    """The process's own where none is said; rounding of time_of is relative 1e-9 at VP's t = 1e-3."""
    process = process_of(name)
    times = grids.descending(process, kind, 7, last)
    end = process.spec.last if last is None else last
    close(times[[0, -1]], float64([process.t_max, end]), rtol=1e-9, atol=1e-12)
    assert (times.diff() < 0).all() and len(times) == 7


def test_descents_are_even() -> None:
    """In the time, in its square root, in sigma^(1/3), in ln(sigma): of EDM, whose time is sigma."""
    process = process_of("edm")
    for kind, scale in {
        "uniform": lambda t: t,
        "quadratic": torch.sqrt,
        "karras": lambda t: t ** (1 / 3),
        "log-snr": torch.log,
    }.items():
        steps = scale(grids.descending(process, kind, 9, rho=3.0)).diff()
        close(steps, steps.mean().expand(8), rtol=1e-11)


def test_uniform_times() -> None:
    times = grids.descending(process_of("vp"), "uniform", 5, 0.2)
    close(times, float64([1.0, 0.8, 0.6, 0.4, 0.2]))
