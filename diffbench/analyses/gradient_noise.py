r"""How noisy the gradients of L_vlb and L_hybrid are along one neutral run.

With g the gradient of one minibatch, its noise is the total variance tr Cov(g), estimated without bias from
n draws.  The squared mean |E g|^2 is |mean of the draws|^2 - tr Cov(g)/n, since the mean of n draws has 1/n of the
noise.  At each checkpoint the network is frozen and the draws of all three objectives use the
same images and noise:

    vlb              L_vlb, uniform times
    vlb-importance   L_vlb, times in proportion to the root mean square of their last losses, weighted back
    hybrid           L_hybrid, uniform times

The run is trained with L_simple, which favours neither bound; its variance output is not trained.
Nichol & Dhariwal 2021, https://arxiv.org/abs/2102.09672, section 3.3, compare L_vlb and L_hybrid by the
gradient noise scale tr Cov(g)/|E g|^2 (McCandlish et al. 2018, https://arxiv.org/abs/1812.06162).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from diffbench.analyses.bench import Bench
from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.streams import stream
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.objectives.losses import Objective
from diffbench.estimate.costs import Cost
from diffbench.estimate.timings import Timings
from diffbench.jobs.train import denoiser_trainer
from diffbench.specs.analyses import GradientNoiseSpec
from diffbench.specs.jobs import TrainSpec
from diffbench.specs.objectives import (
    HybridSpec,
    ImportanceTimesSpec,
    ObjectiveSpec,
    SimpleSpec,
    VLBObjectiveSpec,
)
from diffbench.specs.registry import build
from diffbench.store.progress import Progress, Step
from diffbench.training import models
from diffbench.training.trainer import Trainer

OBJECTIVES: dict[str, ObjectiveSpec] = {
    "vlb": VLBObjectiveSpec(),
    "vlb-importance": VLBObjectiveSpec(times=ImportanceTimesSpec()),
    "hybrid": HybridSpec(),
}
#: The objective that gives the unbiased estimator of |E g_vlb|^2 with the least noise.
REFERENCE = "vlb-importance"


class GradientNoise:
    """The measurement of ``spec`` on the network, process and budget of a variant."""

    def __init__(self, spec: GradientNoiseSpec, train: TrainSpec) -> None:
        assert train.objective is not None
        self.spec = spec
        self.label_dropout = train.objective.label_dropout
        neutral = SimpleSpec(times=train.objective.times, label_dropout=self.label_dropout)
        self.train = train.model_copy(update={"objective": neutral})

    def cost(self, timings: Timings) -> Cost:
        """Return the cost of the training, and of the gradients and losses at each checkpoint, in steps of it."""
        if self.train.network is None:
            return Cost(None)
        training = self.train.training
        assert training is not None
        checkpoints = len(self.checkpoints(training.steps))
        gradients = self.spec.draws * len(OBJECTIVES)
        levels, history = self.train.process.level_count or 0, ImportanceTimesSpec().history
        # Losses take a third of a step, which has a backward pass too.
        losses = levels * history / training.batch / 3
        step = timings.training(self.train, denoiser_trainer).step.seconds
        steps = training.steps + checkpoints * (gradients + losses)
        return Cost(steps * step / 3600)

    def measure(self, bench: Bench) -> tuple[dict[str, Any], None]:
        """Train, stop at each checkpoint, measure, and save; continue from what was saved.

        Returns:
            steps; mean_square: |E g|^2 of L_vlb; estimators: of each objective its noise tr Cov(g) and its
            own mean_square; all by checkpoint.
        """
        state = bench.state
        trainer = denoiser_trainer(self.train, bench.dataset, bench.device)
        process = models.build_process(self.train.process, bench.dataset)
        denoiser = models.wrap(
            self.train, process, trainer.network, bench.dataset, bench.device, bench.precision
        )
        # Shape (checkpoints, objectives, 2): noise and mean square.
        measured = torch.zeros(0, len(OBJECTIVES), 2, dtype=torch.float64)
        if (saved := state.load()) is not None:
            trainer.restore(saved)
            measured = saved["measured.values"]
        steps = self.checkpoints(trainer.training.steps)
        title, total = f"analysis {self.train.variant}", trainer.training.steps
        progress = Progress(title, total, "step", trainer.step)
        for step in steps[len(measured) :]:
            while trainer.step < step:
                progress.advance(loss=trainer.advance())
            many = self.spec.draws * len(OBJECTIVES)
            with Step(f"{title}: gradients at step {step}", many, "gradient") as part:
                found = [
                    noise_of(part.over(self.draws(trainer, objective)))
                    for objective in self.objectives(trainer, denoiser)
                ]
            measured = torch.cat([measured, torch.tensor([found], dtype=torch.float64)])
            state.save(trainer.state() | {"measured.values": measured}, trainer.step)
        progress.close()
        values = measured.permute(1, 2, 0).tolist()
        estimators = {
            name: dict(zip(("noise", "mean_square"), each, strict=True))
            for name, each in zip(OBJECTIVES, values, strict=True)
        }
        return {
            "steps": steps,
            "mean_square": estimators[REFERENCE]["mean_square"],
            "estimators": estimators,
            "batch": trainer.training.batch,
            "draws": self.spec.draws,
        }, None

    def checkpoints(self, steps: int) -> list[int]:
        """Return evenly spaced steps, the last step among them."""
        count = min(self.spec.checkpoints, steps)
        return [round(steps * (i + 1) / count) for i in range(count)]

    def objectives(self, trainer: Trainer, denoiser: Denoiser) -> Iterator[Objective]:
        """Yield the objectives on the network as it is now; times that learn are given its losses."""
        for spec in OBJECTIVES.values():
            spec = spec.model_copy(update={"label_dropout": self.label_dropout})
            times = build(spec.times, denoiser.process)
            objective: Objective = build(spec, denoiser, times, trainer.grey.spacing)
            self.learn(trainer, objective)
            yield objective

    @torch.no_grad()
    def learn(self, trainer: Trainer, objective: Objective) -> None:
        """Give the distribution of times as many losses of every level as it needs."""
        process = objective.denoiser.process
        levels = torch.arange(round(process.t_max) + 1, dtype=torch.float64)
        generator = stream("gradient noise, losses", self.train.seed, trainer.step)
        for t in levels.repeat(objective.times.history).split(trainer.training.batch):
            if len(t) == 0:
                continue
            x0, eps, y = self.images(trainer, len(t), generator)
            losses = objective.losses(x0, t[:, None, None, None], eps, Condition(y))
            objective.times.update(t, losses)

    def images(
        self, trainer: Trainer, count: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return random training images, noise, (count, C, H, W) each, and labels (count,) if the model takes any."""
        rows = torch.randint(len(trainer.images), (count,), generator=generator)
        x0 = trainer.images[rows]
        eps = torch.randn(x0.shape, generator=generator)
        y = None if trainer.labels is None else trainer.labels[rows].to(trainer.device)
        return x0, eps.to(trainer.device), y

    def draws(self, trainer: Trainer, objective: Objective) -> Iterator[Tensor]:
        """Yield the gradients of single minibatches as vectors."""
        parameters = [each for each in trainer.network.parameters() if each.requires_grad]
        for draw in range(self.spec.draws):
            generator = stream("gradient noise", self.train.seed, trainer.step, draw)
            x0, eps, y = self.images(trainer, trainer.training.batch, generator)
            loss = objective(x0, eps, generator, y).mean()
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            yield torch.cat(
                [
                    (torch.zeros_like(p) if g is None else g).flatten().cpu().double()
                    for p, g in zip(parameters, gradients, strict=True)
                ]
            )


def noise_of(draws: Iterator[Tensor]) -> tuple[float, float]:
    """Return tr Cov(g) and |E g|^2, both without bias, from independent draws of g; at least two are needed."""
    total, squares, count = torch.zeros(()), 0.0, 0
    for g in draws:
        total, squares, count = total + g, squares + float(g.square().sum()), count + 1
    mean_square = float((total / count).square().sum())
    variance = (squares - count * mean_square) / (count - 1)
    return variance, mean_square - variance / count
