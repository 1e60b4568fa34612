r"""What laws are tried on: small images, noise whose moments are exact, a denoiser whose answer is known, a network.

Data are independent Gaussian pixels N(m, s^2) about the middle of the data range.  In the basis of a Gaussian process

    eps = sigma (x_t - alpha m)/(alpha^2 s^2 + sigma^2),

and q(x_t) = N(alpha m, alpha^2 s^2 + sigma^2).  One step of a solver on such data is an affine map of the state and of
the noise.  Noise is a set of orthogonal columns with mean 0 and mean square 1, one for each draw, so that the mean
and the variance over the batch are those of the distribution to rounding, without a sampling error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, get_args

import torch
from pydantic import ValidationError
from torch import Tensor

from diffbench.conform.law import IdleError, demand
from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.core.process import Process, cast, float64
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.denoisers.exact import ReflectedMixtureDenoiser
from diffbench.diffusion.denoisers.network import NetworkDenoiser
from diffbench.specs.base import Registered
from diffbench.specs.denoisers import DenoiserSpec, NetworkDenoiserSpec, ReflectedEmpiricalSpec
from diffbench.specs.extensions import source_of
from diffbench.specs.processes import RANGES, ProcessSpec
from diffbench.specs.registry import build, implementation

#: (C, H, W) of the images; some laws need more pixels, some one.
SHAPE, PIXEL = (1, 2, 2), (1, 1, 1)
#: Mean and standard deviation of the data, in half widths of the range about its middle.
MEAN, STD = 0.2, 0.3
#: How much the label adds to the mean, in the same unit.
LABEL = 0.1
CLASSES = 3
#: Values that are tried for a key that has no default: 25 is a number of steps and an odd size.
GUESSES = (25, 3, 2, 1, 0.5, True, "example")


def example(model: type[Registered], given: dict[str, Any] | None = None) -> Registered:
    """Return a spec of a class: its defaults, the given keys, and a small value for every other key without default.

    Raises:
        IdleError: naming the key for which no value was found.
        ValidationError: when the class refuses the values.
    """
    values: dict[str, Any] = dict(given or {})
    for key, field in model.model_fields.items():
        if not field.is_required() or key in values:
            continue
        tried = [*(each for each in get_args(field.annotation) if isinstance(each, str)), *GUESSES]
        fits = [each for each in tried if key not in _wrong(model, values | {key: each})]
        if not fits:
            raise IdleError(f"{key} has no default: give one with --set {key}=VALUE")
        values[key] = fits[0]
    return model.model_validate(values)


def _wrong(model: type[Registered], values: dict[str, Any]) -> set[Any]:
    try:
        model.model_validate(values)
    except ValidationError as error:
        return {each["loc"][0] for each in error.errors() if each["loc"]}
    return set()


def beside(spec: Registered, kind: type[Registered]) -> list[Any]:
    """Return specs of a kind that the extension of a spec registers too."""
    source = source_of(type(spec))
    if source is None:
        return []
    return [example(each) for each in kind.known.values() if source_of(each) is source]


def processes(*names: str) -> list[ProcessSpec]:
    """Return the package's processes on which others are tried, by default one of each sort."""
    known: dict[str, dict[str, Any]] = {
        "discrete": {"schedule": "cosine", "steps": 50},
        "blurring": {"sigma_max": 0.5},
    }
    wanted = names or ("vp", "ve", "discrete", "reflected", "ihdm")
    return [ProcessSpec.choose({"name": name, **known.get(name, {})}) for name in wanted]


def served(spec: Any, candidates: Iterable[ProcessSpec] | None = None) -> ProcessSpec:
    """Return the first process that a spec does not refuse: by default the package's, then those of its own file.

    Raises:
        IdleError: with the last refusal.
    """
    reason = "there is no process"
    known = (*processes(), *beside(spec, ProcessSpec))
    for each in known if candidates is None else candidates:
        reason = spec.refusal(process=each)
        if reason is None:
            return each
    raise IdleError(reason)


def other_range(spec: ProcessSpec) -> ProcessSpec:
    """Return the process on the other of the two data ranges, with the same constants."""
    low, high = next(each for each in RANGES if each != (spec.low, spec.high))
    return spec.model_copy(update={"low": low, "high": high})


def moved(x: Tensor, here: ProcessSpec, there: ProcessSpec) -> Tensor:
    """Return images of one data range in another."""
    return there.middle + (x - here.middle) * there.half_range / here.half_range


def made(spec: ProcessSpec, shape: tuple[int, int, int] = SHAPE) -> Process:
    """Return the process of a spec, for images of a shape."""
    facts = {"image_shape": shape, "images": images(spec, 8, shape)}
    process: Process = build(spec, **{name: facts[name] for name in spec.facts})
    return process


def images(
    spec: ProcessSpec,
    count: int,
    shape: tuple[int, ...] = SHAPE,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Return images (count, C, H, W) of the data's distribution, within the range of the process."""
    drawn = MEAN + STD * normal((count, *shape), 1)
    return (spec.middle + spec.half_range * drawn.clamp(-1, 1)).to(dtype)


def normal(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return standard normal numbers, the same for a seed."""
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def generator(seed: int = 5) -> torch.Generator:
    """Return a generator at the start of a seed's stream."""
    return torch.Generator().manual_seed(seed)


def inner_times(process: Process, count: int = 7) -> Tensor:
    """Return increasing times inside the range of a process, or levels of a chain, float64 (count,)."""
    shares = torch.linspace(0.05, 0.95, count, dtype=torch.float64)
    times = process.t_min + (process.t_max - process.t_min) * shares
    return times.round() if process.spec.time == "discrete" else times


def middle_time(process: Process, share: float = 0.4) -> Tensor:
    """Return the time at a share of the range, or the level nearest to it, with about as much signal as noise."""
    t = process.t_min + share * (process.t_max - process.t_min)
    return float64(round(t) if process.spec.time == "discrete" else t)


def refuse_other_levels(process: Process, times: Tensor, out: str) -> None:
    """Refuse times outside of the range of a process, or between the levels of a chain; ``out`` begins the message.

    Raises:
        LawError: with the range.
    """
    low, high, ends = float(times.min()), float(times.max()), (process.t_min, process.t_max)
    demand(
        ends[0] - 1e-9 <= low and high <= ends[1] * (1 + 1e-9),
        f"{out}: [{low:.4g}, {high:.4g}] is not in [{ends[0]:.4g}, {ends[1]:.4g}]",
    )
    whole = process.spec.time == "continuous" or bool((times == times.round()).all())
    demand(whole, f"{out}: a chain has whole levels")


def refuse_randomness(draw: Callable[[], Tensor], told: str) -> None:
    """Refuse what gives other numbers for another global seed of torch; ``told`` has a place for the difference.

    Raises:
        LawError: with the difference.
    """
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(draw())
    demand(torch.equal(*found), told.format(f"{apart(*found):.3g}"))


def column(values: Tensor) -> Tensor:
    """Return one number an image, (B,) -> (B, 1, 1, 1)."""
    return values.reshape(-1, 1, 1, 1)


class Columns:
    """Noise for a batch of B images of which each draw is orthogonal to all before it.

    The k-th column is sqrt(2) cos(pi (i + 1/2) k/B), i = 0 .. B - 1: mean 0, mean square 1.
    """

    def __init__(self) -> None:
        self.used = 0

    def __call__(self, x: Tensor) -> Tensor:
        count, numbers = len(x), x[0].numel()
        if self.used + numbers >= count:
            raise IdleError(f"it draws noise more than {count // numbers} times")
        rows = torch.arange(count, dtype=torch.float64) + 0.5
        columns = torch.arange(self.used + 1, self.used + numbers + 1, dtype=torch.float64)
        self.used += numbers
        wave = math.sqrt(2) * (math.pi / count * rows[:, None] * columns).cos()
        return wave.reshape(x.shape).to(x)


class GaussianData(Denoiser):
    """The exact denoiser of independent Gaussian pixels; a label moves the mean."""

    classes = CLASSES

    def __init__(self, process: Process) -> None:
        super().__init__(process)
        self.mean, self.std = process.spec.half_range * MEAN, process.spec.half_range * STD

    def marginal(self, t: Tensor, shape: tuple[int, ...] = SHAPE) -> tuple[Tensor, Tensor]:
        """Mean (C, H, W), without the middle, and variances of the coordinates, at time t."""
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        mean = self.process.basis.scale(alpha, torch.full((1, *shape), self.mean).double())
        return mean[0], alpha**2 * self.std**2 + sigma**2

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        process = self.process
        alpha, sigma = process.alpha(t), process.sigma(t)
        mean = torch.full_like(x_t, self.mean)
        if condition.label is not None:
            mean = mean + process.spec.half_range * LABEL * column(condition.label).to(x_t)
        share = sigma / (alpha**2 * self.std**2 + sigma**2)
        apart = process.centred(x_t) - process.basis.scale(cast(alpha, x_t), mean)
        return Prediction(process, x_t, t, "eps", process.basis.scale(cast(share, x_t), apart))


def network(x: Tensor, c_noise: Tensor, y: Tensor | None, raw: Tensor, *_: Tensor) -> Tensor:
    """Return a smooth function of all that a network is given, with as many channels as the image."""
    told = c_noise if y is None else c_noise + 0.4 * y.to(x) + 0.2
    level = column(told).tanh().to(x)
    return 0.3 * x[:, : raw.shape[1]] * level.cos() + 0.1 * (raw + level).sin()


def network_of(outputs: int) -> Callable[..., Tensor]:
    """Return that network with several outputs a channel."""

    def answer(x: Tensor, c_noise: Tensor, y: Tensor | None, raw: Tensor, *more: Tensor) -> Tensor:
        shifted = (network(x, c_noise + k, y, raw, *more) for k in range(outputs))
        return torch.cat(list(shifted), 1)

    return answer


def data_denoiser(process: Process) -> Denoiser:
    """Return the denoiser that stands for a model on a process, exact where a formula is known."""
    spec = process.spec
    if spec.family == "gaussian" and "x0" in spec.views and spec.noise == "growing":
        return GaussianData(process)
    if spec.bounded:
        centres = torch.full((1, math.prod(SHAPE)), spec.middle + spec.half_range * MEAN).double()
        tensors = {"weights": float64([1.0]), "centres": centres, "widths": float64([STD / 2])}
        return ReflectedMixtureDenoiser(ReflectedEmpiricalSpec(), process, tensors)  # type: ignore[arg-type]
    return NetworkDenoiser(NetworkDenoiserSpec(predict="mean", skip="residual"), process, network)


@cache
def training_images(spec: ProcessSpec) -> tuple[Tensor, Tensor]:
    """Return 64 images of a process's range and their labels, 0 .. 2."""
    return images(spec, 64, dtype=torch.float32), torch.arange(64) % CLASSES


def denoiser_of(spec: DenoiserSpec, process: Process) -> Denoiser:
    """Return the denoiser of a spec: around the network above, or fitted to images of the data."""
    if spec.trained:
        classes = CLASSES if spec.takes_labels else 0
        built: Denoiser = build(spec, process, network_of(spec.outputs), classes=classes)
        return built
    fitted = implementation(spec).fit(*training_images(process.spec))
    exact: Denoiser = build(spec, process, fitted)
    return exact


def labelled(label: int, count: int) -> Condition:
    """Return the condition that all images have one label; the null class is ``CLASSES``."""
    return Condition(torch.full((count,), label))


def apart(x: Tensor, y: Tensor) -> float:
    """Return the largest difference of two tensors, in units of the largest number or of 1."""
    scale = max(1.0, float(y.abs().max()))
    return float((x.double() - y.double()).abs().max()) / scale
