r"""The schedule stage: how much noise a process has over time, and at which noise levels it is evaluated.

    log SNR = ln(alpha_t^2/sigma_t^2),     x_t = alpha_t x_0 + sigma_t eps,  data in [-1, 1]

Where blur makes alpha_t depend on the frequency there are two curves, of the lowest frequency and of the highest.
Between reflecting walls sigma_t is that of the noise before it is reflected.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffbench.data.datasets import Dataset
from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.core.process import Process
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.denoisers.guidance import Classifier
from diffbench.jobs import data
from diffbench.specs.jobs import ScheduleSpec
from diffbench.specs.registry import build
from diffbench.specs.solvers import SolverSpec
from diffbench.store import paths
from diffbench.store.products import write_json_product
from diffbench.training import machine, models

#: The number of times of a curve: of a chain levels, else half of them evenly spaced and half evenly in ln t.
TIMES = 60
#: The number of quantiles of the training times.
QUANTILES = 20


def run(spec: ScheduleSpec, root: Path, device_name: str) -> None:
    """Write schedules/{variant}.json."""
    path = paths.product(root, spec)
    with machine.record(path, machine.prepare("cpu")):
        write_json_product(path, schedule(spec, data.load(root, spec.data)), spec)


def schedule(spec: ScheduleSpec, dataset: Dataset) -> dict[str, Any]:
    """Return the noise levels of a process.

    Returns:
        times, fractions of the largest time, and alpha, alpha_highest, sigma and log_snr there; highest, the log SNR of
        the highest frequency, where it differs; solvers, the log SNR at which each step of a grid begins, by solver;
        adaptive, the solvers that choose their steps as they go; training, quantiles of the log SNR of training times.
    """
    process = models.build_process(spec.process, dataset)
    times = curve_times(process)
    alpha, highest, sigma = scales(process, times)
    found: dict[str, Any] = {
        "times": (times / process.t_max).tolist(),
        "alpha": alpha.tolist(),
        "alpha_highest": highest.tolist(),
        "sigma": sigma.tolist(),
        "log_snr": log_snr(alpha, sigma),
    }
    if not torch.equal(alpha, highest):
        found["highest"] = log_snr(highest, sigma)
    grids = {
        item: evaluated(process, each) for item, each in spec.solvers.items() if not each.adaptive
    }
    found["solvers"] = {item: levels_at(process, each) for item, each in grids.items()}
    found["adaptive"] = [item for item, each in spec.solvers.items() if each.adaptive]
    if spec.times is not None:
        u = (torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES
        found["training"] = levels_at(process, build(spec.times, process).quantile(u)[0])
    return found


def curve_times(process: Process) -> Tensor:
    """Return times from the last with noise to the largest, increasing, float64 (n,)."""
    first, last = process.spec.last, process.t_max
    if process.spec.time == "discrete":
        found: Tensor = torch.linspace(first, last, TIMES, dtype=torch.float64).round().unique()
        return found
    even = torch.linspace(first, last, TIMES // 2, dtype=torch.float64)
    # Where the time is sigma itself, evenly spaced times would leave small noise out.
    low = max(first, 1e-3 * last)
    ends = math.log10(low), math.log10(last)
    uneven = torch.logspace(*ends, TIMES // 2, dtype=torch.float64).clamp(first, last)
    both: Tensor = torch.cat([even, uneven]).unique()
    return both


def scales(process: Process, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return alpha of the lowest and of the highest frequency and sigma, for data in [-1, 1], each float64 (n,)."""
    each = [process.alpha(t) for t in times]
    ends = [[alpha.flatten()[place] for alpha in each] for place in (0, -1)]
    sigma = torch.stack([process.sigma(t) for t in times])
    lowest, highest = (torch.stack(alphas) for alphas in ends)
    return lowest, highest, sigma / process.spec.half_range


def log_snr(alpha: Tensor, sigma: Tensor) -> list[float | None]:
    """Return ln(alpha^2/sigma^2); None where alpha is 0 in the precision of numbers."""
    found = (2 * (alpha / sigma).log()).tolist()
    return [each if math.isfinite(each) else None for each in found]


def levels_at(process: Process, times: Tensor) -> list[float | None]:
    """Return the log SNR at times (n,), of the lowest frequency; of the highest where only blur changes."""
    lowest, highest, sigma = scales(process, times)
    return log_snr(highest if process.spec.noise == "constant" else lowest, sigma)


def evaluated(process: Process, solver: SolverSpec) -> Tensor:
    """Return the times at which the steps of a solver's grid begin, decreasing, float64 (n,)."""
    unguided = Classifier(process, lambda x, c_noise: x, classes=0)
    times: Tensor = build(solver, Untrained(process), unguided).times()
    return times[:-1]


class Untrained(Denoiser):
    """A denoiser in the place of a model, for what depends on the process alone."""

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        raise NotImplementedError("it makes no predictions")
