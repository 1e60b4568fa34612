"""Every registered solver on every registered process: what is not refused runs, and what is refused is known."""

from collections.abc import Iterator

import pytest
import torch
from toys import chosen_process, close, exact_denoiser, made, no_noise

from diffbench.diffusion.core.condition import UNCONDITIONAL
from diffbench.diffusion.solvers.loop import sample, solve
from diffbench.specs.processes import ProcessSpec
from diffbench.specs.registry import build
from diffbench.specs.solvers import SolverSpec

SHAPE = (8, 1, 2, 2)
#: VP's chain has beta < 1 from 21 steps.
STEPS = {("reverse-diffusion", "vp"): 21}
OWN = "diffbench.specs"
IN_TIME = {"euler-maruyama", "reverse-diffusion", "langevin", "ode", "ode-adaptive"}
STABLE = {"ancestral", "ddim", "heun", "dpm-solver++", "ode-adaptive", "transport", "inverse-heat"}
CORRECTED = {"corrector": {"snr": 0.1}}


def solver_of(name: str, process: str, **settings: object) -> SolverSpec:
    """With its defaults, but no threshold and few steps, if it takes any."""
    given = {"name": name, "threshold": "none", **settings}
    if "steps" in SolverSpec.known[name].model_fields:
        given.setdefault("steps", STEPS.get((name, process), 5))
    return SolverSpec.choose(given)


def own(kind: type) -> list[str]:
    """The package's names; other tests may register more."""
    return sorted(name for name, spec in kind.known.items() if spec.__module__.startswith(OWN))


def pairings() -> Iterator[object]:
    for process in own(ProcessSpec):
        for name in own(SolverSpec):
            takes = "corrector" in SolverSpec.known[name].model_fields
            for settings in ({}, CORRECTED) if takes else ({},):
                label = "-".join([name, *settings, process])
                yield pytest.param(process, name, settings, id=label)


def refusal(process: str, name: str, settings: dict) -> str | None:
    return solver_of(name, process, **settings).refusal(chosen_process(process))


SERVED = [each for each in pairings() if refusal(*each.values) is None]
REFUSED = [each for each in pairings() if refusal(*each.values) is not None]
every_served, every_refused = (
    pytest.mark.parametrize(("process", "name", "settings"), each) for each in (SERVED, REFUSED)
)


@every_served
def test_what_is_not_refused_runs(process: str, name: str, settings: dict) -> None:
    """Eight draws of a mixture: finite, of the right shape, and within a range.

    Those that step by exact transitions, or control their steps, end in the posterior mean of a mixture whose
    means are below 0.6 and deviations below 0.32: 4 is over 10 of them away.  Four steps in time are not stable:
    Euler-Maruyama's on VE multiply x by |1 - 2 ln(5000)/4| = 3.3 each, 112 in all, of a start within 5 of the
    prior's deviations.
    """
    spec = solver_of(name, process, **settings)
    solver = build(spec, exact_denoiser(made(chosen_process(process))))
    x = sample(solver, SHAPE, torch.Generator().manual_seed(0))
    assert x.shape == SHAPE and x.dtype == torch.float32
    assert x.isfinite().all()
    assert x.abs().max() <= (4 if name in STABLE else 112 * 5 * solver.process.prior_std)


def values(pairing: object) -> tuple[str, str, dict]:
    return pairing.values


#: What each process serves of the package's solvers, where that is not all but those of blur and of walls.
OWN_SOLVERS = {"inverse-heat", "transport"}
RATIO = {"heun", "dpm-solver++"}
TRANSITIONS = {"ancestral", "ddim"}
REFUSES = {
    "discrete": (IN_TIME - {"langevin", "reverse-diffusion"}) | OWN_SOLVERS,
    "blurring": RATIO | OWN_SOLVERS,
    "reflected": RATIO | TRANSITIONS | {"inverse-heat"},
    "ihdm": RATIO | TRANSITIONS | IN_TIME | {"transport"},
}


def test_what_is_refused_is_known() -> None:
    """A chain has no SDE and no ODE, blur alone no score; one alpha a coordinate no ratio; and so on: nothing else."""
    refused = {(name, process, bool(settings)) for process, name, settings in map(values, REFUSED)}
    corrected = {name for _, name, settings in map(values, pairings()) if settings}
    want = {
        (name, process, settings)
        for process in own(ProcessSpec)
        for name in REFUSES.get(process, OWN_SOLVERS)
        for settings in ((False, True) if name in corrected else (False,))
    }
    want |= {(name, "ihdm", True) for name in corrected}
    assert refused == want


@every_refused
def test_a_refusal_says_why_in_one_line(process: str, name: str, settings: dict) -> None:
    reason = refusal(process, name, settings)
    assert process in reason or "integer times have no SDE or ODE" in reason
    assert "\n" not in reason


ENDING = sorted(
    name
    for name, spec in SolverSpec.known.items()
    if name in own(SolverSpec)
    and name not in ("langevin", "transport")
    and "steps" in spec.model_fields
)


@pytest.mark.parametrize(
    ("process", "name"),
    [
        (process, name)
        for process in own(ProcessSpec)
        for name in ENDING
        if ProcessSpec.known[process].family == "gaussian"
        and solver_of(name, process, steps=1).refusal(chosen_process(process)) is None
    ],
)
def test_one_step_is_the_posterior_mean(process: str, name: str) -> None:
    """Of the start, by whichever solver: its only step goes to the data, and draws nothing.

    Where a chain's grid would take its first level alone it is refused; sigma/alpha of EDM's grid is at most
    80: the start's level is the solver's own.
    """
    denoiser = exact_denoiser(made(chosen_process(process)))
    solver = build(solver_of(name, process, steps=1), denoiser)
    x = solver.start(torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).double())
    first, end = solver.times()
    assert end == solver.process.data_time
    close(solve(solver, x, UNCONDITIONAL, no_noise), denoiser(x, first).x0, atol=1e-9)


class Blurred:
    """A process with one alpha for each coordinate, in the eyes of a solver."""

    name, family, time, alpha = "blurred", "gaussian", "continuous", "vector"
    t_min, t_max, last = 1e-3, 1.0, 1e-3
    noise, bounded = "growing", False
    views = ProcessSpec.views
    chain_rate = langevin_rate = 0.0

    ratios = level_count = None


class Mirrored(Blurred):
    """One of another family, with one alpha."""

    name, family, alpha, bounded = "mirrored", "reflected", "scalar", True


VECTOR = "divides by alpha, and blurred has one alpha per coordinate"
FAMILY = "needs a Gaussian process, and mirrored is reflected"
HEAT = "inverse-heat needs constant noise, and the noise of {} grows"
UNSEEN = [
    (Blurred, "heun", {}, f"heun {VECTOR}"),
    (Blurred, "dpm-solver++", {}, f"dpm-solver++ {VECTOR}"),
    *[(Blurred, "ddim", {"grid": g}, f"grid: {g} {VECTOR}") for g in ("karras", "log-snr")],
    *[(Blurred, "ode", {"grid": g}, f"grid: {g} {VECTOR}") for g in ("karras", "log-snr")],
    (
        Blurred,
        "transport",
        {},
        "transport follows the kernel between walls, and blurred has no walls",
    ),
    (Blurred, "inverse-heat", {}, HEAT.format("blurred")),
    (Mirrored, "inverse-heat", {}, HEAT.format("mirrored")),
    *[(Blurred, name, {}, None) for name in ("ancestral", "ddim", *sorted(IN_TIME))],
    *[(Blurred, name, {"grid": "quadratic"}, None) for name in ("ancestral", "ddim", "ode")],
    *[(Blurred, name, CORRECTED, None) for name in ("ancestral", "ddim", "ode", "langevin")],
    (Mirrored, "heun", {}, f"heun {FAMILY}"),
    (Mirrored, "dpm-solver++", {}, f"dpm-solver++ {FAMILY}"),
    (Mirrored, "ancestral", {}, f"ancestral {FAMILY}"),
    (Mirrored, "ddim", {}, f"ddim {FAMILY}"),
    (Mirrored, "ode", {"grid": "karras"}, f"grid: karras {FAMILY}"),
    (Mirrored, "ode", {"grid": "log-snr"}, None),
    (Mirrored, "transport", {}, None),
    *[(Mirrored, name, {}, None) for name in sorted(IN_TIME)],
    *[
        (Mirrored, name, {"denoise": "tweedie"}, f"denoise: tweedie {FAMILY}")
        for name in sorted(IN_TIME)
    ],
    *[(Mirrored, name, {"denoise": "noiseless", "grid": "quadratic"}, None) for name in ("ode",)],
]


@pytest.mark.parametrize(("process", "name", "settings", "reason"), UNSEEN)
def test_processes_of_other_kinds(process, name: str, settings: dict, reason: str | None) -> None:
    """What is refused depends on what a process says of itself, not on its name."""
    assert solver_of(name, "", **settings).refusal(process()) == reason


def test_every_solver_has_a_verdict_on_them() -> None:
    for process in (Blurred, Mirrored):
        assert {name for kind, name, _, _ in UNSEEN if kind is process} == set(own(SolverSpec))
