r"""Reflected diffusion on the probability simplex, and its likelihood beside a closed form.

With the chart c of ``charts``, a density on the cube is one on the simplex, log p(x) = log p(c) - log |det dx/dc|.
Lou & Ermon 2023, "Reflected Diffusion Models", https://arxiv.org/abs/2304.04740, section 7, reflect in other domains by
such maps.  The true distribution here is a mixture of Dirichlet distributions.

In the m-th of M components the fraction v_i = x_i/(x_i + .. + x_K) is Beta(a_i, a_{i+1} + .. + a_K), independently of
the others, so that the density of v and its marginals are

    p(v) = 1/M sum_m prod_i Beta_{m,i}(v_i),     p_i(v_i) = 1/M sum_m Beta_{m,i}(v_i).

The total correlation E[log p(v) - sum_i log p_i(v_i)] is the same in any coordinates of which each is a function of
one v_i.  It is the least that any model of independent coordinates loses.  It is 0 for M = 1.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, distributions

from diffbench.analyses.bench import Bench
from diffbench.data.grey_levels import GreyLevels
from diffbench.diffusion.core.process import Process
from diffbench.diffusion.core.streams import key, stream
from diffbench.diffusion.denoisers.boundary import Gated
from diffbench.diffusion.denoisers.denoiser import Counted, Denoiser
from diffbench.diffusion.likelihoods.ode import ODELikelihood
from diffbench.diffusion.objectives.losses import ScoreMatching
from diffbench.diffusion.objectives.times import UniformTimes
from diffbench.diffusion.processes.simplex import StickBreaking
from diffbench.diffusion.solvers.loop import sample
from diffbench.estimate.costs import Cost
from diffbench.estimate.timings import Timings
from diffbench.metrics.scores import Score, mean_of
from diffbench.networks.categories import CategoryNetwork
from diffbench.networks.ema import EMA
from diffbench.specs.analyses import SimplexSpec
from diffbench.specs.denoisers import GatedSpec
from diffbench.specs.likelihoods import ODELikelihoodSpec
from diffbench.specs.objectives import ScoreMatchingSpec, UniformTimesSpec
from diffbench.specs.processes import ReflectedSpec
from diffbench.specs.registry import build
from diffbench.specs.solvers import EulerMaruyamaSpec, SolverSpec, TransportSpec
from diffbench.store.progress import Progress, Step
from diffbench.training.loop import TrainingError
from diffbench.training.trainer import learning_rate

#: The number of steps that an estimate times.
TIMED = 4
#: The grey levels that a likelihood is built with; they are not used for points.
NO_CELLS = GreyLevels(256, 0.0, 1.0, inside=True)


class Simplex:
    """The experiment of ``spec``; it takes about a minute and starts from the beginning after it was killed."""

    def __init__(self, spec: SimplexSpec) -> None:
        self.spec, self.chart = spec, StickBreaking(spec.categories)
        self.process: Process = build(ReflectedSpec(sigma_max=spec.sigma_max))
        count = len(spec.concentrations)
        position = torch.arange(spec.categories)
        base = torch.tensor(spec.concentrations, dtype=torch.float64)[position % count]
        favoured = position % spec.components == torch.arange(spec.components)[:, None]
        #: The parameters of each component (M, K).
        self.concentrations = base * torch.where(favoured, spec.contrast, 1.0)
        self.truth = distributions.MixtureSameFamily(
            distributions.Categorical(torch.ones(spec.components, dtype=torch.float64)),
            distributions.Dirichlet(self.concentrations),
        )

    def cost(self, timings: Timings) -> Cost:
        """Return the cost of two trainings, timed in a few steps, and a guess of that of samples and likelihoods."""
        few = self.spec.training.model_copy(update={"steps": TIMED})
        small = type(self)(self.spec.model_copy(update={"training": few}))
        device = timings.device
        step: float = timings.once(
            ("simplex", self.spec),
            lambda: timings.stopwatch.seconds(lambda: small.trained(device, 0)) / TIMED,
        )
        spec, batch = self.spec, self.spec.training.batch
        passes = spec.probes or spec.categories - 1
        # A step is three passes of a batch; Dormand and Prince's method has six calls a step.
        calls = 2 * spec.samples * 2 * spec.steps + 2 * spec.held_out * 24 * 6 * (1 + 2 * passes)
        seconds = 2 * spec.training.steps * step + calls / batch * step / 3
        return Cost.guess(seconds)

    def points(self, count: int, purpose: str, seed: int) -> Tensor:
        """Return points of the simplex, float64 (count, K): a function of the purpose and the seed."""
        # Gamma variables divided by their sum; torch draws them only from its global generator.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key(purpose, seed))
            found: Tensor = self.truth.sample((count,))
            return found

    def cube(self, points: Tensor) -> Tensor:
        """Return points as float32 "images" (B, 1, 1, K - 1) in the cube."""
        return self.chart.to_cube(points)[:, None, None].float().clamp(0, 1)

    def measure(self, bench: Bench) -> tuple[dict[str, Any], None]:
        """Train, sample, evaluate.

        Returns:
            metrics: metric (``config/tables.yaml`` describes them) -> value and standard error; those of samples are by
            the reflected SDE.  transport: the same metrics of samples by the exact transport.
        """
        denoiser, alone = (
            self.trained(bench.device, bench.seed, coupled) for coupled in (True, False)
        )
        title = f"analysis simplex {self.spec.categories}: samples and likelihoods"
        with Step(title, 4, "part") as parts:
            denoiser.seen = alone.seen = parts.call
            sde = self.sampled(EulerMaruyamaSpec(steps=2 * self.spec.steps), denoiser, bench)
            parts.advance()
            transport = self.sampled(TransportSpec(steps=self.spec.steps), denoiser, bench)
            parts.advance()
            uncoupled = self.likelihood(alone, bench)
            parts.advance()
            metrics = self.likelihood(denoiser, bench) | sde
            parts.advance()
        metrics |= {
            "simplex_uncoupled_excess_nats": uncoupled["simplex_excess_nats"],
            "simplex_coupling_nats": mean_of(self.coupling(self.held_out(bench))),
        }
        return {
            "metrics": metrics,
            "transport": transport,
            "categories": self.spec.categories,
            "images": self.spec.held_out,
            "nfe": denoiser.calls,
        }, None

    def held_out(self, bench: Bench) -> Tensor:
        """Return points that no model is trained on, float64 (held_out, K)."""
        return self.points(self.spec.held_out, "simplex held out", bench.seed)

    def coupling(self, points: Tensor) -> Tensor:
        """Return the values (N,), in nats a dimension, whose mean is the total correlation, at points (N, K)."""
        tails = points.flip(1).cumsum(1).flip(1)
        fractions = points[:, :-1] / tails[:, :-1]
        after = self.concentrations.flip(1).cumsum(1).flip(1)[:, 1:]
        each = distributions.Beta(self.concentrations[:, :-1], after)
        logs = each.log_prob(fractions[:, None].clamp(1e-12, 1 - 1e-12))
        weight = math.log(self.spec.components)
        whole = logs.sum(2).logsumexp(1) - weight
        found: Tensor = (whole - (logs.logsumexp(1) - weight).sum(1)) / (self.spec.categories - 1)
        return found

    def trained(self, device: torch.device, seed: int, coupled: bool = True) -> Counted:
        """Return the denoiser with averaged weights; its calls in training are counted.

        With ``coupled`` its coordinates depend on one another.

        Raises:
            TrainingError: when the loss is no longer finite.
        """
        spec, training = self.spec, self.spec.training
        torch.manual_seed(key("initial weights", seed))
        network = CategoryNetwork(spec.categories - 1, spec.width, spec.blocks, coupled)
        network = network.to(device)
        denoiser = Counted(Gated(GatedSpec(), self.process, network))
        times = UniformTimes(UniformTimesSpec(draw="stratified"), self.process)
        objective = ScoreMatching(ScoreMatchingSpec(), denoiser, times)
        optimiser = torch.optim.AdamW(
            network.parameters(), training.lr, training.betas, weight_decay=training.weight_decay
        )
        average, images = (
            EMA(network, build(training.ema, training.batch)),
            self.cube(self.points(spec.points, "simplex", seed)),
        )
        progress = Progress(f"analysis simplex {spec.categories}", training.steps, "step")
        for step in range(training.steps):
            generator = stream("training", seed, step)
            x0 = images[torch.randint(len(images), (training.batch,), generator=generator)]
            eps = torch.randn(x0.shape, generator=generator)
            loss = objective(x0.to(device), eps.to(device), generator).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            if training.clip is not None:
                torch.nn.utils.clip_grad_norm_(network.parameters(), training.clip)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(training, step)
            optimiser.step()
            average.update()
            progress.advance(loss=loss.detach())
        progress.close()
        if not bool(loss.isfinite()):
            raise TrainingError(f"the loss is {float(loss)} at the end: try a lower lr")
        average.copy_to(network.requires_grad_(False).eval())
        return denoiser

    def sampled(self, spec: SolverSpec, denoiser: Denoiser, bench: Bench) -> dict[str, Score]:
        """Return how many of a sampler's points are valid, and how far the categories' means are from the true ones."""
        shape = (self.spec.samples, 1, 1, self.spec.categories - 1)
        x = sample(build(spec, denoiser), shape, stream("sample", bench.seed), device=bench.device)
        points = self.chart.to_simplex(x.flatten(1).double().cpu())
        self.chart.check(points)
        error = (self.truth.variance / len(points)).sqrt()
        off = ((points.mean(0) - self.truth.mean) / error).square().mean().sqrt()
        return {
            "simplex_sum_error": single((points.sum(1) - 1).abs().max()),
            "simplex_smallest": single(points.min()),
            "simplex_mean_error": single(off),
        }

    def likelihood(self, denoiser: Denoiser, bench: Bench) -> dict[str, Score]:
        """Return negative log densities of held-out points on the simplex, nats a dimension: true, ours, difference."""
        spec, dims = self.spec, self.spec.categories - 1
        points = self.held_out(bench)
        exact = -self.truth.log_prob(points) / dims
        trace: dict[str, Any] = (
            {"trace": "exact"} if spec.probes is None else {"probes": spec.probes}
        )
        likelihood = ODELikelihood(
            ODELikelihoodSpec(method="dormand-prince", steps=24, **trace), denoiser, NO_CELLS
        )
        x, generator = self.cube(points).to(bench.device), stream("likelihood", bench.seed)
        with torch.no_grad():
            parts = [likelihood.log_prob(part, generator)[0] for part in x.split(250)]
        on_cube = torch.cat(parts).double().cpu()
        ours = (self.chart.log_det(x.flatten(1).cpu()).double() - on_cube) / dims
        return {
            "simplex_exact_nats": mean_of(exact),
            "simplex_nats": mean_of(ours),
            "simplex_excess_nats": mean_of(ours - exact),
        }


def single(value: Tensor) -> Score:
    """Return one number without an error."""
    return {"value": float(value), "se": None}
