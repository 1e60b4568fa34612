"""From an official checkpoint to a folder with ``model.safetensors`` and ``spec.json``, which a variant can name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from diffbench.networks.counting import parameters
from diffbench.pretrained.conversion import Architecture, CheckpointError, converted
from diffbench.pretrained.families import Layout, family
from diffbench.pretrained.files import read
from diffbench.specs.denoiser import DenoiserSpec
from diffbench.specs.imported import ImportedSpec
from diffbench.store import files, paths
from diffbench.store.products import StoreError, read_sidecar, write_product

#: How errors name keys at most.
SHOWN = 3


def import_checkpoint(
    family_name: str,
    file: Path,
    folder: Path | None = None,
    name: str = "",
    denoiser: Mapping[str, Any] | None = None,
) -> tuple[Path, ImportedSpec]:
    """Read a checkpoint, convert its weights, and write them with their spec; the folder, and the spec.

    Args:
        family_name: whose layout it has; see `families`.
        file: the checkpoint.
        folder: where to write; ``models/NAME`` when not given.
        name: what to call the model; the file's name without its suffix when not given.
        denoiser: keys of the denoiser that the family's assumption is wrong in, such as what the network predicts:
            weights do not say it.

    Raises:
        PlanError: when there is no such family.
        CheckpointError: when the file cannot be read safely or is not of the family, when a key or a shape does not
            fit, when a weight is not finite, or when the folder holds something else; nothing is written then.
    """
    layout = family(family_name).layout()
    name = name or file.stem
    folder = folder or Path("models") / name
    _check_free(folder)
    contents = read(file)
    try:
        tensors, architecture, count = weights_of(layout, contents)
        spec = ImportedSpec(
            name=name,
            family=family_name,
            source=layout.SOURCE,
            file=file.name,
            sha256=files.sha256(file),
            ema=_averaged(contents, file),
            network=architecture.network,
            denoiser=DenoiserSpec.choose({**architecture.denoiser, **(denoiser or {})}),
            image_shape=architecture.image_shape,
            in_channels=architecture.in_channels,
            out_channels=architecture.out_channels,
            classes=architecture.classes,
            parameters=count,
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise CheckpointError(
            f"{file} as {family_name}: {': '.join(filter(None, [place, first['msg']]))}"
        ) from None
    except CheckpointError as error:
        raise CheckpointError(f"{file} as {family_name}: {error}") from None
    write_product(paths.imported(folder), lambda path: save_file(tensors, path), spec)
    return folder, spec


def weights_of(
    layout: Layout, contents: Mapping[str, Any]
) -> tuple[dict[str, Tensor], Architecture, int]:
    """The network's state_dict from what a checkpoint holds, what it is of, and its number of parameters.

    Raises:
        CheckpointError: when a key, a shape or a number is wrong.
    """
    state = layout.weights(contents)
    architecture = layout.architecture(state)
    network = architecture.skeleton()
    rules, ignored = layout.rules(architecture), layout.ignored(architecture)
    tensors = converted(state, rules, network, ignored)
    if broken := [name for name, each in tensors.items() if not bool(each.isfinite().all())]:
        more = f" and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
        raise CheckpointError(f"not every number of {', '.join(broken[:SHOWN])}{more} is finite")
    return tensors, architecture, parameters(network)


def _averaged(contents: Mapping[str, Any], file: Path) -> bool | None:
    """Whether the weights are averages: official files say so by a key, or by their name."""
    return True if "ema" in contents or "ema" in file.name.lower() else None


def _check_free(folder: Path) -> None:
    """Refuse a folder that holds a model which was not imported, such as a run's."""
    path = paths.imported(folder)
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file, and a folder is wanted")
    if not path.exists() and not paths.sidecar(path).exists():
        return
    try:
        ImportedSpec.model_validate(read_sidecar(path)["spec"])
    except (StoreError, ValidationError):
        raise CheckpointError(
            f"{folder} holds something else than an imported model: name another folder"
        ) from None
