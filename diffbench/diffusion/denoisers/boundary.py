r"""Denoisers of reflected processes, and the walls' boundary condition.

The exact score of a reflected process vanishes at each wall and is odd about it.  A network's score does not vanish
there, and then the probability-flow ODE carries pixels out of the cube.  Let x be in coordinates in which the cube is
[0, 1] (``processes.reflected``), s = sigma in these coordinates, y = fold(x), and o = +-1 the branch of the fold.  Two
constructions satisfy the condition for any network F.  Outside the cube both are the odd, 2-periodic extension, so that
the field is also valid at a solver's intermediate states.

    gated            s score = o gate(y) F(2 y - 1),
                     gate(y) = sin(pi y) sqrt(1 + (pi s)^2)/sqrt(sin^2(pi y) + (pi s)^2):
                     where s is small, about y/s near a wall and 1 elsewhere; where s is large, sin(pi y)
    kernel mixture   s score = o ((1 - w) e(y | h_1) + w e(y | h_2)),  e(y | h) the kernel's s d/dy log p(y | h),
                     h_i = fold(1/2 + c_skip (y - 1/2) + c_out (F_i -+ 1/2)),
                     w = sigmoid(F_3 + log p(y | h_2) - log p(y | h_1)),
                     c_skip = d^2/(s^2 + d^2),  c_out = s d/sqrt(s^2 + d^2),  d the data's standard deviation:
                     the score of the mixture of two kernels with weights sigmoid(-+F_3)

A plain network is ``denoisers.NetworkDenoiser`` with ``predict: score``.  Two wrappers make its flow a map of the cube
onto itself, so that its likelihood belongs to a density on the cube:

    bump             e^((4 - 1/r)/width) score,  r = 1/4 - (x - 1/2)^2; 0 outside; from the official code (Lou &
                     Ermon 2023, "Reflected Diffusion Models", https://arxiv.org/abs/2304.04740)
    gate             o gate(y) score(y), with width s in the place of s in the gate: a thinner gate changes less of the
                     score, but needs shorter steps
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

from torch import Tensor

from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.core.process import Process, cast
from diffbench.diffusion.denoisers.denoiser import Denoiser, Wrapper
from diffbench.diffusion.denoisers.network import Network, NetworkBased
from diffbench.diffusion.processes.reflected import Reflected
from diffbench.diffusion.processes.reflection import fold, log_density, orientation, scaled_score
from diffbench.specs.denoisers import BoundaryDenoiserSpec, KernelMixtureSpec
from diffbench.specs.solvers import FlowSpec


class BoundaryDenoiser(NetworkBased):
    """Base of network denoisers with the walls' boundary condition.

    The network sees the folded state; outside the cube the score is the odd extension.
    """

    process: Reflected

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        """The prediction, from one call of the network."""
        in_cube = self.process.to_cube(x_t)
        inside, sigma = fold(in_cube), cast(self.process.sigma_in_cube(t), x_t)
        centred = 2 * inside - 1
        answer = self.answer(centred, x_t, t, condition, centred)
        scaled = orientation(in_cube) * self.scaled(answer, inside, sigma)
        return Prediction(self.process, x_t, t, "eps", -scaled)

    @abstractmethod
    def scaled(self, answer: Tensor, inside: Tensor, sigma: Tensor) -> Tensor:
        """The score times sigma at states ``inside`` the cube, from the network's answer."""


def gate(inside: Tensor, sigma: Tensor) -> Tensor:
    """The gate sin(pi y) sqrt(1 + (pi s)^2)/sqrt(sin^2(pi y) + (pi s)^2), y = ``inside`` in [0, 1], s = ``sigma``."""
    sine, width = (math.pi * inside).sin(), math.pi * sigma
    return sine * ((1 + width**2) / (sine**2 + width**2)).sqrt()


class Gated(BoundaryDenoiser):
    """The network's output times a gate that is 0 at the walls."""

    def __init__(
        self, spec: BoundaryDenoiserSpec, process: Process, network: Network, classes: int = 0
    ) -> None:
        super().__init__(process, network, classes)

    def scaled(self, answer: Tensor, inside: Tensor, sigma: Tensor) -> Tensor:
        """The score times sigma, gate(y) F."""
        return gate(inside, sigma) * answer


class KernelMixture(BoundaryDenoiser):
    """The score of a mixture of two kernels with predicted centres and weights."""

    def __init__(
        self, spec: KernelMixtureSpec, process: Process, network: Network, classes: int = 0
    ) -> None:
        super().__init__(process, network, classes)
        # The cube is half as wide as [-1, 1].
        self.data_std = spec.data_std / 2

    def scaled(self, answer: Tensor, inside: Tensor, sigma: Tensor) -> Tensor:
        """The mixture's score times sigma."""
        first, second, odds = answer.chunk(3, dim=1)
        total = sigma**2 + self.data_std**2
        skip, out = self.data_std**2 / total, sigma * self.data_std / total.sqrt()
        base = 0.5 + skip * (inside - 0.5)
        centres = fold(base + out * (first - 0.5)), fold(base + out * (second + 0.5))
        logs = [log_density(inside, h, sigma) for h in centres]
        scores = [scaled_score(inside, h, sigma) for h in centres]
        weight = (odds + logs[1] - logs[0]).sigmoid()
        return (1 - weight) * scores[0] + weight * scores[1]


class Shut(Wrapper):
    """A wrapper that multiplies another denoiser's score by the gate, made ``width`` times as thick.

    The result is odd about the walls for any score.
    """

    process: Reflected

    def __init__(self, denoiser: Denoiser, width: float) -> None:
        super().__init__(denoiser)
        self.width = width

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        """The inner prediction at the folded state, times the gate; outside the cube its odd extension."""
        in_cube, sigma = self.process.to_cube(x_t), cast(self.process.sigma_in_cube(t), x_t)
        inside = fold(in_cube)
        prediction = self.denoiser(self.process.from_cube(inside), t, condition)
        factor = orientation(in_cube) * gate(inside, self.width * sigma)
        return Prediction(self.process, x_t, t, prediction.native, factor * prediction.value)


class Bumped(Wrapper):
    """A wrapper that multiplies another denoiser's score by a bump function.

    The function is 1 in the middle of the cube and 0 at its walls.
    """

    process: Reflected
    #: The distance from the walls at which the official code starts.
    MARGIN: ClassVar[float] = 0.01

    def __init__(self, denoiser: Denoiser, width: float) -> None:
        super().__init__(denoiser)
        self.width = width

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        """The inner prediction times the bump; 0 outside the cube."""
        prediction = self.denoiser(x_t, t, condition)
        room = (0.25 - (self.process.to_cube(x_t) - 0.5) ** 2).clamp(min=1e-9)
        bump = ((4 - 1 / room) / self.width).exp()
        return prediction.with_value(bump * prediction.value)


def confined(denoiser: Denoiser, spec: FlowSpec) -> Denoiser:
    """The denoiser with the spec's bump or gate; the denoiser itself where the spec has neither."""
    if spec.bump is not None:
        return Bumped(denoiser, spec.bump)
    return denoiser if spec.gate is None else Shut(denoiser, spec.gate)
