"""A checkpoint of the network of a variant: any module of yours, wrapped in a network class of an extension.

The benchmark file says what the weights do not: network, denoiser, images and classes.  The file is a state_dict.  Its
names are those of the network, or, where the network is one module and nothing else, those of that module.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from diffbench.pretrained.conversion import Architecture, ConversionRule, rule, tensors
from diffbench.specs.errors import PlanError
from diffbench.specs.jobs import TrainSpec

#: Between a benchmark file and a variant, in the place of a family.
COLON = ":"


class OwnLayout:
    """The layout of the checkpoints of one network (`families.Layout`)."""

    SOURCE = "a network of the benchmark"

    def __init__(self, architecture: Architecture) -> None:
        self.known = architecture
        self.names: Collection[str] = ()

    def weights(self, contents: Any) -> dict[str, Tensor]:
        """The state_dict that the whole file is.

        Raises:
            CheckpointError: when the file is something else.
        """
        state = tensors(contents, "save network.state_dict()")
        self.names = state.keys()
        return state

    def architecture(self, state: Mapping[str, Tensor]) -> Architecture:
        """The architecture of the variant."""
        return self.known

    def rules(self, architecture: Architecture) -> list[ConversionRule]:
        """A rule for each tensor of the network, by its own name or without that of the network's one module."""
        wanted = list(architecture.skeleton.state_dict())
        inner = [name.partition(".")[2] for name in wanted]
        wrapped = len({name.partition(".")[0] for name in wanted}) == 1 and all(inner)
        given = inner if wrapped and not set(wanted) <= set(self.names) else wanted
        return [rule(ours, theirs) for ours, theirs in zip(wanted, given, strict=True)]

    def ignored(self, architecture: Architecture) -> Collection[str]:
        """No key: all hold weights."""
        return ()


def layout_of(named: str, repository: Path) -> OwnLayout:
    """Return the layout of ``BENCHMARK:VARIANT``, such as ``mine.yaml:vp-mine``.

    Raises:
        PlanError: when there is no such variant, it has no network, or its images are not known yet.
    """
    from diffbench.plan.loading import load_plan

    file, _, variant = named.rpartition(COLON)
    plan = load_plan([Path(file)], {}, repository, needs_files=False)
    specs = {job.variant: job.spec for job in plan.every if isinstance(job.spec, TrainSpec)}
    spec = specs.get(variant)
    if spec is None or spec.network is None:
        having = ", ".join(sorted(name for name, each in specs.items() if each.network))
        raise PlanError(
            f"{file} has no variant {variant!r} with a network; those with one: {having or 'none'}"
        )
    shape = spec.data.known_shape
    if shape is None:
        raise PlanError(
            f"{file}: the shape of the images of {spec.data.name} is not known before they are read"
        )
    channels = shape[0]
    architecture = Architecture(
        spec.network,
        spec.denoiser.model_dump(mode="json"),
        shape,
        spec.denoiser.inputs(channels),
        channels * spec.denoiser.outputs,
        (spec.data.known_classes or 0) if spec.denoiser.takes_labels else 0,
    )
    return OwnLayout(architecture)
