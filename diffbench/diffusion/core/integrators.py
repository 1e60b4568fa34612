r"""Explicit Runge-Kutta methods for dx/dt = F(t, x), with an integral int G(t, x) dt carried along.

    k_i = F(t + c_i h, x + h sum_j a_ij k_j),     x' = x + h sum_i b_i k_i,     err = h sum_i e_i k_i

The methods are Euler's, those of order 2 in two stages (Heun's is one), the classical one of order 4, and Dormand and
Prince's pair of orders 5 and 4 (Dormand & Prince 1980, "A family of embedded Runge-Kutta formulae", table 2).  The
pair's error estimate e = b - b' controls the step (Hairer, Norsett & Wanner 1993, "Solving Ordinary Differential
Equations I", section II.4), and its last stage is the first stage of the next step.

The integral has the same weights b as x.  G may cost more than F, so it is computed only when a step is accepted, and
not at stages with b_i = 0.  Times are float64 of shape (); h is negative where time runs backwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


class Rate(NamedTuple):
    """The rate F at a stage, of x's shape, and a function that computes G there; None without an integral."""

    x: Tensor
    integral: Callable[[], Tensor] | None = None


#: The function of (t, x) that gives F and G there.
Field = Callable[[Tensor, Tensor], Rate]


@dataclass(frozen=True)
class Tableau:
    """The coefficients of a method: c, a (row i has i entries), b, and e if it has an error estimate.

    ``order`` is the order of the solution.  ``reused`` says that the last stage is the first stage of the next step.
    """

    order: int
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    e: tuple[float, ...] = ()
    reused: bool = False


EULER = Tableau(1, (0.0,), ((),), (1.0,))


def second_order(alpha: float) -> Tableau:
    """The two-stage method of order 2 with its second stage at t + alpha h: 1 is Heun's, 1/2 the midpoint method."""
    return Tableau(2, (0.0, alpha), ((), (alpha,)), (1 - 1 / (2 * alpha), 1 / (2 * alpha)))


HEUN = second_order(1.0)
RK4 = Tableau(
    4,
    (0.0, 0.5, 0.5, 1.0),
    ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)),
    (1 / 6, 1 / 3, 1 / 3, 1 / 6),
)
_DP_B = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
DORMAND_PRINCE = Tableau(
    5,
    (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    (
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        _DP_B,
    ),
    (*_DP_B, 0.0),
    (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    reused=True,
)
METHODS = {"euler": EULER, "heun": HEUN, "rk4": RK4, "dormand-prince": DORMAND_PRINCE}


@dataclass
class State:
    """The state x and the integral at a time t; ``rate`` is the rate there, if the method already has it."""

    t: Tensor
    x: Tensor
    integral: Tensor | None = None
    rate: Rate | None = field(default=None, repr=False)


@dataclass
class Attempt:
    """A computed step, before its integral is computed.

    ``error`` is the estimated error of x; None for a method without an estimate.
    """

    method: Tableau
    before: State
    t: Tensor
    x: Tensor
    stages: list[Rate]
    error: Tensor | None

    def accepted(self) -> State:
        """The state at the end of the step, with its integral.

        Raises:
            ValueError: when the integral is not finite; the message has the time.
        """
        integral = self.before.integral
        for weight, stage in zip(self.method.b, self.stages, strict=True):
            if integral is not None and weight != 0 and stage.integral is not None:
                part = stage.integral()
                integral = integral + ((self.t - self.before.t) * weight).to(part.dtype) * part
        if integral is not None:
            check_finite(integral, at_time(self.t))
        return State(self.t, self.x, integral, self.stages[-1] if self.method.reused else None)


def combined(weights: tuple[float, ...], rates: Sequence[Rate], h: Tensor) -> Tensor | None:
    """The sum h sum_i w_i F_i over the first stages; None where all weights are 0."""
    total: Tensor | None = None
    for weight, rate in zip(weights, rates, strict=False):
        if weight != 0:
            part = (h * weight).to(rate.x.dtype) * rate.x
            total = part if total is None else total + part
    return total


def attempt(method: Tableau, rates: Field, state: State, s: Tensor, eager: bool = False) -> Attempt:
    """The step from a state to time s; ``eager`` computes each stage's G at once, so that less is kept in memory."""
    h = s - state.t
    stages = [] if state.rate is None else [state.rate]
    for i in range(len(stages), len(method.c)):
        change = combined(method.a[i], stages, h)
        x = state.x if change is None else state.x + change
        rate = rates(state.t + method.c[i] * h, x)
        stages.append(known(rate) if eager and method.b[i] != 0 else rate)
    change = combined(method.b, stages, h)
    assert change is not None
    return Attempt(method, state, s, state.x + change, stages, combined(method.e, stages, h))


def known(rate: Rate) -> Rate:
    """The rate with its G already computed."""
    if rate.integral is None:
        return rate
    value = rate.integral()
    return Rate(rate.x, lambda: value)


def advance(method: Tableau, rates: Field, state: State, s: Tensor) -> State:
    """The state after one step to time s."""
    return attempt(method, rates, state, s).accepted()


def fixed(method: Tableau, rates: Field, state: State, times: Tensor) -> State:
    """The state after one step to each of the times after the first, float64 (n + 1,)."""
    for i, s in enumerate(times[1:], start=1):
        state = attempt(method, rates, state, s, eager=True).accepted()
        check_finite(state.x, f"step {i} of {len(times) - 1}, to time {float(s):.6g}")
    return state


class Adaptive:
    """Dormand and Prince's pair with step size control.

    A step is accepted if its error norm is at most 1: the root mean square over all of x of
    error/(atol + rtol max(|x|, |x'|)).  The next step has the length that would have made this norm 0.9^5, limited to
    between a fifth and ten times the last length.

    Attributes:
        most: the largest number of attempted steps.
    """

    SAFETY, SHRINK, GROW = 0.9, 0.2, 10.0

    def __init__(self, rtol: float, atol: float, most: int = 10_000) -> None:
        self.rtol, self.atol, self.most = rtol, atol, most
        self.method = DORMAND_PRINCE

    def norm(self, error: Tensor, before: Tensor, after: Tensor) -> float:
        """The error norm: the root mean square of error/(atol + rtol max(|before|, |after|))."""
        scale = self.atol + self.rtol * torch.maximum(before.abs(), after.abs())
        return float((error / scale).square().mean().sqrt())

    def first_step(self, rates: Field, state: State, end: Tensor) -> tuple[State, float]:
        """The state with its rate, and the length of the first step by the rule of Hairer, Norsett and Wanner.

        The first guess is a hundredth of |x|/|F|; the length follows from the change of F over this guess.
        """
        rate = rates(state.t, state.x)
        check_finite(rate.x, at_time(state.t))
        state = State(state.t, state.x, state.integral, rate)
        scale = self.norm(state.x, state.x, state.x), self.norm(rate.x, state.x, state.x)
        length = abs(float(end - state.t))
        guess = 1e-6 if min(scale) < 1e-5 else 0.01 * scale[0] / scale[1]
        guess = min(guess, length)
        h = math.copysign(guess, float(end - state.t))
        ahead = rates(state.t + h, state.x + h * rate.x)
        check_finite(ahead.x, at_time(state.t + h))
        curve = self.norm(ahead.x - rate.x, state.x, state.x) / guess
        largest = max(scale[1], curve)
        second = max(1e-6, guess * 1e-3) if largest <= 1e-15 else (0.01 / largest) ** 0.2
        return state, min(100 * guess, second, length)

    def states(self, rates: Field, state: State, end: Tensor) -> Iterator[State]:
        """Yield the state after each accepted step; the last one is at ``end``.

        Raises:
            ValueError: when a state is not finite, a step becomes too short or steps run out; the message has the time.
        """
        direction = 1.0 if float(end) > float(state.t) else -1.0
        state, h = self.first_step(rates, state, end)
        refused = False
        for i in range(1, self.most + 1):
            left = abs(float(end - state.t))
            reaches_end = h >= left * (1 - 1e-12)
            tried = attempt(
                self.method, rates, state, end if reaches_end else state.t + direction * h
            )
            check_finite(tried.x, f"step {i}, to time {float(tried.t):.6g}")
            assert tried.error is not None
            norm = self.norm(tried.error, state.x, tried.x)
            h = self.next_step(min(h, left), norm, refused)
            refused = norm > 1
            if not refused:
                state = tried.accepted()
                yield state
                if reaches_end:
                    return
            elif h <= 1e-14 * max(abs(float(state.t)), 1e-10):
                raise ValueError(f"the step at time {float(state.t):.6g} became too short: {h:.3g}")
        raise ValueError(
            f"rtol, atol: the solver is still at time {float(state.t):.6g} after {self.most} steps"
        )

    def next_step(self, h: float, norm: float, refused: bool) -> float:
        """The length of the step after one of length h; it does not grow just after a refused step."""
        factor = self.GROW if norm == 0 else self.SAFETY * norm**-0.2
        most = 1.0 if refused or norm > 1 else self.GROW
        return h * min(most, max(self.SHRINK, factor))

    def integrate(self, rates: Field, state: State, end: Tensor) -> State:
        """The state at ``end``."""
        for reached in self.states(rates, state, end):
            state = reached
        return state


def check_finite(x: Tensor, where: str) -> None:
    """Refuse a state with a value that is not finite.

    Raises:
        ValueError: when x has such a value; the message begins with ``where``.
    """
    # The least and the largest are NaN where any is; both are found in one pass, without a tensor of x's size.
    if x.numel() and not all(map(math.isfinite, torch.stack(torch.aminmax(x)).tolist())):
        raise ValueError(f"{where}: the state is not finite")


def at_time(t: Tensor) -> str:
    """The phrase ``at time t``, for messages."""
    return f"at time {float(t):.6g}"
