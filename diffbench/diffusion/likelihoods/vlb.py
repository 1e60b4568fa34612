r"""The discrete variational bound (Ho et al. 2020, https://arxiv.org/abs/2006.11239, equation 5).

In bits/dim it is the sum of

    prior     KL( q(x_t | x_0) || N(prior_mean, prior_std^2 I) ) at the grid's first level t
    one term for each step of the grid down to the data; the last is the decoder's         (``bound``)

The grid has all levels of a chain, or evenly spaced ones (Nichol & Dhariwal 2021, section 4; a constant stride may
leave out the highest).  In continuous time it has ``steps`` times.  One noise is drawn per image and step.

With a number m of ``terms`` below the grid's n, the sum is estimated.  The n steps, counted from the data, are cut into
m runs: those of the first K steps have one step each, and step k > K lies in a run of about k/K, where
K (1 + ln(n/K)) = m.  The terms fall off like 1/k, so all runs of more than a step weigh about the same.  One step of
each run is drawn for each image, and its term counts as many times as the run has steps: the mean of the estimate is
the bound (stratified sampling), and the images' errors are independent.

For inverse heat dissipation (Rissanen, Heinonen & Solin 2023, https://arxiv.org/abs/2206.13397, appendix A) the prior
is the equal mixture of N(m_i, delta^2), where m_i are the training images at the last level.  Its term is bounded by

    -ln 1/N sum_i exp( -KL( q(x_t | x_0) || N(m_i, delta^2) ) )                 (Hershey & Olsen 2007, equation 20).

delta is the standard deviation of every step, including the decoder's.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from diffbench.diffusion.core import grids
from diffbench.diffusion.core.bound import bits, bound_term, gaussian_kl
from diffbench.diffusion.core.condition import UNCONDITIONAL, Condition
from diffbench.diffusion.core.described import Described
from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.core.process import cast, float64
from diffbench.diffusion.core.streams import normal_like
from diffbench.diffusion.core.transitions import model_variance
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.denoisers.thresholds import thresholded
from diffbench.diffusion.likelihoods.grey_cells import GreyCells
from diffbench.diffusion.processes.heat import IHDM
from diffbench.specs.likelihoods import HeatBoundSpec, VLBSpec


def runs_of(steps: int, count: int) -> Tensor:
    """The ends of ``count`` runs of the steps 0 .. steps-1 from the data: 0, .., steps, increasing, (count + 1,)."""
    low, high = 0.0, float(steps)
    for _ in range(64):  # K lies between them; each time half of the range is left
        whole = (low + high) / 2
        if whole > 0 and whole * (1 + math.log(steps / whole)) >= count:
            high = whole
        else:
            low = whole
    position = torch.arange(count + 1, dtype=torch.float64)
    later = high * ((position - high) / high).exp()
    return torch.where(position <= high, position, later).round().long()


class VariationalBound(Described):
    """Base: the bound of one denoiser for grey levels in ``cells``; a subclass states the prior and the variances."""

    def __init__(self, spec: VLBSpec | HeatBoundSpec, denoiser: Denoiser, cells: GreyCells) -> None:
        self.spec, self.spacing = spec, cells.spacing
        self.denoiser = thresholded(denoiser, spec.threshold)
        self.process = denoiser.process

    def times(self) -> Tensor:
        """The grid: decreasing times, then the data's, float64 (n + 1,)."""
        steps = self.spec.steps or round(self.process.t_max) + 1
        times = grids.descending(self.process, self.spec.grid, steps)
        return grids.to_data(self.process, times)

    def calls(self) -> int:
        """The denoiser's calls for a batch: one for each term that is evaluated."""
        return self.spec.terms or len(self.times()) - 1

    def evaluated(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Which of the grid's n steps are evaluated, in its order, and how often each one counts: integers (m,).

        The steps of a run of several are drawn for each of ``count`` images: then the steps are (m, count).
        """
        steps = len(self.times()) - 1
        if self.spec.terms is None:
            return torch.arange(steps), torch.ones(steps, dtype=torch.long)
        ends = runs_of(steps, self.spec.terms)
        lengths = ends.diff()
        drawn = torch.rand(len(lengths), count, generator=generator, dtype=torch.float64)
        within = (drawn * lengths[:, None]).long()
        return (steps - 1 - ends[:-1, None] - within).flip(0), lengths.flip(0)

    @abstractmethod
    def prior(self, x0: Tensor) -> Tensor:
        """The prior's term, bits/dim (B,)."""

    @abstractmethod
    def variance(self, prediction: Prediction, s: Tensor, before: Tensor | None) -> Tensor:
        """The model's variance for the step to s; ``before`` is the grid's time before the prediction's."""

    def term(
        self,
        x0: Tensor,
        t: Tensor,
        s: Tensor,
        eps: Tensor,
        before: Tensor | None = None,
        condition: Condition = UNCONDITIONAL,
    ) -> Tensor:
        """The term of the step from t to s, both () or (B, 1, 1, 1), bits/dim (B,); x_t is x0 with the noise eps."""
        prediction = self.denoiser(self.process.diffuse(x0, t, eps), t, condition)
        variance = self.variance(prediction, s, before)
        return bound_term(prediction, x0, s, variance, self.spacing)

    @torch.no_grad()
    def __call__(
        self, x0: Tensor, generator: torch.Generator, condition: Condition = UNCONDITIONAL
    ) -> dict[str, Tensor]:
        """The bound of images x0 (B, C, H, W) under a condition, in bits/dim.

        Returns:
            total (B,); prior (B,); times (m,), increasing; terms (m,), the mean over the images at each time.
        """
        times = self.times()
        chosen, counts = self.evaluated(len(x0), generator)
        terms = []
        for step, length in zip(chosen, counts.tolist(), strict=True):
            # A step that all images share has one set of coefficients.
            step = step if step.ndim == 0 else step[0] if length == 1 else step[:, None, None, None]
            eps, before = normal_like(x0, generator), times[step - 1] if step.all() else None
            terms.append(self.term(x0, times[step], times[step + 1], eps, before, condition))
        stacked, prior = torch.stack(terms[::-1]), self.prior(x0)
        counted = stacked * counts.flip(0).to(stacked)[:, None]
        return {
            "total": prior + counted.sum(0),
            "prior": prior,
            "terms": stacked.mean(1),
            "times": times[chosen].reshape(len(chosen), -1).mean(1).flip(0),
        }


class VLB(VariationalBound):
    """The bound of a chain, or of steps through continuous time."""

    spec: VLBSpec

    def prior(self, x0: Tensor) -> Tensor:
        t, process, x = self.times()[0], self.process, self.process.centred(x0.double())
        basis, variance = process.basis, float64(process.prior_std).to(x) ** 2
        mean = process.alpha(t).to(x) * basis.coordinates(x)
        other = basis.coordinates(torch.full_like(x, process.prior_mean - process.middle))
        return bits(gaussian_kl(mean, process.sigma(t).to(x) ** 2, other, variance))

    def variance(self, prediction: Prediction, s: Tensor, before: Tensor | None) -> Tensor:
        """The model's variance for the step to s.

        For the step to the data a chain has its own (``transitions``).  In continuous time, where a step may be as
        short as one likes, it is sigma^2/alpha^2, that of x_0 in x_t = alpha x_0 + sigma z (Kingma et al. 2021,
        section 3.1).
        """
        variance = model_variance(prediction, s, self.spec.variance, before)
        if self.process.spec.time == "discrete" or bool((s != self.process.data_time).any()):
            return variance
        return cast(self.process.ratio(prediction.t) ** 2, prediction.x_t)


class HeatBound(VariationalBound):
    """The bound of inverse heat dissipation."""

    process: IHDM
    spec: HeatBoundSpec

    @property
    def delta(self) -> float:
        """The model's standard deviation at every step."""
        return self.spec.ratio * self.process.noise_std

    def variance(self, prediction: Prediction, s: Tensor, before: Tensor | None) -> Tensor:
        """The variance delta^2, the same for every step."""
        return torch.full_like(prediction.x_t[:1, :1, :1, :1], self.delta**2)

    def prior(self, x0: Tensor) -> Tensor:
        """The upper bound on the prior's term, bits/dim (B,)."""
        x, dims, (sigma, delta) = x0.double(), x0[0].numel(), (self.process.noise_std, self.delta)
        mean = self.process.blurred(x, self.times()[0]).flatten(1)
        means = self.process.prior_means(x).flatten(1)
        # |a|^2 + |b|^2 - 2 a.b would lose digits, and the division by delta^2 would enlarge the error.
        distance = torch.cdist(mean, means, compute_mode="donot_use_mm_for_euclid_dist") ** 2
        spread = dims / 2 * (sigma**2 / delta**2 - 1 + 2 * math.log(delta / sigma))
        kl = spread + distance / (2 * delta**2)
        nats = math.log(kl.shape[1]) - (-kl).logsumexp(1)
        return nats / dims / math.log(2)
