"""The loop of every training: steps, progress, states that are saved, and requests to stop.

A learner is what is trained: it takes a step, and its state holds all that the next step depends on.  So a training
that was killed goes on from its last state to the same bits as one that was not.
"""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from diffbench.specs.errors import Stopped, UserError
from diffbench.store import stopping
from diffbench.store.progress import Progress, Silent
from diffbench.store.state import StateStore
from diffbench.training import machine
from diffbench.training.meter import Meter
from diffbench.training.team import SingleProcess, Team

#: About how many states are saved in a training, and the seconds after which one is saved anyway.
SAVES, PATIENCE = 10, 300


class TrainingError(UserError, RuntimeError):
    """The error of a training that cannot go on."""


class Learner(Protocol):
    """What is trained.

    Attributes:
        step: the number of steps done.
        device: where it is trained.
    """

    step: int
    device: torch.device

    @property
    def name(self) -> str:
        """The name in messages."""
        ...

    @property
    def title(self) -> str:
        """The title of the progress."""
        ...

    @property
    def steps(self) -> int:
        """The number of steps of the whole training."""
        ...

    def advance(self) -> Tensor:
        """Take a step; return the loss, a scalar on the device."""
        ...

    def sound(self, loss: Tensor) -> bool:
        """Whether training can go on after a loss."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on, but for the number of steps done."""
        ...

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Continue from a saved state, which has the number of ``step``s too."""
        ...


def nothing() -> None:
    """Do nothing after a step."""


def resume(
    learner: Learner, state: StateStore, team: Team | None = None, before: int | None = None
) -> float | None:
    """Restore the newest state, if any, and return the seconds of training that led to it; None where nothing says so.

    Args:
        learner: what is trained.
        state: its states.
        team: the processes that train; this one alone by default.
        before: states from this step on are removed; None for none of them.

    Raises:
        TrainingError: when other processes of the team found another state.
    """
    team = team or SingleProcess()
    tensors = state.load(before)
    if before is not None:
        state.discard(before)
    if tensors is not None:
        learner.restore(tensors)
        if team.first:
            print(
                f"{learner.name}: resume at step {learner.step}",
                file=sys.stderr,
                flush=True,
            )
    step, size = torch.tensor(learner.step, device=learner.device), team.size
    if int(team.total(step)) != learner.step * size:
        raise TrainingError(
            f"process {team.rank} resumes at step {learner.step}, and other processes at another step: all "
            f"must see the same {state.folder}"
        )
    state.event("resume" if tensors is not None else "start", step=learner.step)
    if tensors is None:
        return 0.0
    saved = [
        event
        for event in state.events()
        if event.get("event") == "saved" and event.get("step") == learner.step
    ]
    return saved[-1].get("seconds") if saved else None


def train(
    learner: Learner,
    state: StateStore,
    earlier: float | None,
    meter: Meter,
    team: Team | None = None,
    after: Callable[[], None] = nothing,
) -> int:
    """Train to the end of the budget, saving about ten times, and return the number of steps done.

    Args:
        learner: what is trained.
        state: where its states are saved.
        earlier: the seconds of training before; None where they are not known.
        meter: of its speed.
        team: the processes that train; this one alone by default.
        after: what is done after each step.

    Raises:
        TrainingError: when the loss is no longer finite, and the budget does not allow for that.
        Stopped: when asked to stop, after saving.
    """
    team = team or SingleProcess()
    steps, first, start = learner.steps, learner.step, time.monotonic()
    every, saved_at = max(1, math.ceil(steps / SAVES)), start
    progress = Progress(learner.title, steps, "step", learner.step) if team.first else Silent()

    def save(loss: Tensor) -> None:
        if not learner.sound(loss):
            raise TrainingError(f"the loss is {float(loss)} at step {learner.step}: try a lower lr")
        speed = meter.stop(learner.step)
        state.save(learner.state(), learner.step)
        took = None if earlier is None else round(earlier + time.monotonic() - start, 3)
        facts = {"seconds": took, "loss": float(loss)}
        memory = {"memory_mib": round(machine.peak_memory(learner.device), 1)}
        state.event("saved", step=learner.step, **facts, **speed, **memory)
        meter.go(learner.step)

    while learner.step < steps:
        loss = learner.advance()
        after()
        late = time.monotonic() - saved_at > PATIENCE
        number = stopping.asked()
        late, asked = team.agreed(learner.step, late, number is not None)
        if learner.step % every == 0 or late or asked or learner.step == steps:
            save(loss)
            saved_at = time.monotonic()
        if asked and learner.step < steps:
            progress.close()
            saved = f"stopped at step {learner.step}, state saved: run the command again to go on"
            raise Stopped(number or signal.SIGTERM, f"{learner.title}: {saved}")
        progress.advance(loss=loss)
    progress.close()
    state.event("end", step=learner.step, executed=learner.step - first)
    return learner.step - first
