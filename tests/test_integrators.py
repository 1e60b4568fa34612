"""Runge-Kutta methods: their tables' order conditions, and equations that can be solved by hand."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from toys import close

from diffbench.diffusion.core.integrators import (
    DORMAND_PRINCE,
    METHODS,
    Adaptive,
    Rate,
    State,
    Tableau,
    advance,
    attempt,
    fixed,
    second_order,
)
from diffbench.diffusion.core.process import float64

every_method = pytest.mark.parametrize("name", METHODS)


def conditions(method: Tableau, order: int, b: tuple[float, ...]) -> dict[str, float]:
    """What the rooted trees of up to ``order`` (at most 5) nodes demand of weights b: left minus right side.

    Hairer, Norsett and Wanner, table II.2.1: sum b Phi = 1/gamma.
    """
    stages = len(method.c)
    a, c, w = np.zeros((stages, stages)), np.array(method.c), np.array(b)
    for i, row in enumerate(method.a):
        a[i, : len(row)] = row
    trees = {
        1: {"1": (1 + 0 * c, 1)},
        2: {"c": (c, 2)},
        3: {"c2": (c**2, 3), "ac": (a @ c, 6)},
        4: {
            "c3": (c**3, 4),
            "c ac": (c * (a @ c), 8),
            "a c2": (a @ c**2, 12),
            "a a c": (a @ a @ c, 24),
        },
        5: {
            "c4": (c**4, 5),
            "c2 ac": (c**2 * (a @ c), 10),
            "(ac)2": ((a @ c) ** 2, 20),
            "c a c2": (c * (a @ c**2), 15),
            "a c3": (a @ c**3, 20),
            "c a a c": (c * (a @ a @ c), 30),
            "a (c ac)": (a @ (c * (a @ c)), 40),
            "a a c2": (a @ a @ c**2, 60),
            "a a a c": (a @ a @ a @ c, 120),
        },
    }
    asked = [tree for n in range(1, order + 1) for tree in trees[n].items()]
    return {name: float(w @ phi - 1 / gamma) for name, (phi, gamma) in asked}


@every_method
def test_tables_meet_the_conditions_of_their_order(name: str) -> None:
    """And a method's next order is not met; sums of fractions of size 10 at most round by 1e-14."""
    method = METHODS[name]
    met = conditions(method, method.order, method.b)
    assert max(map(abs, met.values())) < 1e-14
    if method.order < 5:
        assert max(map(abs, conditions(method, method.order + 1, method.b).values())) > 1e-3
    for c, row in zip(method.c, method.a, strict=True):
        assert sum(row) == pytest.approx(c, abs=1e-14)


@pytest.mark.parametrize("alpha", [0.5, 2 / 3, 1.0, 1.1])
def test_methods_in_two_stages_are_of_order_2_and_no_more(alpha: float) -> None:
    """Rounding of 1e-15; the conditions of order 3 miss by 1/6 or more, of the term in which no stage is the third."""
    method = second_order(alpha)
    assert max(map(abs, conditions(method, 2, method.b).values())) < 1e-15
    assert max(map(abs, conditions(method, 3, method.b).values())) >= 1 / 6 - 1e-15


def test_the_error_is_that_of_an_embedded_method_of_order_4() -> None:
    method = DORMAND_PRINCE
    embedded = tuple(b - e for b, e in zip(method.b, method.e, strict=True))
    assert max(map(abs, conditions(method, 4, embedded).values())) < 1e-14
    assert max(map(abs, conditions(method, 5, embedded).values())) > 1e-4
    # Dormand and Prince's b-hat as printed.
    printed = ["5179/57600", "0", "7571/16695", "393/640", "-92097/339200", "187/2100", "1/40"]
    assert embedded == pytest.approx([float(Fraction(each)) for each in printed], abs=1e-15)


def growth(t: torch.Tensor, x: torch.Tensor) -> Rate:
    """dx/dt = -t x with the integral of x^2: x = exp((t_0^2 - t^2)/2) x_0."""
    return Rate(-t * x, lambda: x**2)


def solution(x: torch.Tensor, t: float, s: float) -> torch.Tensor:
    return x * math.exp((t**2 - s**2) / 2)


def integral(x: torch.Tensor, t: float, s: float) -> torch.Tensor:
    """Of x^2 exp(t^2 - u^2) over u from t to s."""
    between = math.erf(s) - math.erf(t)
    return x**2 * math.exp(t**2) * math.sqrt(math.pi) / 2 * between


X = float64([1.0, -0.5, 2.0])


@every_method
@pytest.mark.parametrize(("t", "s"), [(0.5, 2.0), (2.0, 0.5)])
def test_fixed_steps_converge_with_their_order(name: str, t: float, s: float) -> None:
    """In both directions of time, and so does the integral, whose weights are the same; where its leading terms
    cancel, with more.

    The slope over two doublings is within 0.15: see ``test_affine::test_order_of_convergence``.
    """
    method, counts, errors = METHODS[name], (32, 64, 128), []
    for steps in counts:
        times = torch.linspace(t, s, steps + 1, dtype=torch.float64)
        end = fixed(method, growth, State(times[0], X, torch.zeros_like(X)), times)
        deviations = end.x - solution(X, t, s), end.integral - integral(X, t, s)
        errors.append([float(each.norm()) for each in deviations])
        assert float(end.t) == s
    of_x, of_integral = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(of_x + method.order) <= 0.15
    assert of_integral + method.order <= 0.15


def test_the_last_stage_is_the_next_steps_first() -> None:
    """Six new calls a step of Dormand and Prince's, and the same answer as without the stage."""
    calls = []

    def counted(t: torch.Tensor, x: torch.Tensor) -> Rate:
        calls.append(float(t))
        return growth(t, x)

    first = advance(DORMAND_PRINCE, counted, State(float64(0.2), X), float64(0.5))
    assert len(calls) == 7
    second = advance(DORMAND_PRINCE, counted, first, float64(0.9))
    assert len(calls) == 13
    afresh = advance(DORMAND_PRINCE, growth, State(first.t, first.x), float64(0.9))
    close(second.x, afresh.x, rtol=1e-15, atol=0)


def test_the_integral_is_asked_for_once_a_step_is_taken_and_where_it_counts() -> None:
    """Not at stages of weight 0, and not by a step that is only tried."""
    asked = []

    def rate(t: torch.Tensor, x: torch.Tensor) -> Rate:
        return Rate(-x, lambda: asked.append(float(t)) or x)

    tried = attempt(DORMAND_PRINCE, rate, State(float64(0.0), X, torch.zeros_like(X)), float64(1.0))
    assert asked == []
    tried.accepted()
    assert asked == pytest.approx([0, 3 / 10, 4 / 5, 8 / 9, 1])


@pytest.mark.parametrize(("t", "s"), [(0.0, 3.0), (3.0, 0.0)])
def test_the_adaptive_method_keeps_its_tolerance(t: float, s: float) -> None:
    """A step's error is at most tol (1 + |x|): x grows by exp(4.5) at most, and what is made on the way with it.

    n steps then add up to n tol (1 + e^4.5 |x|).  Every decade reduces what is left at the end.
    """
    errors, largest = [], math.exp(4.5)
    for tolerance in (1e-4, 1e-6, 1e-8):
        method = Adaptive(tolerance, tolerance)
        states = list(method.states(growth, State(float64(t), X, torch.zeros_like(X)), float64(s)))
        end = states[-1]
        error = float((end.x - solution(X, t, s)).abs().max())
        assert error <= len(states) * tolerance * (1 + 2 * largest)
        assert float(end.t) == s
        moved = [float(state.t) for state in states]
        assert moved == sorted(moved, reverse=s < t)
        same = method.integrate(growth, State(float64(t), X, torch.zeros_like(X)), float64(s))
        close(same.x, end.x, rtol=0, atol=0)
        errors.append([error, float((end.integral - integral(X, t, s)).abs().max())])
    for before, after in pairwise(errors):
        assert all(b < a / 20 for a, b in zip(before, after, strict=True))


def test_steps_follow_the_equation() -> None:
    """x' = -x (1 + 50 exp(-(t - 1)^2/0.005)) is fast around 1 alone: the shortest steps are there."""

    def rate(t: torch.Tensor, x: torch.Tensor) -> Rate:
        return Rate(-x * (1 + 50 * torch.exp(-((t - 1) ** 2) / 0.005)))

    states = Adaptive(1e-6, 1e-9).states(rate, State(float64(0.0), X), float64(2.0))
    times = np.array([0.0, *(float(state.t) for state in states)])
    steps, middles = np.diff(times), (times[1:] + times[:-1]) / 2
    assert steps[np.abs(middles - 1) < 0.1].max() < steps[np.abs(middles - 1) > 0.4][:-1].max() / 3


def test_nothing_to_do_is_one_step_that_grows() -> None:
    """F = 0 has no error: steps of ten times the last until the end."""
    still = Adaptive(1e-5, 1e-5).integrate(
        lambda t, x: Rate(torch.zeros_like(x)), State(float64(1.0), X), float64(0.0)
    )
    close(still.x, X, rtol=0, atol=0)
    assert float(still.t) == 0


def not_finite(t: torch.Tensor, x: torch.Tensor) -> Rate:
    return Rate(-x if t > 0.5 else x * torch.nan)


def jumps(t: torch.Tensor, x: torch.Tensor) -> Rate:
    """No step across 0.5 has a small error, however short."""
    return Rate(torch.where(t > 0.5, 1.0, 1e30) * torch.ones_like(x))


BAD = [
    (not_finite, 10_000, r"^step \d+, to time 0\.\d+: the state is not finite$"),
    (jumps, 10_000, r"^the step at time 0\.5\d* became too short: \S+$"),
    (
        lambda t, x: Rate(-50 * (x - t.sin())),
        3,
        r"^rtol, atol: the solver is still at time \S+ after 3 steps$",
    ),
]


@pytest.mark.parametrize(("rates", "most", "message"), BAD)
def test_what_goes_wrong_is_said_in_one_line_with_the_time(rates, most: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Adaptive(1e-6, 1e-6, most).integrate(rates, State(float64(1.0), X), float64(0.0))


def test_fixed_steps_that_are_not_finite_stop_with_their_time() -> None:
    times = torch.linspace(1, 0, 5, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"^step 3 of 4, to time 0.25: the state is not finite$"):
        fixed(METHODS["euler"], not_finite, State(times[0], X), times)
