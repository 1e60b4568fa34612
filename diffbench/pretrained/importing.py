"""From an official checkpoint to a folder with ``model.safetensors`` and ``spec.json``, which a variant can name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from diffbench.networks.parameters import parameters
from diffbench.pretrained.checkpoints import read
from diffbench.pretrained.conversion import CheckpointError, converted, first_of
from diffbench.pretrained.families import Layout, family
from diffbench.pretrained.own import COLON, layout_of
from diffbench.pretrained.scheduler import Told
from diffbench.specs.denoisers import DenoiserSpec
from diffbench.specs.imported import ImportedSpec
from diffbench.store import files, paths
from diffbench.store.pickles import LONGEST
from diffbench.store.products import StoreError, read_sidecar, write_product
from diffbench.store.status import one_line

#: The name under which improved-diffusion and guided-diffusion save an average.
OFFICIAL_AVERAGE = re.compile(r"(.*_)?ema_0\.\d+_\d+\.pt")
#: The family of a benchmark's own networks, in specs.
OWN = "own"
#: The errors that unexpected tensors may cause while sizes are read from them.
STUMBLES = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError)


def import_checkpoint(
    family_name: str,
    file: Path,
    folder: Path | None = None,
    name: str = "",
    denoiser: Mapping[str, Any] | None = None,
    repository: Path | None = None,
) -> tuple[Path, ImportedSpec]:
    """Read a checkpoint, convert its weights, and write them with their spec; return the folder and the spec.

    Args:
        family_name: the family whose layout it has; see `families`.  ``BENCHMARK:VARIANT`` is the layout of that
            variant's network (`own`).
        file: the checkpoint.
        folder: where to write; ``models/NAME`` when not given.
        name: the model's name; the file's name without its suffix when not given.
        denoiser: keys of the denoiser that differ from the family's assumption, such as what the network predicts:
            the weights do not say it.
        repository: the folder of the Snakefile, for a benchmark; the working directory when not given.

    Raises:
        PlanError: when there is no such family or variant.
        CheckpointError: when the file cannot be read safely or is not of the family, when a key or a shape does not
            fit, when a weight is not finite, or when the folder holds something else; nothing is written then.
    """
    own = layout_of(family_name, repository or Path()) if COLON in family_name else None
    layout = own or family(family_name).layout()
    name = name or file.stem
    folder = folder or Path("models") / name
    _check_free(folder)
    contents = read(file)
    if told := _beside(layout, file):
        denoiser = {**told.denoiser, **(denoiser or {})}
    called = OWN if own else family_name
    spec, tensors = described(called, contents, file, files.sha256(file), name, denoiser, layout)
    write_product(paths.imported(folder), lambda path: save_file(tensors, path), spec)
    return folder, spec


def process_beside(family_name: str, file: Path) -> dict[str, Any] | None:
    """The process that files beside a checkpoint say; None where they say none.

    Raises:
        PlanError: when there is no such family.
        CheckpointError: when such a file cannot be read, or has what no process of ours has.
    """
    told = None if COLON in family_name else _beside(family(family_name).layout(), file)
    return told.process if told else None


def _beside(layout: Layout, file: Path) -> Told | None:
    """What files beside a checkpoint say of it, in the families that have such files."""
    beside: Callable[[Path], Told | None] | None = getattr(layout, "beside", None)
    return beside(file) if beside else None


def described(
    family_name: str,
    contents: Mapping[str, Any],
    file: Path,
    sha256: str,
    name: str = "",
    denoiser: Mapping[str, Any] | None = None,
    layout: Layout | None = None,
) -> tuple[ImportedSpec, dict[str, Tensor]]:
    """The spec of a checkpoint, and the tensors of our network.

    Args:
        family_name: the family whose layout it has.
        contents: the content of the file.
        file: the path of the file.
        sha256: the file's checksum.
        name: the model's name.
        denoiser: keys of the denoiser that differ from the family's assumption.
        layout: the family's, where it has been imported already.

    Raises:
        CheckpointError: when the contents are not of the family, or a key, a shape or a number is wrong.
    """
    layout = layout or family(family_name).layout()
    try:
        state = layout.weights(contents)
        architecture = layout.architecture(state)
        network = architecture.skeleton
        rules, ignored = layout.rules(architecture), layout.ignored(architecture)
        tensors = converted(state, rules, network, ignored)
        check_finite(tensors)
        keys = {**architecture.denoiser, **_stated(layout, contents), **(denoiser or {})}
        spec = ImportedSpec(
            name=name or file.stem,
            family=family_name,
            source=layout.SOURCE,
            file=file.name,
            sha256=sha256,
            ema=_averaged(contents, file),
            network=architecture.network,
            denoiser=DenoiserSpec.choose(keys),
            image_shape=architecture.image_shape,
            in_channels=architecture.in_channels,
            out_channels=architecture.out_channels,
            classes=architecture.classes,
            parameters=parameters(network),
        )
    except ValidationError as error:
        first = error.errors()[0]
        reason = ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
        raise CheckpointError(f"{file} as {family_name}: {reason}") from None
    except CheckpointError as error:
        raise CheckpointError(f"{file} as {family_name}: {error}") from None
    except STUMBLES as error:
        reason = f"its tensors do not have the shapes of that family ({one_line(error, LONGEST)})"
        raise CheckpointError(f"{file} as {family_name}: {reason}") from error
    return spec, tensors


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not finite.

    Raises:
        CheckpointError: naming the first of them.
    """
    if broken := [name for name, each in tensors.items() if not bool(each.isfinite().all())]:
        raise CheckpointError(f"{first_of(broken)}: some numbers are not finite")


def _stated(layout: Layout, contents: Mapping[str, Any]) -> Mapping[str, Any]:
    """Keys of the denoiser that a file gives outside its weights, in the families whose files do."""
    stated = getattr(layout, "parameterisation", None)
    return stated(contents) if stated else {}


def _averaged(contents: Mapping[str, Any], file: Path) -> bool | None:
    """Whether the weights are averages, by what the file holds or by its official name; None where neither says so.

    Only the whole name that official code gives its averages counts, `ema_RATE_STEP.pt`: any other name is a user's.
    """
    return True if "ema" in contents or OFFICIAL_AVERAGE.fullmatch(file.name) else None


def _check_free(folder: Path) -> None:
    """Refuse a folder that holds a model which was not imported, such as a run's."""
    path = paths.imported(folder)
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file, and must be a folder")
    if not path.exists() and not paths.sidecar(path).exists():
        return
    try:
        ImportedSpec.model_validate(read_sidecar(path)["spec"])
    except (StoreError, ValidationError):
        raise CheckpointError(
            f"{folder} holds something other than an imported model: name another folder"
        ) from None
