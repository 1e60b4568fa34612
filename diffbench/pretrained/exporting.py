"""A model of ours as one of diffusers: a UNet2DModel and the betas of a scheduler, in the files that it reads.

    config.json, diffusion_pytorch_model.safetensors   UNet2DModel.from_pretrained(folder)
    scheduler_config.json                              DDPMScheduler, or DDIMScheduler, .from_pretrained(folder)
    model_index.json                                   DDPMPipeline.from_pretrained(folder), of models without labels

UNet2DModel holds the networks of ``networks.residual_unet``: each weight has a place in it, and q, k and v are three
layers there.  Its schedulers hold what a network predicts on a chain, x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps,
that it sees as it is and with the number of the level.  diffusers itself is not needed to write the files.

Source: the keys of UNet2DModel, DDPMScheduler and DDPMPipeline, https://huggingface.co/docs/diffusers, version 0.42.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from diffbench.diffusion.core.process import Process
from diffbench.diffusion.processes.discrete import Discrete
from diffbench.pretrained import scheduler as scheduling
from diffbench.pretrained.diffusers import their_parts
from diffbench.specs.base import Registered
from diffbench.specs.denoisers import DenoiserSpec, NetworkDenoiserSpec
from diffbench.specs.errors import UserError
from diffbench.specs.networks.network import NetworkSpec
from diffbench.specs.networks.residual_unet import ResidualUNetSpec
from diffbench.store import files

#: What a network predicts, and how its variances are learnt -> diffusers' words.
PREDICTIONS = {ours: theirs for theirs, ours in scheduling.PREDICTIONS.items()}
VARIANCES = {"fixed": "fixed_small", "learned": "learned_range"}
#: How noise enters a block, and what changes the resolution -> diffusers' words.
MODULATIONS = {"addition": "default", "scale-shift": "scale_shift"}
RESAMPLINGS: dict[str, dict[str, Any]] = {
    "convolution": {"downsample_padding": 1},
    "same-convolution": {"downsample_padding": 0},
    "block": {"downsample_type": "resnet", "upsample_type": "resnet"},
}


class ExportError(UserError, ValueError):
    """A model that diffusers' UNet2DModel and schedulers cannot hold; the message says which key is the reason."""


def write(
    folder: Path,
    network: nn.Module | None,
    spec: NetworkSpec | None,
    denoiser: DenoiserSpec,
    process: Process,
    image_shape: tuple[int, int, int],
) -> Path:
    """Write a model into a new folder, and return the folder.

    Args:
        folder: where to write; it must not exist, or be empty.
        network: the network, with its weights; None of a model without one.
        spec: the network's spec; None of a model without one.
        denoiser: what the network predicts.
        process: the process that it was trained for.
        image_shape: (C, H, W).

    Raises:
        ExportError: when diffusers cannot hold the model, with the reason; nothing is written then.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder}: exists and is not an empty folder; name a new one")
    if reason := next(refusals(spec, denoiser, process, image_shape), None):
        raise ExportError(f"diffusers' UNet2DModel and schedulers cannot hold the model: {reason}")
    assert isinstance(spec, ResidualUNetSpec) and isinstance(denoiser, NetworkDenoiserSpec)
    assert isinstance(process, Discrete) and network is not None
    tensors = dict(theirs(network.state_dict(), spec.blocks))
    written = {
        "config.json": unet(spec, tensors, image_shape),
        scheduling.NAME: scheduler(denoiser, process),
    }
    if "class_embedding.weight" not in tensors:
        # The pipeline tells the network no class.
        written["model_index.json"] = {
            "_class_name": "DDPMPipeline",
            "scheduler": ["diffusers", "DDPMScheduler"],
            "unet": ["diffusers", "UNet2DModel"],
        }
    with files.update(folder, ()) as unfinished:
        for name, content in written.items():
            (unfinished / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        weights = unfinished / "diffusion_pytorch_model.safetensors"
        save_file(tensors, weights, metadata={"format": "pt"})
    return folder


def refusals(
    spec: NetworkSpec | None,
    denoiser: DenoiserSpec,
    process: Process,
    image_shape: tuple[int, int, int],
) -> Iterator[str]:
    """Yield each reason for which diffusers cannot hold a model, with the key."""
    if spec is None or not isinstance(denoiser, NetworkDenoiserSpec):
        yield f"denoiser: {denoiser.name} is more than a network, or none"
        return
    if not isinstance(spec, ResidualUNetSpec) or not _is_held(type(spec)):
        held = ", ".join(name for name, each in NetworkSpec.known.items() if _is_held(each))
        yield f"network: {spec.name} is of another kind; it holds {held}"
        return
    yield from _network_refusals(spec, image_shape[1])
    if not isinstance(process, Discrete):
        yield f"process: {process.spec.name} is no chain of levels; its schedulers hold discrete"
        return
    yield from _denoiser_refusals(denoiser, process)


def _is_held(model: type[Registered]) -> bool:
    """Whether the networks of a class of specs are residual U-Nets, and not a class of their own."""
    return (
        issubclass(model, ResidualUNetSpec)
        and model.implementation == ResidualUNetSpec.implementation
    )


def _network_refusals(spec: ResidualUNetSpec, height: int) -> Iterator[str]:
    if spec.widths[0] != spec.channels:
        yield (
            f"multipliers: {spec.multipliers[0]:g} is the first, and the width of the first resolution is that of "
            "the embedding: it must be 1"
        )
    if spec.resampling not in RESAMPLINGS:
        yield f"resampling: {spec.resampling}, and it has {', '.join(RESAMPLINGS)}"
    heads = head_widths(spec, height)
    if len(heads) > 1:
        found = " and ".join(map(str, sorted(heads)))
        yield f"heads: {spec.heads} are of {found} channels, and all must be of as many"


def _denoiser_refusals(denoiser: NetworkDenoiserSpec, process: Discrete) -> Iterator[str]:
    spec = process.spec
    if (spec.low, spec.high) != (-1, 1):
        yield f"process: the data range is [{spec.low:g}, {spec.high:g}], and must be [-1, 1]"
    if denoiser.predict not in PREDICTIONS:
        yield f"denoiser.predict: {denoiser.predict}, and schedulers have {', '.join(PREDICTIONS)}"
    if denoiser.skip != "none":
        yield f"denoiser.skip: {denoiser.skip}, and the output must be the prediction itself"
    if denoiser.variance not in VARIANCES:
        yield f"denoiser.variance: {denoiser.variance}, and schedulers have {', '.join(VARIANCES)}"
    if denoiser.masks:
        yield "denoiser.masks: it is told no pixels"
    if (told := denoiser.form(spec).input[1]) != "time":
        yield f"denoiser.noise_input: {told}, and it is told the level (noise_input: time)"


def head_widths(spec: ResidualUNetSpec, height: int) -> set[int]:
    """The channels of a head wherever there is attention, as in the middle; none where every layer has one head."""
    each = {width for level, width in enumerate(spec.widths) if height >> level in spec.attention}
    attending = {*each, spec.widths[-1]}
    single = all(spec.heads_of(width) == 1 for width in attending)
    return set() if single else {width // spec.heads_of(width) for width in attending}


def theirs(state: Mapping[str, Tensor], blocks: int) -> Iterator[tuple[str, Tensor]]:
    """Yield diffusers' name and tensor for each weight of a ``ResidualUNet`` with that number of blocks.

    q, k and v, a convolution of 1x1 pixels here, are three linear layers there.
    """
    for ours, tensor in state.items():
        part, _, leaf = ours.rpartition(".")
        names = their_parts(part, blocks)
        linear = ".attentions." in names[0] and tensor.ndim == 4
        for name, each in zip(names, tensor.chunk(len(names)), strict=True):
            made = each[:, :, 0, 0] if linear else each
            yield f"{name}.{leaf}", made.detach().cpu().contiguous().clone()


def unet(
    spec: ResidualUNetSpec, tensors: Mapping[str, Tensor], image_shape: tuple[int, int, int]
) -> dict[str, Any]:
    """The configuration of the UNet2DModel with these weights, for images (C, H, W)."""
    _, height, width = image_shape
    attends = [height >> level in spec.attention for level in range(len(spec.widths))]
    plain = "Resnet{}sampleBlock2D" if spec.resampling == "block" else "{}Block2D"
    kinds = ["Attn{}Block2D" if each else plain for each in attends]
    classes = tensors.get("class_embedding.weight")
    return {
        "_class_name": "UNet2DModel",
        "sample_size": height if height == width else [height, width],
        "in_channels": tensors["conv_in.weight"].shape[1],
        "out_channels": tensors["conv_out.weight"].shape[0],
        "time_embedding_type": "positional",
        "freq_shift": 1 if spec.features == "sine-first" else 0,
        "flip_sin_to_cos": spec.features == "cosine-first",
        "block_out_channels": list(spec.widths),
        "layers_per_block": spec.blocks,
        "down_block_types": [each.format("Down") for each in kinds],
        "up_block_types": [each.format("Up") for each in reversed(kinds)],
        # None: as many channels as there are, in one head.
        "attention_head_dim": next(iter(head_widths(spec, height)), None),
        "norm_num_groups": spec.groups,
        "attn_norm_num_groups": spec.groups,
        "norm_eps": spec.epsilon,
        "resnet_time_scale_shift": MODULATIONS[spec.modulation],
        "dropout": spec.dropout,
        "act_fn": "silu",
        "num_class_embeds": None if classes is None else classes.shape[0],
        **RESAMPLINGS[spec.resampling],
    }


def scheduler(denoiser: NetworkDenoiserSpec, process: Discrete) -> dict[str, Any]:
    """The configuration of the DDPMScheduler that steps as the solver ``ancestral`` does by default: x0 is clipped."""
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": process.steps,
        "trained_betas": process.betas.tolist(),
        "prediction_type": PREDICTIONS[denoiser.predict],
        "variance_type": VARIANCES[denoiser.variance],
        "clip_sample": True,
    }
