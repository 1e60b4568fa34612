"""The columns of an export: their types and what they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from diffbench.reporting import untrusted
from diffbench.specs.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

#: The name of the format, and its version.
FORMAT, VERSION = "diffbench-records", 1
#: Column -> its type in JSON's words, and what it is.
COLUMNS: Mapping[str, tuple[str, str]] = {
    "benchmark": ("string", "the benchmark's name"),
    "variant": ("string", "the variant's id; truth for the true images of restorations"),
    "seed": ("integer", "the seed of training and of all that follows"),
    "stage": ("string", "the stage that made the number"),
    "item": ("string", "a solver, a likelihood, task/restorer or an analysis"),
    "at": ("integer", "the step of the weights, where the item names one"),
    "metric": ("string", "the metric; empty where the job failed"),
    "value": ("number", "the number, in the metric's unit"),
    "se": ("number", "its standard error over samples or test images"),
    "floor": ("number", "what as many real images score"),
    "samples": ("integer", "images behind the number"),
    "nfe": ("number", "calls of the network for each image"),
    "seconds": ("number", "wall time of training and of the job, in seconds"),
    "gpu_seconds": ("number", "the part of it on a GPU, in seconds"),
    "protocol": ("string", "how the number was made: data, extractor, reference, precision"),
    "spec": ("string", "hash of the job's spec"),
    "sha256": ("string", "SHA-256 of the file that has the number"),
    "commit": ("string", "commit of the code that ran the job; -dirty with uncommitted changes"),
    "device": ("string", "what the job ran on"),
    "status": ("string", "ok, failed, stale or missing"),
    "reason": ("string", "why there is no number"),
    "check": ("string", "the first 8 digits of the SHA-256 of the row's other fields"),
}
CHECK = "check"
#: The columns that a row's checksum is of.
CHECKED = tuple(name for name in COLUMNS if name != CHECK)


class ExportError(UserError, ValueError):
    """A file is not an export, or was changed after it was written."""


def schema() -> dict[str, Any]:
    """Return the JSON schema of a row of an export, whose empty fields are null."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"A row of {FORMAT}, version {VERSION}",
        "type": "object",
        "additionalProperties": False,
        "required": list(COLUMNS),
        "properties": {
            name: {"type": [kind, "null"], "description": text}
            for name, (kind, text) in COLUMNS.items()
        },
    }


def typed(found: Sequence[Mapping[str, str]]) -> pd.DataFrame:
    """Return rows of text as a table: numbers as float, NaN where there is none; the seed as int; printable words."""
    import pandas as pd

    frame = pd.DataFrame(found, columns=list(COLUMNS))
    numbers = [name for name, (kind, _) in COLUMNS.items() if kind != "string"]
    words = [name for name in COLUMNS if name not in numbers]
    return frame.assign(
        **{name: pd.to_numeric(frame[name]) for name in numbers},
        **{name: frame[name].map(untrusted.printable) for name in words},
    ).astype({name: float for name in numbers if name != "seed"} | {"seed": int})
