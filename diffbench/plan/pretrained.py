"""From ``pretrained: FOLDER`` to the keys that an imported model has: its network, its denoiser, its checksums.

A variant may repeat what the folder says, but may not contradict it.  It has no keys of training.

The files of the folder are not inputs of a job in the workflow.  The checksum in the job's spec decides whether the job
runs again: it does not for a copy of the same weights with another date, or for the same import done twice.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from diffbench.plan.reading import Tree
from diffbench.specs.errors import PlanError
from diffbench.specs.imported import ImportedSpec
from diffbench.store import paths
from diffbench.store.products import StoreError, read_sidecar

#: Key of training -> why an imported model does not have it.
NEEDLESS = {
    "network": "an imported model has its own network",
    "objective": "an imported model is not trained",
    "training": "an imported model is not trained",
    "dequantise": "an imported model is not trained",
}


def filled(name: str, tree: Tree) -> Tree:
    """Return a variant's keys with those that its imported model states; without one they stay as they are.

    Raises:
        PlanError: when there is no imported model in the folder, or the variant has keys that it cannot have.
    """
    if "pretrained" not in tree.value:
        return tree
    for key, reason in NEEDLESS.items():
        if key in tree.value:
            raise PlanError(f"{tree.where((key,))}: {name}.{key}: {reason}; leave {key} out")
    origin, own = tree.where(("pretrained",)), tree.part("pretrained")
    if isinstance(own.value, str):
        own = Tree({"folder": own.value}, {(): origin, ("folder",): origin})
    folder = own.value.get("folder") if isinstance(own.value, dict) else None
    if not isinstance(folder, str):
        raise PlanError(
            f"{origin}: {name}.pretrained: must be a folder that diffbench import wrote, not {own.value!r}"
        )
    imported, weights = _found(folder, f"{own.where(('folder',))}: {name}.pretrained")
    stated = {
        "family": imported.family,
        "checkpoint": imported.sha256,
        "weights": weights,
        "ema": imported.ema,
        "image_shape": list(imported.image_shape),
        "classes": imported.classes,
    }
    whole = tree.without("pretrained").without("denoiser")
    denoiser = imported.denoiser.model_dump(mode="json")
    return whole.having(
        {
            "pretrained": _agreeing(stated, own, f"{name}.pretrained", origin),
            "denoiser": _agreeing(denoiser, _denoiser(tree), f"{name}.denoiser", origin),
            "network": Tree(imported.network.model_dump(mode="json"), {(): origin}),
        }
    )


def _denoiser(tree: Tree) -> Tree:
    """Return the keys of the denoiser that a variant repeats; a denoiser that is only a name is one key."""
    own = tree.part("denoiser")
    return own if isinstance(own.value, dict) else Tree({"name": own.value}, own.origins)


def _agreeing(stated: dict[str, Any], own: Tree, keys: str, origin: str) -> Tree:
    """Return the folder's keys laid over the variant's own, which must agree."""
    for key, value in own.value.items():
        if key in stated and value != stated[key]:
            raise PlanError(
                f"{own.where((key,))}: {keys}.{key}: {value!r} contradicts the imported model, which has "
                f"{stated[key]!r}"
            )
    return own.merged(Tree(stated, {(): origin})) if own.value else Tree(stated, {(): origin})


def _found(folder: str, keys: str) -> tuple[ImportedSpec, str]:
    """Return the imported model in a folder, and the checksum of its weights."""
    path = paths.imported(folder)
    if not path.is_file():
        raise PlanError(
            f"{keys}: there is no {path}: make it by diffbench import FAMILY FILE --to {folder}"
        )
    try:
        sidecar = read_sidecar(path)
        return ImportedSpec.model_validate(sidecar["spec"]), str(sidecar["sha256"][path.name])
    except StoreError as error:
        raise PlanError(f"{keys}: {error}") from None
    except ValidationError:
        raise PlanError(
            f"{keys}: {folder} does not hold an imported model; import it again"
        ) from None
