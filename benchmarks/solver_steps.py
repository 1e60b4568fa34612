"""What a step of a solver costs beside the network: here, in diffusers, azula and k-diffusion, on one thread, in turns.

    make .venv-peers/.ready
    .venv-peers/bin/python benchmarks/solver_steps.py [--steps 1000] [--rounds 5] [--only NAME]

The network returns the same tensor at every call.  All sides of a row take the same steps from the same start with the
same noise and must end in the same images.  "ours" and the peers are given the prediction; "ours, network" also does
what a run does around a network: it scales its input and output and makes its noise input.  Times are CPU time for each
call.  A peer that is not installed is left out.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec, module_from_spec
from typing import NamedTuple

import torch
from in_process import report
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from diffbench.diffusion.core.condition import UNCONDITIONAL, Condition
from diffbench.diffusion.core.predictions import Native, Prediction
from diffbench.diffusion.core.process import Process
from diffbench.diffusion.core.streams import normal_like
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.denoisers.network import NetworkDenoiser
from diffbench.diffusion.processes.continuous import EDM, VE
from diffbench.diffusion.processes.discrete import Discrete
from diffbench.diffusion.solvers.loop import Solver, solve
from diffbench.diffusion.solvers.ode import DPMSolver, Heun
from diffbench.diffusion.solvers.transition import DDIM, Ancestral
from diffbench.metrics import torchvision_operators
from diffbench.specs.denoisers import NetworkDenoiserSpec
from diffbench.training import machine

SHAPE = (16, 3, 32, 32)
#: The largest difference of the images, in units of the largest number.  float32 rounds by 6e-8; diffusers takes beta
#: as 1 - alpha_bar in float32, an error of 6e-8/1e-4 of the first beta, and half of it of a step's noise.
EQUAL = 1e-3
ANSWER = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))

#: A sampler: from a start and the generator of its noise to images.
Draw = Callable[[Tensor, torch.Generator], Tensor]


class Constant(Denoiser):
    """A denoiser that says the same tensor of every state."""

    def __init__(self, process: Process, native: Native) -> None:
        super().__init__(process)
        self.native: Native = native

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        return Prediction(self.process, x_t, t, self.native, ANSWER)


def network(process: Process, native: Native) -> Denoiser:
    """The denoiser of a network that returns the same tensor at every call, with all that a run does around it."""
    answer = ANSWER / process.unit if native == "x0" else ANSWER
    return NetworkDenoiser(NetworkDenoiserSpec(predict=native), process, lambda *_: answer)


def ours(
    process: Process,
    native: Native,
    make: Callable[[Denoiser], Solver],
    times: Tensor | None = None,
    denoiser: Callable[[Process, Native], Denoiser] = Constant,
) -> Draw:
    """A solver on a process, built anew for each sample, as a run does."""
    told = denoiser(process, native)

    @torch.no_grad()
    def draw(x: Tensor, generator: torch.Generator) -> Tensor:
        return solve(make(told), x, UNCONDITIONAL, lambda x: normal_like(x, generator), times)

    return draw


def diffusers(scheduler: str, steps: int, **options: object) -> Draw:
    """The usual loop around a scheduler of diffusers."""
    import diffusers

    made = getattr(diffusers, scheduler)
    chain = Discrete(schedule="linear", steps=steps)
    constants = {"trained_betas": chain.betas.tolist(), "num_train_timesteps": steps}

    @torch.no_grad()
    def draw(x: Tensor, generator: torch.Generator) -> Tensor:
        each = made(**constants, **options)
        each.set_timesteps(steps)
        for t in each.timesteps:
            x = each.step(ANSWER, t, x, generator=generator).prev_sample
        return x

    return draw


def azula(sampler: str, steps: int, smallest: float, largest: float) -> Draw:
    """A sampler of azula around a denoiser that returns the constant tensor, on its exploding noise levels."""
    from azula import denoise, noise, sample

    class Constant(denoise.Denoiser):
        schedule = noise.VESchedule(smallest, largest)

        def forward(self, x_t: Tensor, t: Tensor) -> denoise.Posterior:
            return denoise.DiracPosterior(mean=ANSWER)

    def draw(x: Tensor, generator: torch.Generator) -> Tensor:
        # It draws from torch's own generator; a seed gives the same numbers in both.
        torch.manual_seed(generator.initial_seed())
        found: Tensor = getattr(sample, sampler)(Constant(), steps=steps, silent=True)(x)
        return found

    return draw


def k_diffusion(sampler: str, sigmas: Tensor) -> Draw:
    """A sampler of k-diffusion around a denoiser that returns the constant tensor."""
    torchvision_operators.ensure_importable()
    # Its __init__ imports what training needs, a dozen packages; the samplers need two of them.
    if "k_diffusion" not in sys.modules:
        spec = find_spec("k_diffusion")
        assert spec is not None
        sys.modules["k_diffusion"] = module_from_spec(spec)
    from k_diffusion import sampling

    def draw(x: Tensor, generator: torch.Generator) -> Tensor:
        found: Tensor = getattr(sampling, sampler)(lambda *_: ANSWER, x, sigmas, disable=True)
        return found

    return draw


class Row(NamedTuple):
    """One comparison: the start's scale, the network's calls, our solver, and a peer by its package's name."""

    scale: float
    calls: int
    process: Process
    native: Native
    make: Callable[[Denoiser], Solver]
    package: str
    peer: Callable[[], Draw]
    times: Tensor | None = None

    def ways(self) -> dict[str, Draw]:
        """Ours, ours with all that a run does around a network, and the peer, if it is installed."""
        asked = self.process, self.native, self.make, self.times
        found = {"ours": ours(*asked), "ours, network": ours(*asked, network)}
        if find_spec(self.package):
            found[self.package] = self.peer()
        return found


def rows(steps: int) -> dict[str, Row]:
    """The comparisons by name."""
    chain = Discrete(schedule="linear", steps=steps)
    ve, edm = VE(low=-1, high=1, sigma_min=0.01, sigma_max=50.0), EDM()
    even, half = torch.linspace(1, 0, steps + 1, dtype=torch.float64), steps // 2

    def ancestral(threshold: str = "none") -> Callable[[Denoiser], Solver]:
        return lambda each: Ancestral(each, steps=steps, threshold=threshold)

    def ddim(threshold: str = "none") -> Callable[[Denoiser], Solver]:
        return lambda each: DDIM(each, steps=steps, threshold=threshold)

    def scheduler(name: str, clipped: bool) -> tuple[str, Callable[[], Draw]]:
        return "diffusers", lambda: diffusers(f"{name}Scheduler", steps, clip_sample=clipped)

    def exploding(name: str) -> tuple[str, Callable[[], Draw]]:
        return "azula", lambda: azula(f"{name}Sampler", steps, 0.01, 50.0)

    def by_ratio(name: str, count: int) -> tuple[str, Callable[[], Draw]]:
        sigmas = Heun(Constant(edm, "x0"), steps=count).times().float()
        return "k_diffusion", lambda: k_diffusion(f"sample_{name}", sigmas)

    return {
        "ancestral": Row(1, steps, chain, "eps", ancestral(), *scheduler("DDPM", False)),
        "ancestral, clipped": Row(
            1, steps, chain, "eps", ancestral("static"), *scheduler("DDPM", True)
        ),
        "ancestral, VE": Row(50, steps, ve, "x0", ancestral(), *exploding("DDPM"), even),
        "DDIM": Row(1, steps, chain, "eps", ddim(), *scheduler("DDIM", False)),
        "DDIM, clipped": Row(1, steps, chain, "eps", ddim("static"), *scheduler("DDIM", True)),
        "DDIM, VE": Row(50, steps, ve, "x0", ddim(), *exploding("DDIM"), even),
        "Heun": Row(
            80,
            2 * half - 1,
            edm,
            "x0",
            lambda each: Heun(each, steps=half),
            *by_ratio("heun", half),
        ),
        "DPM-Solver++(2M)": Row(
            80,
            steps,
            edm,
            "x0",
            lambda each: DPMSolver(each, steps=steps),
            *by_ratio("dpmpp_2m", steps),
        ),
    }


class Operations(TorchDispatchMode):
    """Counts operations: all of them, and those on images."""

    def __init__(self) -> None:
        super().__init__()
        self.all, self.images = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        self.all += 1
        given = [each for each in (*args, found) if isinstance(each, Tensor)]
        self.images += any(each.shape == SHAPE for each in given)
        return found


def drawn(draw: Draw, scale: float) -> tuple[Tensor, float]:
    """The images, and the CPU seconds that they cost."""
    generator = torch.Generator().manual_seed(0)
    start = scale * torch.randn(SHAPE, generator=torch.Generator().manual_seed(2))
    begin = time.process_time()
    x = draw(start, generator)
    return x, time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="rows whose name has this")
    options = parser.parse_args()
    machine.prepare("cpu")
    print(f"{'':20} {'':14} us a call: median (least)    x of ours    operations a call (images)")
    for name, row in rows(options.steps).items():
        if options.only in name:
            compare(name, row, options.rounds)


def compare(name: str, row: Row, rounds: int) -> None:
    """Print what a call costs on each side, after a check that all end in the same images."""
    ways, images, counted = row.ways(), {}, {}
    for way, draw in ways.items():
        with Operations() as operations:
            images[way], _ = drawn(draw, row.scale)
        counted[way] = operations.all / row.calls, operations.images / row.calls
        gap = (images[way] - images["ours"]).abs().max() / images["ours"].abs().max()
        assert gap < EQUAL, f"{name}: {way} differs from ours by {gap:.1e}"
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(rounds):
        for way in list(ways)[:: -1 if turn % 2 else 1]:
            spent[way].append(1e6 * drawn(ways[way], row.scale)[1] / row.calls)
    for way, found in spent.items():
        ratios = [other / own for other, own in zip(found, spent["ours"], strict=True)]
        print(
            f"{name:20} {way:14}{statistics.median(found):14.1f} ({min(found):.1f})"
            f"{statistics.median(ratios):16.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
            f"{counted[way][0]:12.0f} ({counted[way][1]:.0f})",
            flush=True,
        )
        if way == row.package:
            report(f"solver step, {name}", way, ratios)


if __name__ == "__main__":
    main()
