"""Cards of published checkpoints (``config/checkpoints.yaml``): what each is, and where it can be fetched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from diffbench.plan.reading import nearest, read, validated
from diffbench.pretrained.families import FAMILIES
from diffbench.specs.base import Spec
from diffbench.specs.errors import PlanError
from diffbench.store.downloads import PublishedFile

CARDS = Path("config") / "checkpoints.yaml"


class CheckpointCard(Spec):
    """A published checkpoint.

    family: whose layout the file has.
    url: its address.
    sha256: of the file, 64 hexadecimal digits, or ``unknown`` where nobody is known to state it.
    stated_by: who states it, if not the publisher.
    paper: the key of the paper in ``config/papers.yaml``.
    about: what was trained on which data, in a line.
    process: the process that a variant with these weights has.
    """

    family: str
    url: Annotated[str, Field(pattern=r"^(https|file)://")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | Literal["unknown"]
    stated_by: str = ""
    paper: str
    about: str
    process: dict[str, Any]

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.family not in FAMILIES:
            raise ValueError(f"family: no family {self.family!r}{nearest(self.family, FAMILIES)}")
        if self.stated_by and self.sha256 == "unknown":
            raise ValueError("stated_by: nobody states an sha256 that is unknown")
        return self

    def file(self, name: str) -> PublishedFile:
        """Return the file of the card of that name."""
        sha256 = None if self.sha256 == "unknown" else self.sha256
        return PublishedFile(
            f"the checkpoint {name}", self.url, sha256, None, f"diffbench import {name} FILE"
        )


def cards(repository: Path) -> dict[str, CheckpointCard]:
    """Return the cards by name; none where the file does not exist.

    Raises:
        PlanError: when a card is not whole, with its line.
    """
    path = repository / CARDS
    if not path.is_file():
        return {}
    adapter = TypeAdapter(dict[str, CheckpointCard])
    return validated(adapter.validate_python, CheckpointCard, read(path))


def card(name: str, known: Mapping[str, CheckpointCard]) -> CheckpointCard:
    """Return the card of that name among those that are known.

    Raises:
        PlanError: when there is none, with what is near.
    """
    if name not in known:
        near = nearest(name, {**known, **FAMILIES})
        raise PlanError(
            f"{name!r} is neither a checkpoint (diffbench list checkpoints) nor a family with a FILE{near}"
        )
    return known[name]
