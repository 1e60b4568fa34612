"""The transition rule against improved-diffusion's posteriors, model means and variances."""

import math

import pytest
import torch
from toys import (
    Toy,
    close,
    column,
    fixed_variance,
    process_of,
    recorded,
    toy_eps,
    toy_fraction,
    toy_v,
)

from diffbench.diffusion.core.bound import bound_term
from diffbench.diffusion.core.grids import respaced
from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.core.process import Process, float64
from diffbench.diffusion.core.transitions import (
    ddim_scales,
    model_variance,
    posterior_residual,
    residual_correlation,
    step_mean,
)
from diffbench.diffusion.denoisers.guidance import GuidedPrediction
from diffbench.diffusion.denoisers.thresholds import thresholded

CHAINS = {"": ("linear", 1000), "_cos4000": ("cosine", 4000)}
both_chains = pytest.mark.parametrize("suffix", CHAINS)
clipped_or_not = pytest.mark.parametrize(("clip", "threshold"), [(0, "none"), (1, "static")])


def chain(suffix: str) -> Process:
    schedule, steps = CHAINS[suffix]
    return process_of("discrete", schedule=schedule, steps=steps)


@both_chains
def test_forward_draws_and_posteriors(suffix: str) -> None:
    arrays, process = recorded(f"gd_forward{suffix}"), chain(suffix)
    x0, t = arrays["x0"], column(arrays["t"])
    x_t = process.diffuse(x0, t, arrays["noise"])
    close(x_t, arrays["x_t"])
    close(process.diffuse(x0, t, torch.zeros_like(x0)), arrays["q_mean"])
    close(process.sigma(arrays["t"]) ** 2, arrays["q_var"])
    close((process.sigma(arrays["t"]) ** 2).log(), arrays["q_logvar"])
    truth = Prediction(process, x_t, t, "x0", x0)
    close(step_mean(truth, t - 1, posterior_residual(process, t, t - 1)), arrays["post_mean"])
    close(process.posterior_variance(arrays["t"], arrays["t"] - 1), arrays["post_var"])
    clipped = fixed_variance(process, arrays["t"], arrays["t"] - 1, "small")
    close(clipped.log(), arrays["post_logvar_clipped"])


@both_chains
@clipped_or_not
def test_model_means(suffix: str, clip: int, threshold: str) -> None:
    arrays, process = recorded(f"gd_p_mean_variance{suffix}"), chain(suffix)
    x_t, t = arrays["x_t"], column(arrays["t"])
    close(toy_eps(x_t, t), arrays["model_eps"])
    prediction = thresholded(Toy(process, "eps", toy_eps), threshold)(x_t, t)
    close(prediction.x0, arrays[f"FIXED_SMALL_clip{clip}_pred_xstart"])
    mean = step_mean(prediction, t - 1, posterior_residual(process, t, t - 1))
    close(mean, arrays[f"FIXED_SMALL_clip{clip}_mean"])


@both_chains
def test_model_variances(suffix: str) -> None:
    """Small is exactly 0 at the first step; its logarithm, and both of large's, are not."""
    arrays, process = recorded(f"gd_p_mean_variance{suffix}"), chain(suffix)
    t = arrays["t"]
    close(process.posterior_variance(t, t - 1), arrays["FIXED_SMALL_variance"])
    small, large = (fixed_variance(process, t, t - 1, kind) for kind in ("small", "large"))
    close(small.log(), arrays["FIXED_SMALL_log_variance"])
    close(large, arrays["FIXED_LARGE_variance"])
    close(large.log(), arrays["FIXED_LARGE_log_variance"])


@both_chains
@clipped_or_not
def test_learned_variances(suffix: str, clip: int, threshold: str) -> None:
    """Of the prediction that also has the mean: a threshold leaves the variance as it is."""
    arrays, process = recorded(f"gd_p_mean_variance{suffix}"), chain(suffix)
    x_t, t = arrays["x_t"], column(arrays["t"])
    close(toy_v(x_t, t), arrays["model_v"])
    prediction = thresholded(Toy(process, "eps", toy_eps, toy_fraction), threshold)(x_t, t)
    mean = step_mean(prediction, t - 1, posterior_residual(process, t, t - 1))
    close(mean, arrays[f"LEARNED_RANGE_clip{clip}_mean"])
    variance = model_variance(prediction, t - 1, "learned")
    close(variance, arrays["LEARNED_RANGE_variance"])
    close(variance.log(), arrays["LEARNED_RANGE_log_variance"])


def test_a_respaced_step_asks_the_model_at_the_original_level() -> None:
    arrays, process = recorded("gd_spaced_step"), chain("")
    levels, spaced = float64(respaced(1000, 25)), arrays["t"].long()
    t, s = column(levels[spaced]), column(levels[spaced - 1])
    close(t.flatten(), arrays["model_t"])
    prediction = Toy(process, "eps", toy_eps, toy_fraction)(arrays["x"], t)
    close(step_mean(prediction, s, posterior_residual(process, t, s)), arrays["mean"])
    close(model_variance(prediction, s, "learned").log(), arrays["log_variance"])
    close(step_mean(prediction, s, ddim_scales(process, t, s, 0.0).r), arrays["ddim_mean"])


@pytest.mark.parametrize("name", ["vp", "vp-chain", "sub-vp", "ve", "edm", "vp-cosine"])
def test_eta_one_is_the_posterior(name: str) -> None:
    """r^2 = sigma_s^2 - n^2 cancels in long steps: VP's from 1 to 0.6 keeps 2e-3 of sigma_s^2."""
    process = process_of(name)
    t, s = float64([1.0, 0.5]), float64([0.6, 0.2])
    ddim, rho = ddim_scales(process, t, s, 1.0), residual_correlation(process, t, s)
    close(ddim.r, posterior_residual(process, t, s), rtol=1e-12)
    close(ddim.n**2, fixed_variance(process, t, s, "small"), rtol=1e-13)
    close(ddim.n**2, (1 - rho**2) * process.sigma(s) ** 2, rtol=1e-12)


#: Neighbours, and levels that a thinned grid leaves far apart.
PAIRS = [(1, 0), (20, 19), (49, 48), (30, 2), (49, 0), (44, 11)]
every_pair = pytest.mark.parametrize(("t", "s"), PAIRS)
every_schedule = pytest.mark.parametrize("schedule", ["linear", "cosine"])


def variance_at(process: Process, t: int, s: int, fraction: float) -> torch.Tensor:
    """The learned variance with the same fraction in all of 3 pixels."""
    x = torch.zeros(1, 1, 1, 3).double()
    v = torch.full_like(x, fraction)
    return model_variance(Prediction(process, x, float64(t), "eps", x, v), float64(s), "learned")


@every_schedule
@every_pair
def test_a_learned_variance_runs_from_small_to_large(schedule: str, t: int, s: int) -> None:
    """Both ends are differences of numbers below 1 and at least 1e-3: they round by 1e-13 of themselves."""
    process = process_of("discrete", schedule=schedule, steps=50)
    small = float(process.posterior_variance(float64(t), float64(s)))
    alpha = float(process.alpha(float64(t)) / process.alpha(float64(s)))
    large = float(process.sigma(float64(t)) ** 2) - alpha**2 * float(process.sigma(float64(s)) ** 2)
    assert small < large
    for fraction in (0.0, 0.25, 0.5, 1.0):
        want = float64(large**fraction * small ** (1 - fraction)).expand(1, 1, 1, 3)
        close(variance_at(process, t, s, fraction), want, rtol=1e-12, atol=0)
    values = [float(variance_at(process, t, s, v)[0, 0, 0, 0]) for v in (0.0, 0.2, 0.7, 1.0)]
    assert values == sorted(values)


@every_schedule
@every_pair
def test_each_pixel_has_its_own_learned_variance(schedule: str, t: int, s: int) -> None:
    process = process_of("discrete", schedule=schedule, steps=50)
    x, v = torch.zeros(1, 1, 1, 3).double(), float64([0.1, 0.6, 1.3]).reshape(1, 1, 1, 3)
    got = model_variance(Prediction(process, x, float64(t), "eps", x, v), float64(s), "learned")
    alone = [variance_at(process, t, s, float(each))[..., :1] for each in v.flatten()]
    close(got, torch.cat(alone, -1), rtol=1e-15, atol=0)


@every_schedule
@pytest.mark.parametrize("kind", ["small", "large"])
def test_the_variance_into_the_data_is_that_of_the_grids_step_before(
    schedule: str, kind: str
) -> None:
    """On a thinned grid 30, 12, 0 and the data: the posterior's variance from 12 to 0."""
    process = process_of("discrete", schedule=schedule, steps=50)
    x = torch.zeros(1, 1, 1, 1).double()
    prediction = Prediction(process, x, float64(0), "eps", x)
    got = model_variance(prediction, float64(-1), kind, before=float64(12))
    close(got, process.posterior_variance(float64(12), float64(0)), rtol=1e-15, atol=0)


@every_schedule
@pytest.mark.parametrize("t", [0, 1, 30])
def test_a_variance_without_bounds_is_the_networks_own(schedule: str, t: int) -> None:
    """Whatever the step's bounds are, into the data too; thresholds, guides and other values leave it."""
    process = process_of("discrete", schedule=schedule, steps=50)
    x, own = torch.zeros(1, 1, 1, 3).double(), float64([-9.0, 0.3, 2.0]).reshape(1, 1, 1, 3)
    prediction = Prediction(process, x, float64(t), "eps", x + 0.1, log_variance=own)
    again = [
        prediction,
        prediction.with_value(x),
        prediction.with_x0(x),
        GuidedPrediction(prediction, x),
    ]
    for each in again:
        assert torch.equal(model_variance(each, float64(t - 1), "learned"), own.exp())
    small = model_variance(prediction, float64(t - 1), "small")
    assert torch.equal(small, fixed_variance(process, float64(t), float64(t - 1), "small"))


def test_the_best_variance_without_bounds_is_the_posteriors_and_the_error() -> None:
    """A term KL(q || N(mean, s^2)) of a pixel is least at s^2 = posterior variance + squared error of the mean: its
    derivative by ln s^2 is (1 - that/s^2)/2, here of a mean over 3 pixels, in bits."""
    process = process_of("discrete", schedule="linear", steps=50)
    t, x0 = float64(20), float64([0.5, -0.2, 0.1]).reshape(1, 1, 1, 3)
    x_t = process.diffuse(x0, t, float64([1.0, -1.0, 0.3]).reshape(1, 1, 1, 3))
    truth = Prediction(process, x_t, t, "x0", x0)
    own = float64([-4.0, -3.0, -2.0]).reshape(1, 1, 1, 3).requires_grad_()
    prediction = Prediction(process, x_t, t, "x0", x0 + 0.3, log_variance=own)
    variance = model_variance(prediction, t - 1, "learned")
    term = bound_term(prediction, x0, t - 1, variance, 2 / 255)
    (slope,) = torch.autograd.grad(term.sum(), own)
    error = (prediction.mean - truth.mean) ** 2
    best = process.posterior_variance(t, t - 1) + error
    close(slope, (1 - best / own.detach().exp()) / 2 / 3 / math.log(2), rtol=1e-12)


def test_a_fixed_variance_is_not_learned() -> None:
    process = process_of("discrete", schedule="linear", steps=50)
    x = torch.zeros(1, 1, 1, 1)
    with pytest.raises(ValueError, match="variance: learned"):
        model_variance(Prediction(process, x, float64(3), "eps", x), float64(2), "learned")
