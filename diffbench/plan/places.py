"""Where the files of a data set and of controls lie, and what they hold.

A path is relative to the file that says it, as ``base`` and ``extensions`` are; one of the command line is relative to
the working directory.  ``~`` is the home folder.  Specs keep paths as they were written, or none where the contents of
the images are known; where the files lie goes to the data stage by the environment (``DIFFBENCH_DATA``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from diffbench.plan.reading import Tree
from diffbench.specs.benchmark import BenchmarkSpec, VariantSpec, seeds_of
from diffbench.specs.data import DataSpec, Listing
from diffbench.specs.errors import PlanError
from diffbench.store import paths, products

#: The environment variable by which jobs are told the places.
VARIABLE = "DIFFBENCH_DATA"
#: What is said of results whose images are known by their path.
BY_PATH = (
    "its images are known by their path, as an earlier version wrote it: overwritten images are not noticed; in a new "
    "results folder they are"
)
#: A file or the command line, and the folder to which its paths are relative.
Layer = tuple[Tree, Path]


@dataclass(frozen=True)
class Located:
    """A data set as specs of jobs have it, and with the paths of its files on this machine; remarks on them."""

    named: DataSpec
    here: DataSpec
    notes: tuple[str, ...] = ()
    #: The SHA-256 of the images' contents that the plan has added; None where they are known by anything else.
    contents: str | None = None
    #: SHA-256 of the contents of a control's images -> where they are.
    controls: Mapping[str, Path] = field(default_factory=dict)

    @property
    def places(self) -> dict[str, Path]:
        """Configuration key -> absolute path of a file or folder."""
        return {key: Path(path).absolute() for key, path in self.here.paths.items()}

    @property
    def told(self) -> str:
        """The places as jobs are told them by the environment (``DIFFBENCH_DATA``): JSON."""
        here = {**self.places, **self.controls}
        return json.dumps({key: str(path) for key, path in here.items()})


def located(data: DataSpec, layers: Sequence[Layer]) -> Located:
    """Find a data set's files: what was written in each key, relative to the layer that has it."""
    found, notes = {}, []
    for key, written in data.paths.items():
        place, note = _place(written, _folder(layers, key))
        found[key] = str(place)
        notes += [f"data.{key}: {note}"] if note else []
    return Located(data, data.model_copy(update=found), tuple(notes))


def _folder(layers: Sequence[Layer], key: str) -> Path:
    for tree, folder in reversed(layers):
        value = tree.part("data").value
        if isinstance(value, dict) and key in value:
            return folder
    return Path()


def _place(written: str, folder: Path) -> tuple[Path, str]:
    """Return the path and, where older versions took another, a remark."""
    path = Path(written)
    with suppress(RuntimeError):
        path = path.expanduser()
    beside = folder / path
    if _is_same(beside, path):
        return path, ""
    if not path.exists():
        return beside, ""
    if beside.exists():
        return (
            beside,
            f"{written!r} is {beside}, beside the file that says it, and not {path.absolute()}",
        )
    right = os.path.relpath(path, folder)
    return path, (
        f"{written!r} is relative to the working directory, as before; the next version takes it as relative to the "
        f"file that says it: write {right!r}"
    )


def _is_same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def identified(found: Located, root: Path) -> Located:
    """Return a data set that was known by its paths alone with the contents of its images, where they can be known.

    Without the images, as where results were copied to, they are those of the stored data set.  Results of an earlier
    version, which have the paths in their specs, keep them.

    Raises:
        PlanError: when the images cannot be listed.
    """
    data, stored = found.named, _stored(paths.dataset(root))
    if not data.known_by_path:
        return found
    written = data.model_dump(mode="json")
    if stored == written:
        note = (
            f"data: {root} knows its images by their path, as an earlier version wrote it: overwritten images are not "
            "noticed; in a new results folder they are"
        )
        return Located(data, found.here, (*found.notes, note))
    here = {key: Path(path) for key, path in found.here.paths.items()}
    contents = _contents(here, found.here.listing, "data.path")
    if (
        contents is None
        and stored.get("contents")
        and _without_place(stored) == _without_place(written)
    ):
        contents = stored["contents"]
    if contents is None:
        return found
    data = found.here.model_copy(update={"contents": contents})
    return Located(data.unplaced, data, found.notes, contents)


def _contents(places: Mapping[str, Path], listing: Listing, key: str) -> str | None:
    """Return the contents of the files at some places, ``key`` in the benchmark file; None where they are not there."""
    from diffbench.store.contents import contents  # the cache's module takes long to import

    if not places or not all(path.exists() for path in places.values()):
        return None
    try:
        return contents(places, listing)
    except (ValueError, OSError, NotImplementedError) as error:
        raise PlanError(f"{key}: {error}") from None


def with_controls(
    found: Located, variants: Mapping[str, VariantSpec], benchmark: BenchmarkSpec
) -> tuple[Located, dict[str, VariantSpec]]:
    """Return the variants with the contents of their controls' images in place of paths, and where these images are.

    As for a data set, results without their images keep their contents, and those of an earlier version their paths.

    Raises:
        PlanError: when a control's images cannot be listed.
    """
    changed, controls, notes = dict(variants), dict(found.controls), list(found.notes)
    for name, variant in variants.items():
        control = variant.control
        if control is None or not control.known_by_path:
            continue
        product = paths.control(paths.root(benchmark.name), name, seeds_of(benchmark, variant)[0])
        stored, written = _stored(product, "control"), control.model_dump(mode="json")
        if stored == written:
            notes.append(f"{name}: {BY_PATH}")
            continue
        path = Path(*control.sources)
        known = _contents({"path": path}, control.listing, f"{name}.control.path")
        if known is None and _without_place(stored) == _without_place(written):
            known = stored.get("contents")
        if known is not None:
            controls[known] = path.absolute()
            changed[name] = variant.model_copy(update={"control": control.at(None, known)})
    return replace(found, controls=controls, notes=tuple(notes)), changed


def _stored(product: Path, key: str = "data") -> dict[str, Any]:
    """Return a part of the spec of a product, as JSON; nothing where there is none."""
    try:
        return dict(products.read_sidecar(product)["spec"][key])
    except (products.StoreError, OSError, LookupError, TypeError, ValueError):
        return {}


def _without_place(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value for key, value in data.items() if key not in ("path", "test_path", "contents")
    }
