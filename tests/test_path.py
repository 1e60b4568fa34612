"""Tables of a path: what they hold is, to the bit, what a single evaluation gives."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from diffbench.conform.solvers import on, state
from diffbench.conform.trial import made, normal, served
from diffbench.diffusion.core.condition import UNCONDITIONAL
from diffbench.diffusion.core.path import SHORTEST, Path, columns, tabled
from diffbench.diffusion.core.process import Process, cast
from diffbench.diffusion.solvers.corrector import Noise
from diffbench.diffusion.solvers.loop import solve
from diffbench.specs.processes import ProcessSpec
from diffbench.specs.solvers import SolverSpec

PROCESSES: dict[str, dict[str, object]] = {
    "vp": {},
    "sub-vp": {},
    "ve": {},
    "edm": {},
    "vp-cosine": {},
    "vp-chain": {},
    "reflected": {},
    "ihdm": {},
    "blurring": {"sigma_max": 0.5},
    "discrete": {"schedule": "cosine", "steps": 50},
}
STEPWISE = {"transition", "posterior_variance", "posterior_mean"}


def process_of(name: str) -> Process:
    return made(ProcessSpec.choose({"name": name, **PROCESSES[name]}))


def times_of(process: Process, count: int = 41) -> Tensor:
    """Times from the most noise to the least, then the data's; levels of a chain."""
    times = torch.linspace(process.t_max, process.t_min, count, dtype=torch.float64)
    if process.spec.time == "discrete":
        times = torch.unique_consecutive(times.round())
    return torch.cat([times, torch.tensor([process.data_time], dtype=torch.float64)])


def coefficients(process: Process, times: tuple[Tensor, ...]) -> Iterator[tuple[str, int, Tensor]]:
    """Every coefficient of a process at every time or step, with its name and place."""
    for name in sorted(Process.TIMED - {"time_of", "level_before"}):
        function = getattr(process, name, None)
        asked = (
            list(zip(times, times[1:], strict=False)) if name in STEPWISE else [(t,) for t in times]
        )
        for i, each in enumerate(asked if function else ()):
            try:
                found = columns(function(*each))
            except TypeError:
                break
            for k, value in enumerate(found):
                yield f"{name} {k}", i, value


@pytest.mark.parametrize("name", PROCESSES)
def test_a_table_is_the_single_evaluations_to_the_bit(name: str) -> None:
    alone, walking = process_of(name), process_of(name)
    times = times_of(alone)
    singly = list(coefficients(alone, times.unbind()))
    together = list(coefficients(walking, walking.walk(times)))
    assert walking.path is not None and any(walking.path.tables.values())
    assert [each[:2] for each in singly] == [each[:2] for each in together]
    x = torch.zeros(1)
    for (what, i, one), (_, _, other) in zip(singly, together, strict=True):
        for a, b in ((one, other), (cast(one, x), cast(other, x))):
            assert a.dtype == b.dtype and a.shape == b.shape
            assert torch.equal(a.nan_to_num(1.5), b.nan_to_num(1.5)), f"{what} at point {i}"


def noise_of(seeds: Iterator[int]) -> Noise:
    """Noise that is another at each draw."""
    return lambda x: normal(tuple(x.shape), next(seeds), x.dtype)


@pytest.mark.parametrize(
    "name",
    [n for n, m in sorted(SolverSpec.known.items()) if m.__module__.startswith("diffbench.")],
)
def test_a_solver_gives_the_same_images_with_and_without_a_path(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"steps": 40} if "steps" in SolverSpec.known[name].model_fields else {}
    if name == "langevin":
        given["corrector"] = {"step_size": 1e-3}
    spec = SolverSpec.choose({"name": name, **given})
    ends = []
    for walks in (True, False):
        solver = on(spec, served(spec))
        if not walks:
            monkeypatch.setattr(type(solver.process), "walk", lambda self, times: times.unbind())
        x = state(solver, torch.float32)
        ends.append(solve(solver, x, UNCONDITIONAL, noise_of(iter(range(10, 10_000)))))
        path, short = solver.process.path, len(solver.times()) < SHORTEST
        assert (path is None) == (short or not walks) and (path is None or path.tables)
    assert torch.equal(*ends)


class Owner:
    """Something with a path, whose function counts its evaluations."""

    def __init__(self, path: Path) -> None:
        self.path: Path | None = path
        self.asked: list[torch.Size] = []

    @tabled
    def square(self, t: Tensor, power: int = 2) -> Tensor:
        self.asked.append(t.shape)
        return t**power

    @tabled
    def spread(self, t: Tensor) -> Tensor:
        return t * torch.ones(2, 2, dtype=torch.float64)


def test_a_function_is_evaluated_once_for_all_points() -> None:
    path = Path(torch.arange(9.0, dtype=torch.float64))
    owner = Owner(path)
    assert [float(owner.square(t)) for t in path.points] == [i**2 for i in range(9)]
    assert owner.asked == [(1, 1, 1, 1), (9, 1, 1, 1)]
    assert [float(owner.square(t, 3)) for t in path.points] == [i**3 for i in range(9)]
    assert owner.spread(path.points[2]).shape == (2, 2)


def test_a_time_that_is_no_point_of_the_path_is_evaluated() -> None:
    path = Path(torch.arange(9.0, dtype=torch.float64))
    owner = Owner(path)
    assert float(owner.square(path.times[3])) == 9 and owner.asked == [()]
    # A copy keeps the places of the original's points, which are not its own.
    owner.path = copy.deepcopy(path)
    assert owner.path.find(path.points[3]) is None
    assert float(owner.square(path.points[3])) == 9


def test_a_walk_over_the_same_times_keeps_the_tables() -> None:
    process = process_of("vp")
    times = times_of(process)
    first = process.walk(times)
    process.alpha(first[0])
    kept = process.path
    assert process.walk(times.clone())[0] is first[0] and process.path is kept
    assert process.walk(times[:2])[0] is not first[0] and process.path is kept
    assert process.walk(times[:20]) and process.path is not kept
