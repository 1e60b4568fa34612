"""One training run in memory: network, average and optimiser, and the step that advances them.

Every random draw of step i is a function of (seed, i) and is made for the whole batch before any loss.  Then the batch
is cut into the shares of processes (``team``) and into parts that fit the memory, b_1 + ... + b_k = B:

    gradient = sum_j (b_j/B) grad mean_j = grad mean over the batch

so the number of parts changes only the rounding (and dropout, which is drawn inside the network).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diffbench.data.datasets import Dataset
from diffbench.data.resident import TrainingImages
from diffbench.diffusion.core.process import cast
from diffbench.diffusion.core.streams import stream
from diffbench.diffusion.objectives.losses import Draws, Loss, part_of
from diffbench.networks.ema import EMA
from diffbench.specs.jobs import ClassifierSpec, TrainSpec
from diffbench.specs.registry import build
from diffbench.specs.training import TrainingSpec
from diffbench.store.state import by_part
from diffbench.training import machine, models
from diffbench.training.loop import TrainingError
from diffbench.training.muon import Muon
from diffbench.training.scaling import loss_scale
from diffbench.training.team import SingleProcess, Team

#: The factor of the mean over an image's numbers, before its gradient is taken.
REDUCTIONS: Mapping[str, Callable[[int], float]] = {
    "mean": lambda count: 1.0,
    "sum": float,
    "half-sum": lambda count: count / 2,
}


#: The value that replaces an infinite gradient where gradients are made finite.
LARGEST = 1e5


def learning_rate(training: TrainingSpec, step: int) -> float:
    """The learning rate of a step 0 .. steps-1: warm-up, then flat, then linear down to ``final`` times ``lr``."""
    warm = min(1.0, (step + 1) / (training.warmup + 1))
    turn = training.flat * training.steps
    down = max(0.0, (step - turn) / max(training.steps - turn, 1))
    return training.lr * warm * (1 - (1 - training.final) * down)


def portions(count: int, parts: int) -> list[slice]:
    """The numbers 0 .. count-1, cut into consecutive parts whose sizes differ by one at most."""
    edges = [count * part // parts for part in range(parts + 1)]
    return [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]


def make_finite(parameters: Iterable[Tensor]) -> None:
    """Replace NaN by 0 and infinities by +-1e5 in the gradients of the parameters, in place."""
    for gradient in (each.grad for each in parameters if each.grad is not None):
        torch.nan_to_num_(gradient, nan=0.0, posinf=LARGEST, neginf=-LARGEST)


def optimiser_of(training: TrainingSpec, parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
    """The optimiser of a budget: AdamW, or Muon, which is AdamW for all but the weights of convolutions."""
    constants: dict[str, Any] = {
        "lr": training.lr,
        "betas": training.betas,
        "eps": training.eps,
        "weight_decay": training.weight_decay,
        "fused": True,
    }
    if training.muon is None:
        return torch.optim.AdamW(parameters, **constants)
    return Muon(training.muon, parameters, **constants)


class Drawn(NamedTuple):
    """All that is random in a step on B images, or on some of them.

    Attributes:
        rows: the indices of the images (B,).
        mirrored: whether each image is flipped (B,), or None.
        uniform: the place of each level in its cell (B, C, H, W), in [0, 1), or None.
        draws: the draws of the objective.
    """

    rows: Tensor
    mirrored: Tensor | None
    uniform: Tensor | None
    draws: Draws

    def cut(self, part: slice) -> Drawn:
        """The draws of a part of the batch."""
        rows, mirrored, uniform, draws = self
        return Drawn(rows[part], part_of(mirrored, part), part_of(uniform, part), draws.cut(part))


def sent(drawn: Drawn, device: torch.device) -> Drawn:
    """The draws with the large tensors on a GPU: from pinned memory, or each copy would wait for the previous step."""
    if device.type != "cuda":
        return drawn
    eps, uniform = (
        None if each is None else each.pin_memory().to(device, non_blocking=True)
        for each in (drawn.draws.eps, drawn.uniform)
    )
    assert eps is not None
    return drawn._replace(uniform=uniform, draws=drawn.draws._replace(eps=eps))


class Trainer:
    """The network, averages and optimiser of one run, and the step that advances them."""

    def __init__(
        self,
        spec: TrainSpec | ClassifierSpec,
        network: nn.Module,
        objective: Loss,
        dataset: Dataset,
        device: torch.device,
        *,
        labelled: bool,
        team: Team | None = None,
    ) -> None:
        assert spec.training is not None
        self.spec, self.training, self.device = spec, spec.training, device
        self.team = team or SingleProcess()
        self.check_shares()
        self.step = 0
        self.network, self.objective = network, objective
        self.averages = [
            EMA(self.network, build(each, self.training.batch))
            for each in self.training.ema.tracked.values()
        ]
        # Made once: walking a module for its parameters takes longer than what is done with them.
        self.parameters = list(network.parameters())
        self.optimiser = optimiser_of(self.training, self.parameters)
        self.grey = models.grey_levels_of(dataset, spec.process)
        self.images = TrainingImages(self.grey, dataset.train, device)
        self.labels = torch.from_numpy(dataset.train_labels) if labelled else None
        self.scale = REDUCTIONS[self.training.reduction](objective.numbers(self.images.shape))
        self.loss_scale = loss_scale(self.training)
        self.orders: dict[int, Tensor] = {}

    @property
    def name(self) -> str:
        """The stage and the variant."""
        return f"{self.spec.stage} {self.spec.variant}"

    @property
    def title(self) -> str:
        """The stage, the variant and the seed."""
        return f"{self.name} seed {self.spec.seed}"

    @property
    def steps(self) -> int:
        """The number of steps of the budget."""
        return self.training.steps

    @property
    def batch(self) -> int:
        """The number of images of a step."""
        return self.training.batch

    def check_shares(self) -> None:
        """Refuse a batch that has fewer images than parts.

        Raises:
            TrainingError: when it has fewer.
        """
        batch, parts, size = self.training.batch, self.training.accumulate, self.team.size
        if batch < parts * size:
            raise TrainingError(
                f"training.batch: {batch} images are fewer than {size} processes times {parts} parts "
                "(training.accumulate)"
            )

    def order(self, epoch: int) -> Tensor:
        """The order of the images in an epoch."""
        if epoch not in self.orders:
            generator = stream("order", self.spec.seed, epoch)
            self.orders = {key: value for key, value in self.orders.items() if key >= epoch - 1} | {
                epoch: torch.randperm(len(self.images), generator=generator)
            }
        return self.orders[epoch]

    def rows(self) -> Tensor:
        """The indices (B,) of this step's images."""
        count, size = len(self.images), self.training.batch
        positions = torch.arange(self.step * size, (self.step + 1) * size)
        epochs = positions // count
        return torch.cat(
            [self.order(int(e))[positions[epochs == e] % count] for e in epochs.unique()]
        )

    def drawn(self) -> Drawn:
        """All that is random in this step, on the CPU."""
        generator, rows = stream("training", self.spec.seed, self.step), self.rows()
        shape = (len(rows), *self.images.shape)
        mirrored = uniform = None
        if self.training.flip:
            # A stream of its own: the other draws are the same with and without flips.
            coins = stream("flip", self.spec.seed, self.step)
            mirrored = torch.rand(len(rows), generator=coins) < 0.5
        if self.spec.dequantise == "uniform":
            uniform = torch.rand(shape, generator=generator)
        eps = torch.randn(shape, generator=generator)
        y = None if self.labels is None else self.labels[rows]
        return Drawn(rows, mirrored, uniform, self.objective.draw(eps, generator, y))

    def pixels(self, drawn: Drawn) -> Tensor:
        """The drawn images (B, C, H, W), on the device."""
        x0 = self.images[drawn.rows]
        if drawn.mirrored is not None:
            mirrored = drawn.mirrored.to(x0.device, non_blocking=x0.is_cuda)
            x0 = torch.where(mirrored[:, None, None, None], x0.flip(-1), x0)
        if drawn.uniform is not None:
            x0 = self.grey.dequantise(x0, drawn.uniform.to(x0))
        return x0

    def backward(self, drawn: Drawn) -> Tensor:
        """Add up the gradient of a batch, part by part, times the loss's scale; return the batch's mean loss."""
        count = len(drawn.rows)
        share, losses = sent(drawn.cut(self.team.share(count)), self.device), []
        parts, mean = self.training.accumulate, torch.zeros((), device=self.device)
        self.team.seed(self.spec.seed, self.step)
        for index, rows in enumerate(portions(len(share.rows), parts)):
            # The gradient's products too.
            products = machine.products(self.device, self.training.precision)
            with self.team.adding(last_part=index == parts - 1), products:
                found, loss = self.part(share.cut(rows), count)
                (loss * (self.scale * self.team.size * self.loss_scale.factor)).backward()
            losses.append(found.detach())
            mean = mean + loss.detach()
        found = self.team.whole(torch.cat(losses), count)
        # Losses of an overflow in the network do not update the training times.
        if self.loss_scale.exhausted or bool(found.isfinite().all()):
            self.objective.times.update(drawn.draws.t, found)
        return self.team.total(mean)

    def part(self, drawn: Drawn, count: int) -> tuple[Tensor, Tensor]:
        """The losses of a part of a batch of ``count`` images, and what they add to the batch's mean loss."""
        losses = self.objective.losses_for(self.pixels(drawn), drawn.draws)
        weighted = losses * cast(drawn.draws.importance, losses)
        return losses, weighted.mean() * (len(drawn.rows) / count)

    def advance(self) -> Tensor:
        """Take one step of the budget; return the loss, a scalar on the device.

        The weights do not change where a dynamic loss scale was too large for the batch.
        """
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.backward(self.drawn())
        gradients = [each.grad for each in self.parameters if each.grad is not None]
        if self.loss_scale.unscale(gradients):
            self.descend()
        self.step += 1
        return loss

    def descend(self) -> None:
        """Take an optimiser's step down the gradient, and update the averages."""
        if self.training.finite:
            make_finite(self.parameters)
        if self.training.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.training.clip)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.training, self.step)
        self.optimiser.step()
        for average in self.averages:
            average.update()

    def sound(self, loss: Tensor) -> bool:
        """Whether training can go on after a loss: it is finite, or the training handles one that is not."""
        return self.training.finite or not self.loss_scale.exhausted or bool(loss.isfinite())

    def averaged(self, index: int = 0) -> dict[str, Tensor]:
        """The network's tensors with the parameters of the average ``index``; that of 0 is the product."""
        return {**self.network.state_dict(), **self.averages[index].shadow}

    def parts(self) -> dict[str, EMA]:
        """The averages by their names in a state: ema, ema1, ..."""
        return {f"ema{index or ''}": each for index, each in enumerate(self.averages)}

    def ordered(self, index: int, moment: Tensor) -> Tensor:
        """A tensor of the optimiser in its parameter's memory format, which fused kernels assume without a check."""
        parameter = self.optimiser.param_groups[0]["params"][index]
        if moment.shape != parameter.shape:
            return moment
        return torch.empty_like(parameter, dtype=moment.dtype).copy_(moment)

    def untouched(self) -> dict[int, dict[str, Tensor]]:
        """The initial state of AdamW for the first parameter, for a training whose steps were all skipped so far."""
        first = self.optimiser.param_groups[0]["params"][0].detach()
        moments = {name: torch.zeros_like(first) for name in ("exp_avg", "exp_avg_sq")}
        return {0: {"step": torch.zeros((), device=self.device), **moments}}

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on."""
        optimiser = self.optimiser.state_dict()["state"] or self.untouched()
        tensors = {f"model.{name}": each for name, each in self.network.state_dict().items()}
        for part, average in self.parts().items():
            tensors |= {f"{part}.{name}": each for name, each in average.shadow.items()}
            tensors[f"{part}.updates"] = torch.tensor(average.updates)
        tensors |= {
            f"optimiser.{index}.{name}": each
            for index, parts in optimiser.items()
            for name, each in parts.items()
        }
        tensors |= {f"times.{name}": each for name, each in self.objective.times.state().items()}
        tensors |= {f"scale.{name}": each for name, each in self.loss_scale.state().items()}
        tensors["rng.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        return tensors

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Continue from a saved state.

        Raises:
            TrainingError: when the state lacks a tensor of the training times or of the loss's scale.
        """
        parts = by_part(tensors)
        self.step = int(tensors["step"])
        self.network.load_state_dict(parts["model"])
        for part, average in self.parts().items():
            updates = int(parts[part].pop("updates"))
            average.load({"updates": updates, "shadow": parts[part]})
        state = {
            int(index): {key: self.ordered(int(index), each) for key, each in moments.items()}
            for index, moments in by_part(parts["optimiser"]).items()
        }
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        times, scale = (parts.get(part, {}) for part in ("times", "scale"))
        wanted = {"times": self.objective.times.state(), "scale": self.loss_scale.state()}
        lacking = [
            f"{part}.{name}"
            for part, found in (("times", times), ("scale", scale))
            for name in sorted(wanted[part].keys() - found.keys())
        ]
        if lacking:
            raise TrainingError(f"the training state lacks {lacking[0]}: remove it")
        self.objective.times.load(times)
        self.loss_scale.load(scale)
        torch.set_rng_state(parts["rng"]["cpu"])
        if "cuda" in parts["rng"]:
            torch.cuda.set_rng_state(parts["rng"]["cuda"], self.device)
