"""Training state that survives kills, torn files and flipped bits.

A state is a mapping of tensors: ``model.*``, ``ema.*``, ``optimiser.*``, ``rng.*`` and ``step``, and whatever else the
training learns on its way (``times.*``, ``scale.*``).
Each is one safetensors file whose name carries its step and the first 16 digits of its SHA-256,

    state-{step:09d}-{sha256[:16]}.safetensors

so one rename publishes content and checksum together.  The two newest are kept; when the newest
does not fit its name the one before it is used, with a warning.  Weights of earlier steps, which become
products when the training ends, wait in files of the same kind, ``kept-{step:09d}-{index}-{sha256[:16]}.safetensors``.
``spec.json`` says which job the folder belongs to, ``events.jsonl`` what happened there over all attempts; each of its
lines is a record with a seal (``seals``), and one that does not fit is left out.
"""

from __future__ import annotations

import fcntl
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffbench.specs.base import Spec
from diffbench.store import files
from diffbench.store.products import StoreError, difference
from diffbench.store.seals import opened, sealed

if TYPE_CHECKING:
    from torch import Tensor

#: What the state of a network's training has; that of the extractor, which is not averaged, has no ``ema``.
PARTS = ("model", "ema", "optimiser", "rng")
GENERATIONS = 2
SPEC, EVENTS, LOCK = "spec.json", "events.jsonl", "lock"
_NAME = re.compile(r"state-(\d{9,})-([0-9a-f]{16})\.safetensors")
_CHECKED = re.compile(r"(state|kept|chunk)-[\d-]+-[0-9a-f]{16}\.\w+")
_KEPT = re.compile(r"kept-(\d{9,})-(\d+)-([0-9a-f]{16})\.safetensors")


def _age(path: Path) -> tuple[int, int]:
    """Return the order of a state: by step, and by time where a run reached the same step twice."""
    return step_of(path), path.stat().st_mtime_ns


def generations(folder: Path) -> list[Path]:
    """Return the state files in a folder, the newest first."""
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found, key=_age, reverse=True)


def kept(folder: Path) -> list[Path]:
    """Return the files of weights that wait for the end of the training, in the order of their steps."""
    return sorted(path for path in folder.iterdir() if _KEPT.fullmatch(path.name))


def is_named(path: Path) -> bool:
    """Say whether a file has a checksum in its name: a state, weights that are kept, a chunk of samples."""
    return _CHECKED.fullmatch(path.name) is not None


def step_of(path: Path) -> int:
    """Return the step of a state."""
    return int(path.stem.split("-")[1])


def is_whole(path: Path) -> bool:
    """Say whether a state file has the checksum in its name."""
    return files.sha256(path)[:16] == path.stem.rpartition("-")[2]


def spec_of(folder: Path) -> dict[str, Any]:
    """Return the spec that a state folder says it belongs to.

    Raises:
        ValueError: when what it says is damaged.
    """
    try:
        return dict(opened((folder / SPEC).read_bytes(), folder.name)["spec"])
    except (OSError, KeyError, TypeError) as error:
        raise ValueError(f"it has no spec ({type(error).__name__})") from None


def event_lines(folder: Path) -> list[tuple[bytes, dict[str, Any] | None]]:
    """Return the lines of a folder's events with what they say; None for one that is damaged."""
    try:
        lines = (folder / EVENTS).read_bytes().split(b"\n")
    except OSError:
        return []
    return [(line, _event(line, folder.name)) for line in lines if line]


def _event(line: bytes, of: str) -> dict[str, Any] | None:
    try:
        return opened(line, of)
    except ValueError:
        return None


def by_part(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of a state by the first word of their names, each under the rest of its name."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, each in tensors.items():
        part, _, inner = name.partition(".")
        parts.setdefault(part, {})[inner] = each
    return parts


def missing_part(names: set[str], parts: Sequence[str] = PARTS) -> str | None:
    """Return the name of the first part that a state lacks; None when it is complete."""
    present = {name.partition(".")[0] for name in names if "." in name}
    return next((part for part in parts if part not in present), None) or (
        None if "step" in names else "step"
    )


class StateStore:
    """The folder of one job's training state.

    Args:
        folder: ``{root}/.state/{digest of the spec}``; made when missing.
        spec: the job's spec.
        parts: what a state must have besides ``step``.

    Raises:
        StoreError: when the folder belongs to another spec, with the key that differs.
    """

    def __init__(self, folder: Path, spec: Spec, parts: Sequence[str] = PARTS) -> None:
        self.folder = folder
        self.spec = spec
        self.parts = parts
        self._claim()

    def _claim(self) -> None:
        stored, wanted = self.folder / SPEC, self.spec.model_dump(mode="json")
        if not stored.exists():
            files.write_json(stored, sealed({"spec": wanted}, self.folder.name))
            return
        try:
            found = spec_of(self.folder)
        except ValueError as error:
            # The folder's name and the states' own are enough to go on from them.
            raise StoreError(
                f"{stored} is unreadable, {error}: remove it (diffbench doctor --fix does) and run the command again"
            ) from None
        if reason := difference(found, wanted):
            raise StoreError(f"training state {self.folder} was {reason}: {self._remedy}")

    @property
    def _remedy(self) -> str:
        return f"remove the folder {self.folder} to train from the start"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process.

        Raises:
            StoreError: when another process holds it.
        """
        with (self.folder / LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreError(
                    f"another process is training in {self.folder}: wait for it or stop it"
                ) from None
            yield

    def load(self, before: int | None = None) -> dict[str, Tensor] | None:
        """Return the newest state that is whole; None when none was ever saved.

        Args:
            before: only states of earlier steps count; all states by default.

        Raises:
            StoreError: when no saved state is whole, or the newest whole one lacks a part.
        """
        saved = [
            path for path in generations(self.folder) if before is None or step_of(path) < before
        ]
        for path in saved:
            if is_whole(path):
                return self._read(path)
            warnings.warn(f"training state {path} is torn: trying the one before it", stacklevel=2)
        if saved:
            raise StoreError(f"no training state in {self.folder} is whole: {self._remedy}")
        return None

    def _read(self, path: Path) -> dict[str, Tensor]:
        from safetensors.torch import load_file

        tensors: dict[str, Tensor] = load_file(path)
        if part := missing_part(set(tensors), self.parts):
            raise StoreError(f"training state {path} lacks {part}: {self._remedy}")
        return tensors

    def discard(self, step: int) -> None:
        """Remove the states from a step on, because weights that were kept before them are lost."""
        for path in generations(self.folder):
            if step_of(path) >= step:
                warnings.warn(
                    f"training state {path} is removed: the snapshot of step {step} is torn or missing",
                    stacklevel=2,
                )
                path.unlink()

    def kept(self, step: int, index: int) -> Path | None:
        """Return the path of the weights that wait under a step and number, if whole; None when there are none."""
        found = self.folder.glob(f"kept-{step:09d}-{index}-*.safetensors")
        return next((path for path in found if _KEPT.fullmatch(path.name) and is_whole(path)), None)

    def keep(self, tensors: dict[str, Tensor], step: int, index: int) -> None:
        """Keep weights of a step under a number, in place of earlier ones."""
        before = set(self.folder.glob(f"kept-{step:09d}-{index}-*.safetensors"))
        path = self._publish(tensors, f"kept-{step:09d}-{index}")
        for old in before - {path}:
            old.unlink()

    def _publish(self, tensors: dict[str, Tensor], name: str) -> Path:
        from safetensors.torch import save_file

        with files.temporary(self.folder / "state.safetensors") as unfinished:
            save_file({name: each.contiguous() for name, each in tensors.items()}, unfinished)
            path = self.folder / f"{name}-{files.sha256(unfinished)[:16]}.safetensors"
            files.publish(unfinished, path)
        return path

    def save(self, tensors: dict[str, Tensor], step: int) -> Path | None:
        """Save a state as the newest and drop all but the two newest.

        Raises:
            ValueError: when the state lacks a part.
        """
        import torch

        tensors = {**tensors, "step": torch.tensor(step)}
        if part := missing_part(set(tensors), self.parts):
            raise ValueError(f"a training state needs {part}")
        path = self._publish(tensors, f"state-{step:09d}")
        for old in generations(self.folder)[GENERATIONS:]:
            old.unlink()
        return path

    def event(self, name: str, **values: Any) -> None:
        """Append one line to ``events.jsonl``."""
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": name, **values}
        path = self.folder / EVENTS
        cut = path.exists() and not path.read_bytes().endswith(b"\n")
        with path.open("a") as file:
            file.write("\n" * cut + json.dumps(sealed(line, self.folder.name)) + "\n")

    def events(self) -> list[dict[str, Any]]:
        """Return all events; a line that is damaged, or that a kill cut short, is left out."""
        return [event for _, event in event_lines(self.folder) if event is not None]


class SpectatorStore(StateStore):
    """The folder of another process's training state: it is read here, and nothing is written."""

    def _claim(self) -> None:
        """Do nothing: the other process claims the folder."""

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Do nothing: the other process holds the folder."""
        yield

    def load(self, before: int | None = None) -> dict[str, Tensor] | None:
        """Return the newest state that is whole; None also while there is no folder."""
        return super().load(before) if self.folder.is_dir() else None

    def discard(self, step: int) -> None:
        """Do nothing."""

    def keep(self, tensors: dict[str, Tensor], step: int, index: int) -> None:
        """Do nothing."""

    def save(self, tensors: dict[str, Tensor], step: int) -> None:
        """Do nothing."""

    def event(self, name: str, **values: Any) -> None:
        """Do nothing."""
