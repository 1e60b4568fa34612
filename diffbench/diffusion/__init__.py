"""The mathematics: a library of its own that knows no files, no YAML and no networks.

    from diffbench.diffusion import VP, Heun, NetworkDenoiser, sample, stream

    denoiser = NetworkDenoiser(VP(beta_max=20), network, predict="eps")
    x = sample(Heun(denoiser, steps=18), (16, 1, 8, 8), stream("samples", 0))

The rooms; each imports only the rooms above it in this list:

    core         the base of every room: streams, bases, the process, grids, predictions, transitions, integrators
    processes    how noise is added to data
    denoisers    predictions of the clean image from a noisy one
    objectives   the losses that train a network
    solvers      from noise to images
    likelihoods  bits per dimension
    inverse      from measurements to images

A name below is imported when it is first used, and torch with it.  ``core.described`` says how a class is built from
keywords or from a spec.
"""

import importlib
from typing import Any

#: The public names of each module.
MODULES: dict[str, tuple[str, ...]] = {
    "core.condition": ("UNCONDITIONAL", "Condition"),
    "core.known": ("Known",),
    "core.predictions": ("Prediction",),
    "core.process": ("Process",),
    "core.streams": ("stream",),
    "processes.gaussian": ("GaussianProcess",),
    "processes.continuous": ("EDM", "VE", "VP", "SubVP", "VPChain", "VPCosine"),
    "processes.discrete": ("Discrete",),
    "processes.heat": ("IHDM", "Blurring"),
    "processes.reflected": ("Reflected",),
    "processes.simplex": ("StickBreaking",),
    "denoisers.denoiser": ("Counted", "Denoiser", "Wrapper"),
    "denoisers.network": ("NetworkDenoiser",),
    "denoisers.exact": (
        "EmpiricalDenoiser",
        "GaussianDenoiser",
        "MixtureDenoiser",
        "ReflectedMixtureDenoiser",
    ),
    "denoisers.boundary": ("Bumped", "Gated", "KernelMixture", "Shut"),
    "denoisers.thresholds": ("DynamicThreshold", "StaticThreshold"),
    "denoisers.guidance": ("Classifier", "ClassifierFreeGuidance", "ClassifierGuidance"),
    "objectives.times": (
        "ImportanceTimes",
        "LogNormalTimes",
        "LogSNRTimes",
        "MixedTimes",
        "UniformTimes",
    ),
    "objectives.augmentation": ("EDMAugmentation",),
    "objectives.losses": (
        "EDMObjective",
        "Hybrid",
        "Mean",
        "ScoreMatching",
        "Simple",
        "VLBObjective",
    ),
    "objectives.classifier": ("CrossEntropy",),
    "solvers.loop": ("Solver", "sample", "solve"),
    "solvers.transition": ("DDIM", "Ancestral"),
    "solvers.sde": ("CorrectorOnly", "EulerMaruyama", "ReverseDiffusion"),
    "solvers.ode": ("AdaptiveProbabilityFlow", "DPMSolver", "Heun", "ProbabilityFlow"),
    "solvers.transport": ("Transport",),
    "solvers.heat": ("InverseHeat",),
    "solvers.encoding": ("encode", "slerp"),
    "likelihoods.vlb": ("VLB", "HeatBound"),
    "likelihoods.ode": ("ODELikelihood",),
    "likelihoods.progressive": ("coded",),
    "inverse.operators.operator": ("Degradation", "Operator"),
    "inverse.operators.dense": ("Dense",),
    "inverse.operators.selections": (
        "BlockAverage",
        "BoxMask",
        "Colourisation",
        "CompressedSensing",
        "Denoising",
        "DrawnMask",
        "RandomMask",
    ),
    "inverse.operators.separable": ("AnisotropicBlur", "Bicubic", "GaussianBlur", "UniformBlur"),
    "inverse.operators.fourier": ("MRI",),
    "inverse.operators.radon": ("CT",),
    "inverse.operators.jpeg": ("JPEG",),
    "inverse.restorers.restorer": ("Measurement", "Restorer"),
    "inverse.restorers.baselines": ("PosteriorMean", "PseudoInverse"),
    "inverse.restorers.ddrm": ("DDRM",),
    "inverse.restorers.snips": ("SNIPS",),
    "inverse.restorers.steering": ("CCDF", "ILVR", "Impute", "Medical", "Replace"),
    "inverse.restorers.tuned": ("InpaintTuned",),
}
_MODULE_OF = {name: module for module, names in MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
