"""The scheduler's configuration beside a checkpoint of diffusers: the process, and what the network predicts.

    scheduler_config.json                  beside the weights
    ../scheduler/scheduler_config.json     in the folder of a pipeline, whose weights are in unet/

Source: the keys of DDPMScheduler, https://huggingface.co/docs/diffusers, version 0.42.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from diffbench.diffusion.processes.discrete import Discrete
from diffbench.pretrained.conversion import CheckpointError
from diffbench.specs.errors import shown
from diffbench.store import files

NAME = "scheduler_config.json"
LARGEST = 2**20
#: diffusers' words for what a network predicts, and for a schedule -> ours.
PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
SCHEDULES = {"linear": "linear", "squaredcos_cap_v2": "cosine"}
#: Betas in float32 are within 6e-8 of their size; of two schedules that are not the same some differ by far more.
EQUAL = 1e-5


class Told(NamedTuple):
    """What a scheduler says of a model: keys of the process, and of the denoiser."""

    process: dict[str, Any]
    denoiser: dict[str, Any]


def beside(weights: Path) -> Told | None:
    """Return what the scheduler's configuration near the weights says; None where there is none.

    Raises:
        CheckpointError: when it cannot be read, or says what a process of ours does not have, with the key.
    """
    places = weights.parent / NAME, weights.parent.parent / "scheduler" / NAME
    path = next((each for each in places if each.is_file()), None)
    if path is None:
        return None
    try:
        content = json.loads(files.read_bytes(path, LARGEST))
        steps = content.get("num_train_timesteps", 1000)
        kind = content.get("prediction_type", "epsilon")
        trained = content.get("trained_betas")
        schedule = content.get("beta_schedule", "linear")
        if kind not in PREDICTIONS:
            raise ValueError(f"prediction_type: {kind}, and ours are {', '.join(PREDICTIONS)}")
        if trained is None and schedule not in SCHEDULES:
            raise ValueError(f"beta_schedule: {schedule}, and ours are {', '.join(SCHEDULES)}")
        process = _of_betas(trained) if trained else _of_name(SCHEDULES[schedule], steps, content)
        Discrete(**process)
    except (ValueError, TypeError, AttributeError, OSError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{shown(path)}: {reason}") from None
    return Told({"name": "discrete", **process}, {"predict": PREDICTIONS[kind]})


def _of_name(schedule: str, steps: int, content: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of a schedule that has a name."""
    found: dict[str, Any] = {"schedule": schedule, "steps": steps}
    if schedule == "linear":
        found["beta_first"] = content.get("beta_start", 1e-4)
        found["beta_last"] = content.get("beta_end", 0.02)
    return found


def _of_betas(betas: list[float]) -> dict[str, Any]:
    """Return the keys of the schedule that has these betas."""
    steps = len(betas)
    ends = {"beta_first": betas[0], "beta_last": betas[-1]}
    known: tuple[dict[str, Any], ...] = (
        {"schedule": "cosine", "steps": steps},
        {"schedule": "linear", "steps": steps, **ends},
    )
    for found in known:
        ours = Discrete(**found).betas.tolist()
        if all(abs(a - b) <= EQUAL * b for a, b in zip(betas, ours, strict=True)):
            return found
    raise ValueError(
        f"trained_betas: {steps} numbers that are neither linear nor those of the cosine schedule"
    )
