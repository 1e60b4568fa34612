"""Network passes of the exact likelihood at equal accuracy, beside an RK45 that calls the network twice.

Data are mixtures of isotropic Gaussians, whose score is known.  A pass is a forward pass or a backward one down to
the network's input.  The peer takes what score_sde takes: scipy's RK45 on the flattened batch with the traces
appended, at each stage the drift without gradient and then once more with it, 3 passes.  Both have the same
Rademacher probe.  The truth is ours to 1e-10 with that probe, an error the largest over the images; the peer has the
tolerance of a sweep that needs the fewest passes for errors of at most 2e-4 bits/dim, ours has its defaults.
"""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from in_process import report
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torch import Tensor

from diffbench.data.grey_levels import GreyLevels
from diffbench.diffusion.core.process import Process, float64
from diffbench.diffusion.denoisers.denoiser import Counted
from diffbench.diffusion.denoisers.exact import ExactDenoiser
from diffbench.diffusion.likelihoods.ode import ODELikelihood
from diffbench.specs.denoisers import MixtureSpec
from diffbench.specs.likelihoods import ODELikelihoodSpec
from diffbench.specs.processes import ProcessSpec
from diffbench.specs.registry import build
from diffbench.training import machine

ACCURACY = 2e-4
TOLERANCES = (1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 1e-6)


class IsotropicMixture(ExactDenoiser):
    """Evenly weighted Gaussians with means (K, D) and one standard deviation."""

    def __init__(self, process: Process, means: Tensor, std: float) -> None:
        super().__init__(MixtureSpec(), process, {"means": means})
        self.means, self.std = process.centred(means), std

    def posterior_mean(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """m + alpha std^2/v (x_t - alpha m), v = alpha^2 std^2 + sigma^2, with the mean m of the posterior's means."""
        v = alpha**2 * self.std**2 + sigma**2
        distance = (x_t[:, None] - alpha[..., None] * self.means).square().sum(-1)
        mean = (-distance / (2 * v)).softmax(1) @ self.means
        return mean + alpha * self.std**2 / v * (x_t - alpha * mean)


@dataclass(frozen=True)
class Problem:
    """A mixture with means uniform in ``low`` to ``high``, and a process."""

    process: str
    shape: tuple[int, int, int]
    components: int
    std: float
    low: float = -0.8
    high: float = 0.8

    def draw(self, seed: int, count: int = 8) -> tuple[ExactDenoiser, Tensor]:
        """A mixture and ``count`` images of it."""
        generator = torch.Generator().manual_seed(seed)
        dim = math.prod(self.shape)
        means = torch.rand(self.components, dim, generator=generator, dtype=torch.float64)
        means = self.low + (self.high - self.low) * means
        chosen = means[torch.randint(self.components, (count,), generator=generator)]
        noise = torch.randn(count, dim, generator=generator, dtype=torch.float64)
        denoiser = IsotropicMixture(build(ProcessSpec.choose(self.process)), means, self.std)
        return denoiser, (chosen + self.std * noise).reshape(count, *self.shape)


PROBLEMS = {
    "vp, 10 x 3x32x32, std 0.3": Problem("vp", (3, 32, 32), 10, 0.3),
    "ve, 4 x 1x16x16, std 0.1": Problem("ve", (1, 16, 16), 4, 0.1, low=0.1, high=0.9),
    "sub-vp, 20 x 3x32x32, std 0.5": Problem("sub-vp", (3, 32, 32), 20, 0.5),
    "edm, 20 x 3x32x32, std 0.1": Problem("edm", (3, 32, 32), 20, 0.1),
}


class Result(NamedTuple):
    """Log densities (B,), and what they cost."""

    log_prob: Tensor
    passes: int
    seconds: float


class Cost(NamedTuple):
    """Medians over seeds: bits/dim, passes, CPU seconds."""

    error: float
    passes: float
    seconds: float


def ours(denoiser: ExactDenoiser, x: Tensor, seed: int, **options: float) -> Result:
    """``ODELikelihood``."""
    counted = Counted(denoiser)
    likelihood = ODELikelihood(ODELikelihoodSpec(**options), counted, GreyLevels(256))
    start = time.process_time()
    with torch.no_grad():
        log_prob, _ = likelihood.log_prob(x, torch.Generator().manual_seed(seed))
    return Result(log_prob, counted.calls + likelihood.backward, time.process_time() - start)


def peer(denoiser: ExactDenoiser, x: Tensor, seed: int, tolerance: float) -> Result:
    """RK45 on the state and the traces, with a network pass for each of them."""
    process, counted = denoiser.process, Counted(denoiser)
    likelihood = ODELikelihood(ODELikelihoodSpec(), denoiser, GreyLevels(256))
    (probe,) = likelihood.probes(x, torch.Generator().manual_seed(seed))
    backward = 0
    start = time.process_time()

    def drift(x_t: Tensor, t: Tensor) -> Tensor:
        return process.drift(t, x_t) - process.g2(t) / 2 * counted(x_t, t).score

    def rates(time_now: float, state: NDArray[np.float64]) -> NDArray[np.float64]:
        nonlocal backward
        x_t, t = torch.from_numpy(state[: x.numel()]).reshape(x.shape), float64(time_now)
        with torch.no_grad():
            change = drift(x_t, t)
        x_t.requires_grad_()
        (product,) = torch.autograd.grad((drift(x_t, t) * probe).sum(), x_t)
        backward += 1
        return np.concatenate([change.flatten(), (product * probe).flatten(1).sum(1)])

    first = np.concatenate([x.flatten(), np.zeros(len(x))])
    times = (likelihood.first_time, process.t_max)
    solution = solve_ivp(rates, times, first, method="RK45", rtol=tolerance, atol=tolerance)
    end = torch.from_numpy(solution.y[:, -1])
    prior = process.prior_log_prob(end[: x.numel()].reshape(x.shape))
    seconds = time.process_time() - start
    return Result(prior + end[x.numel() :], counted.calls + backward, seconds)


def compare(problem: Problem, seeds: Iterable[int]) -> tuple[Cost, dict[float, Cost]]:
    """Ours with its defaults, and the peer at every tolerance."""
    runs: dict[float, list[Cost]] = {tolerance: [] for tolerance in (0.0, *TOLERANCES)}
    for seed in seeds:
        denoiser, x = problem.draw(seed)
        truth = ours(denoiser, x, seed, rtol=1e-10, atol=1e-10).log_prob
        for tolerance, costs in runs.items():
            run = peer(denoiser, x, seed, tolerance) if tolerance else ours(denoiser, x, seed)
            error = float((run.log_prob - truth).abs().max()) / x[0].numel() / math.log(2)
            costs.append(Cost(error, run.passes, run.seconds))
    middle = {key: Cost(*map(median, zip(*costs, strict=True))) for key, costs in runs.items()}
    return middle.pop(0.0), middle


def cheapest(sweep: dict[float, Cost]) -> tuple[float, Cost]:
    """The tolerance with the fewest passes among those that are accurate enough."""
    accurate = {key: cost for key, cost in sweep.items() if cost.error <= ACCURACY}
    return min(accurate.items(), key=lambda item: item[1].passes)


if __name__ == "__main__":
    machine.prepare("cpu")
    print("| problem | passes | error | peer's passes | tolerance | error | fewer passes | CPU |")
    print("|---|---|---|---|---|---|---|---|")
    for name, problem in PROBLEMS.items():
        mine, sweep = compare(problem, range(5))
        assert mine.error <= ACCURACY, f"{name}: {mine.error:.2g} bits/dim"
        tolerance, other = cheapest(sweep)
        for what, ratio in (
            ("network passes", other.passes / mine.passes),
            ("CPU time", other.seconds / mine.seconds),
        ):
            report(f"likelihood, {name}", "RK45 that calls the network twice", [ratio], what)
        print(
            f"| {name} | {mine.passes:.0f} | {mine.error:.1e} | {other.passes:.0f} | {tolerance:g} "
            f"| {other.error:.1e} | {other.passes / mine.passes:.2f} x "
            f"| {other.seconds / mine.seconds:.2f} x |"
        )
