"""The transition rule against improved-diffusion's posteriors and model means."""

import pytest
import torch
from toys import Toy, close, column, process_of, recorded, toy_eps

from diffbench.diffusion.denoisers import THRESHOLDS
from diffbench.diffusion.grids import respaced
from diffbench.diffusion.likelihoods.vlb import step_variance
from diffbench.diffusion.predictions import Prediction
from diffbench.diffusion.processes.gaussian import GaussianProcess, at
from diffbench.diffusion.transitions import (
    ancestral_scales,
    ddim_scales,
    residual_correlation,
    step_mean,
    variance,
)

CHAINS = {"": ("linear", 1000), "_cos4000": ("cosine", 4000)}
both_chains = pytest.mark.parametrize("suffix", CHAINS)


def chain(suffix: str) -> GaussianProcess:
    schedule, steps = CHAINS[suffix]
    return process_of("discrete", schedule=schedule, steps=steps)


def clipped_variances(process: GaussianProcess, t: torch.Tensor, kind: str) -> torch.Tensor:
    """With the first step's replaced, as the official logarithms are."""
    return torch.stack([step_variance(process, level, level - 1, kind) for level in t])


@both_chains
def test_forward_draws_and_posteriors(suffix: str) -> None:
    arrays, process = recorded(f"gd_forward{suffix}"), chain(suffix)
    x0, t = arrays["x0"], column(arrays["t"])
    x_t = process.diffuse(x0, t, arrays["noise"])
    close(x_t, arrays["x_t"])
    close(process.diffuse(x0, t, torch.zeros_like(x0)), arrays["q_mean"])
    close(process.sigma(arrays["t"]) ** 2, arrays["q_var"])
    close((process.sigma(arrays["t"]) ** 2).log(), arrays["q_logvar"])
    r = residual_correlation(process, t, t - 1) * process.sigma(t - 1)
    close(step_mean(Prediction(process, x_t, t, "x0", x0), t - 1, r), arrays["post_mean"])
    close(variance(process, arrays["t"], arrays["t"] - 1, "small"), arrays["post_var"])
    clipped = clipped_variances(process, arrays["t"], "small")
    close(clipped.log(), arrays["post_logvar_clipped"])


@both_chains
@pytest.mark.parametrize(("clip", "threshold"), [(0, "none"), (1, "static")])
def test_model_means(suffix: str, clip: int, threshold: str) -> None:
    arrays, process = recorded(f"gd_p_mean_variance{suffix}"), chain(suffix)
    x_t, t = arrays["x_t"], column(arrays["t"])
    close(toy_eps(x_t, t), arrays["model_eps"])
    prediction = THRESHOLDS[threshold](Toy(process, "eps", toy_eps))(x_t, t)
    close(prediction.x0, arrays[f"FIXED_SMALL_clip{clip}_pred_xstart"])
    for kind in ("small", "large"):
        r, _ = ancestral_scales(process, t, t - 1, kind)
        close(step_mean(prediction, t - 1, r), arrays[f"FIXED_SMALL_clip{clip}_mean"])


@both_chains
def test_model_variances(suffix: str) -> None:
    """Small is exactly 0 at the first step; its logarithm, and both of large's, are not."""
    arrays, process = recorded(f"gd_p_mean_variance{suffix}"), chain(suffix)
    t = arrays["t"]
    close(variance(process, t, t - 1, "small"), arrays["FIXED_SMALL_variance"])
    close(clipped_variances(process, t, "small").log(), arrays["FIXED_SMALL_log_variance"])
    large = clipped_variances(process, t, "large")
    close(large, arrays["FIXED_LARGE_variance"])
    close(large.log(), arrays["FIXED_LARGE_log_variance"])


def test_a_respaced_step_asks_the_model_at_the_original_level() -> None:
    arrays, process = recorded("gd_spaced_step"), chain("")
    levels, spaced = at(respaced(1000, 25)), arrays["t"].long()
    t, s = column(levels[spaced]), column(levels[spaced - 1])
    close(t.flatten(), arrays["model_t"])
    prediction = Toy(process, "eps", toy_eps)(arrays["x"], t)
    close(step_mean(prediction, s, ancestral_scales(process, t, s, "small").r), arrays["mean"])
    close(step_mean(prediction, s, ddim_scales(process, t, s, 0.0).r), arrays["ddim_mean"])


@pytest.mark.parametrize("name", ["vp", "sub-vp", "ve", "edm"])
def test_eta_one_is_the_posterior(name: str) -> None:
    """r^2 = sigma_s^2 - n^2 cancels in long steps: VP's from 1 to 0.6 keeps 2e-3 of sigma_s^2."""
    process = process_of(name)
    t, s = at([1.0, 0.5]), at([0.6, 0.2])
    ancestral, ddim = ancestral_scales(process, t, s, "small"), ddim_scales(process, t, s, 1.0)
    close(ddim.r, ancestral.r, rtol=1e-12)
    close(ddim.n, ancestral.n, rtol=1e-13)
