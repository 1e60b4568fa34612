"""The families of official checkpoints, by name; a family's module is imported when one of its files is read.

A module gives

    SOURCE                       whose checkpoints they are, in a line
    weights(contents)            the state_dict of the averaged weights, from the file's content
    architecture(state)          the network and the denoiser, read from names and shapes
    rules(architecture)          how each tensor of our network is made from the official ones
    ignored(architecture)        keys that hold no weights
    parameterisation(contents)   optional: keys of the denoiser that the file gives outside its weights
    beside(file)                 optional: what other files near it say of the process and the denoiser
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from diffbench.plan.reading import nearest
from diffbench.specs.errors import PlanError

if TYPE_CHECKING:
    from torch import Tensor

    from diffbench.pretrained.conversion import Architecture, ConversionRule


class Layout(Protocol):
    """The functions of a family's module."""

    SOURCE: str

    def weights(self, contents: Any) -> dict[str, Tensor]:
        """Return the averaged weights' state_dict, from the file's content."""
        ...

    def architecture(self, state: Mapping[str, Tensor]) -> Architecture:
        """Return the network and the denoiser that a state_dict is of."""
        ...

    def rules(self, architecture: Architecture) -> list[ConversionRule]:
        """Return how each tensor of our network is made from official ones."""
        ...

    def ignored(self, architecture: Architecture) -> Collection[str]:
        """Return the keys that hold no weights."""
        ...


@dataclass(frozen=True)
class Family:
    """A layout of checkpoints: the networks that it is for, its authors, and the module that reads it."""

    title: str
    source: str
    module: str

    def layout(self) -> Layout:
        """Import and return the module."""
        return cast(Layout, importlib.import_module(self.module))


FAMILIES = {
    "diffusers": Family(
        "diffusers' google/ddpm-cifar10-32 and its sisters: DDPM (Ho et al. 2020)",
        "https://huggingface.co/google/ddpm-cifar10-32",
        "diffbench.pretrained.diffusers",
    ),
    "edm": Family(
        "EDM: DDPM++ and NCSN++ (Karras et al. 2022)",
        "https://github.com/NVlabs/edm",
        "diffbench.pretrained.edm",
    ),
    "ihdm": Family(
        "Inverse heat dissipation (Rissanen et al. 2023)",
        "https://github.com/AaltoML/generative-inverse-heat-dissipation",
        "diffbench.pretrained.ihdm",
    ),
    "openai": Family(
        "improved-diffusion and guided-diffusion: Improved DDPM and ADM (Nichol & Dhariwal 2021)",
        "https://github.com/openai/guided-diffusion",
        "diffbench.pretrained.openai",
    ),
    "reflected": Family(
        "Reflected-Diffusion: its DDPM++ for images, its VDM for likelihoods (Lou & Ermon 2023)",
        "https://github.com/louaaron/Reflected-Diffusion",
        "diffbench.pretrained.reflected",
    ),
    "score-sde": Family(
        "score_sde_pytorch: DDPM, DDPM++ and NCSN++ (Song et al. 2021)",
        "https://github.com/yang-song/score_sde_pytorch",
        "diffbench.pretrained.score_sde",
    ),
}


def family(name: str) -> Family:
    """Return the family of that name.

    Raises:
        PlanError: when there is none.
    """
    if name not in FAMILIES:
        raise PlanError(f"{name!r} is not a family of checkpoints{nearest(name, FAMILIES)}")
    return FAMILIES[name]
