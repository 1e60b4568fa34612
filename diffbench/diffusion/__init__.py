"""The mathematics: a library of its own that knows no files, no YAML and no networks.

    from diffbench.diffusion import VP, Heun, NetworkDenoiser, sample, stream

    denoiser = NetworkDenoiser(VP(beta_max=20), network, predict="eps")
    x = sample(Heun(denoiser, steps=18), (16, 1, 8, 8), stream("samples", 0))

The rooms; each imports only the rooms above it in this list:

    core         the base of every room: the process, the condition, grids, predictions, transitions, integrators
    processes    how noise is added to data
    denoisers    predictions of the clean image from a noisy one
    objectives   the losses that train a network
    solvers      from noise to images
    likelihoods  bits per dimension
    inverse      from measurements to images

Every registered class, and each of the names below, is imported from here when it is first used, and torch with it.
``core.described`` says how a class is built from keywords or from a spec.
"""

import importlib
from functools import cache
from typing import Any

#: The modules of ``diffbench.specs`` that say where the registered classes are.
SPECS = (
    "processes",
    "denoisers",
    "objectives",
    "augmentations",
    "solvers",
    "likelihoods",
    "operators",
    "restorers",
)
#: What else can be imported from here, by its module.
OTHERS: dict[str, tuple[str, ...]] = {
    "core.condition": ("UNCONDITIONAL", "Condition"),
    "core.known": ("Known",),
    "core.predictions": ("Prediction",),
    "core.process": ("Process",),
    "core.streams": ("stream",),
    "processes.gaussian": ("GaussianProcess",),
    "processes.simplex": ("StickBreaking",),
    "denoisers.denoiser": ("Counted", "Denoiser", "Wrapper"),
    "denoisers.boundary": ("Bumped", "Shut"),
    "denoisers.thresholds": ("DynamicThreshold", "StaticThreshold"),
    "denoisers.guidance": ("Classifier", "ClassifierFreeGuidance", "ClassifierGuidance"),
    "objectives.losses": ("Objective",),
    "objectives.classifier": ("CrossEntropy",),
    "solvers.loop": ("Solver", "sample", "solve"),
    "solvers.encoding": ("encode", "slerp"),
    "likelihoods.progressive": ("coded",),
    "inverse.operators.operator": ("Degradation", "Operator"),
    "inverse.operators.dense": ("Dense",),
    "inverse.restorers.restorer": ("Measurement", "Restorer"),
}


@cache
def modules() -> dict[str, str]:
    """The module of each name that can be imported from here."""
    from diffbench.specs.base import Registered

    for each in SPECS:
        importlib.import_module(f"diffbench.specs.{each}")
    specs = [spec for kind in Registered.__subclasses__() for spec in kind.known.values()]
    implementations = [str(getattr(spec, "implementation", "")).partition(":") for spec in specs]
    registered = {
        name: module for module, _, name in implementations if module.startswith(f"{__name__}.")
    }
    others = {name: f"{__name__}.{module}" for module, names in OTHERS.items() for name in names}
    return registered | others


def __getattr__(name: str) -> Any:
    if name not in modules():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(modules()[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *modules()])
