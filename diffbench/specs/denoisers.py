"""Specs of the denoisers: what turns (x_t, t) into a prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from diffbench.specs.base import LevelCount, Only, PositiveFloat, Registered
from diffbench.specs.forms import VIEWS, Form, View
from diffbench.specs.needs import (
    GAUSSIAN,
    GROWING,
    LEVELS,
    ONE_ALPHA,
    WALLS,
    HasNeeds,
    Needs,
    Rule,
    view,
)
from diffbench.specs.processes import ProcessSpec


class DenoiserSpec(HasNeeds, Registered):
    """A denoiser of any kind; ``network`` when no name is given."""

    kind: ClassVar[str] = "denoiser"
    asker: ClassVar[str] = "name: {0.name}"
    default_name: ClassVar[str | None] = "network"
    trained: ClassVar[bool] = False
    #: Whether it is the exact denoiser of a Gaussian with the training images' mean and covariance.
    gaussian: ClassVar[bool] = False

    name: str

    @property
    def takes_labels(self) -> bool:
        """Whether the denoiser is told the class of an image."""
        return False

    @property
    def takes_masks(self) -> bool:
        """Whether the denoiser can be told pixels of the image."""
        return False

    @property
    def learns_variance(self) -> bool:
        """Whether the denoiser predicts the variance of a step."""
        return False

    @property
    def variance_of_levels(self) -> bool:
        """Whether the learned variance is that of a step between neighbouring levels, and of no other."""
        return False

    @property
    def predicts(self) -> str:
        """What the denoiser predicts, in words."""
        return f"score, {self.name}"

    @property
    def native(self) -> View:
        """The view that the network's output is made into, whose squared error is L_simple."""
        return "eps"

    @property
    def outputs(self) -> int:
        """How many numbers the network gives for each pixel and channel."""
        return 1

    def form(self, process: ProcessSpec) -> Form:
        """The form of the denoiser; by default it is described by the denoiser's keys, so that no other is equal."""
        return Form((self.model_copy(update={"conditional": False}).canonical(), 0.0), (0.0, ""))

    def inputs(self, channels: int) -> int:
        """How many channels the network sees, for an image with ``channels`` channels."""
        return channels


#: View -> the output in `specs.forms` of a network that predicts it without a skip.
PLAIN: Mapping[View, str] = {
    "eps": "noise",
    "score": "noise",
    "x0": "signal",
    "v": "skip",
    "mean": "mean",
}


def _times_are_counted(spec: NetworkDenoiserSpec, process: ProcessSpec) -> str | None:
    """A network that counts levels needs times up to 1, or a chain's own levels."""
    told = spec.noise_input
    if told not in ("time", "descending-time"):
        return None
    if process.time == "discrete":
        if spec.levels == 1000:
            return None
        return f"levels: {spec.levels}, but {process.name} has its own levels, and {told} counts those; leave it out"
    if process.t_max == 1:
        return None
    return (
        f"noise_input: {told} counts {spec.levels} levels of times up to 1, but the times of {process.name} go up "
        f"to {process.t_max:g}"
    )


def _skip_is_of_the_mean(spec: NetworkDenoiserSpec) -> str | None:
    if spec.skip not in ("residual", "addition") or spec.predict == "mean":
        return None
    return f"skip: {spec.skip} needs predict: mean, not {spec.predict}"


class NetworkDenoiserSpec(DenoiserSpec):
    """A network F inside native = c_skip x + c_out F(c_in x; c_noise, y).

    ``predict`` is the native quantity; ``mean`` is the posterior mean of the level before (DDPM's mu).
    ``skip: residual`` adds sigma times the network to x_t, and ``addition`` the network itself; both are for the mean
    of a level of blur.  ``skip: edm`` puts EDM's skip connection (Karras et al. 2022, table 1) inside whatever is
    predicted: the objective is unchanged, and the network need not copy the noise.  ``predict: edm`` is EDM's own: x0
    with that skip.  ``data_std`` is the data's standard deviation when data span [-1, 1] (EDM's sigma_data).

    ``variance: learned`` doubles the network's outputs: the second half interpolates between a step's
    variances (Nichol & Dhariwal 2021, equation 15).  With ``variance: unbounded`` it is the logarithm of the variance
    itself, of the step to the level before (Ho et al. 2020, table 2, learned diagonal).  ``conditional`` networks are
    told the class.

    ``masks`` adds a mask and the image under it to the network's input.  The network is trained with random masks, and
    can then be told known pixels of the image (Saharia et al. 2022, Palette; Nichol et al. 2022, GLIDE).

    ``input_scale: none`` leaves c_in at 1 for data in [-1, 1], as in the VE networks of Song et al. 2021, in place of
    1/sqrt(alpha^2 + sigma^2) or the c_in of the skip.  ``noise_input`` is what the network is told of the noise, with
    N = ``levels``:

        log-ratio        ln(sigma/alpha)/4, as in EDM
        time             (N - 1) t, and on a chain the level, as in DDPM and in VP's networks
        rescaled-time    N t/T on a chain of T levels, as in Improved DDPM
        descending-time  round((N - 1)(1 - t)), counted down from the most noise, as in VE's networks of N levels
        log-sigma        ln(sigma/2) for data in [-1, 1], as in VE's other networks
        sigma-share      0 at the process's smallest sigma and 1 at its largest, as in ``reflected-vdm``
    """

    name: Literal["network"] = "network"
    implementation: ClassVar[str] = "diffbench.diffusion.denoisers.network:NetworkDenoiser"
    needs: ClassVar[Needs] = (
        GROWING.where("noise_input", "sigma-share"),
        LEVELS.where("noise_input", "rescaled-time"),
        Rule(_times_are_counted),
        LEVELS.where("variance", "unbounded"),
        LEVELS.where("predict", "mean"),
        *(view(each).where("predict", each) for each in VIEWS),
        view("x0").where("predict", "edm"),
        Rule(_skip_is_of_the_mean, ()),
        GROWING.where("skip", "edm").hinting("use residual"),
    )
    trained: ClassVar[bool] = True
    belonging: ClassVar[tuple[Only, ...]] = (
        Only("data_std", "skipped", words="skip: edm or predict: edm"),
    )

    predict: Literal["eps", "x0", "v", "score", "mean", "edm"]
    skip: Literal["none", "edm", "residual", "addition"] = "none"
    data_std: PositiveFloat = 0.5
    variance: Literal["fixed", "learned", "unbounded"] = "fixed"
    conditional: bool = False
    masks: bool = False
    input_scale: Literal["unit", "none"] = "unit"
    noise_input: Literal[
        "log-ratio", "time", "rescaled-time", "descending-time", "log-sigma", "sigma-share"
    ] = "log-ratio"
    levels: LevelCount = 1000

    @model_validator(mode="after")
    def _levels_are_of_times(self) -> Self:
        if self.levels != 1000 and "time" not in self.noise_input:
            raise ValueError(
                f"levels: {self.levels} counts times, but noise_input is {self.noise_input}; leave it out"
            )
        return self

    @property
    def skipped(self) -> bool:
        """Whether EDM's skip connection is inside what is predicted."""
        return "edm" in (self.skip, self.predict)

    @property
    def predicts(self) -> str:
        return self.predict

    @property
    def native(self) -> View:
        """``predict``; x0 for ``edm``."""
        return "x0" if self.predict == "edm" else self.predict

    def form(self, process: ProcessSpec) -> Form:
        """The form: the same for all views with EDM's skip; v is that skip with a standard deviation of 1."""
        unit = 1 / process.half_range
        output, width, scale = {
            "none": (PLAIN[self.native], unit if self.native == "v" else 0.0, unit),
            "edm": ("skip", self.data_std, self.data_std),
            "residual": ("residual", 0.0, 0.0),
            "addition": ("addition", 0.0, 0.0),
        }["edm" if self.predict == "edm" else self.skip]
        constant = self.input_scale == "none" or (process.keeps == "power" and unit == scale == 1)
        return Form((output, width), (0.0 if constant else scale, self._told(process)))

    def _told(self, process: ProcessSpec) -> str:
        """What the network is told of the noise; on a chain of N levels ``rescaled-time`` is ``time``."""
        chain = process.time == "discrete"
        if self.noise_input == "rescaled-time" and process.level_count == self.levels:
            return "time"
        counted = "time" in self.noise_input and not (chain and self.noise_input == "time")
        return f"{self.noise_input}{f' of {self.levels} levels' if counted else ''}"

    @property
    def takes_labels(self) -> bool:
        return self.conditional

    @property
    def takes_masks(self) -> bool:
        return self.masks

    @property
    def learns_variance(self) -> bool:
        return self.variance != "fixed"

    @property
    def variance_of_levels(self) -> bool:
        return self.variance == "unbounded"

    @property
    def outputs(self) -> int:
        """Two where the variance is learned too, else one."""
        return 2 if self.learns_variance else 1

    def inputs(self, channels: int) -> int:
        """The channels of the noisy image and, with masks, those of the known image and the mask."""
        return 2 * channels + 1 if self.takes_masks else channels


class BoundaryDenoiserSpec(DenoiserSpec):
    """A network whose score is 0 at a reflected process's walls by construction, and odd about each of them.

    ``conditional`` networks are told the class.
    """

    trained: ClassVar[bool] = True
    needs: ClassVar[Needs] = (WALLS,)

    conditional: bool = False

    @property
    def takes_labels(self) -> bool:
        return self.conditional


class GatedSpec(BoundaryDenoiserSpec):
    """A gated network, sigma score = gate F: the gate is x/sigma at a wall and 1 inside."""

    name: Literal["gated"] = "gated"
    implementation: ClassVar[str] = "diffbench.diffusion.denoisers.boundary:Gated"


class KernelMixtureSpec(BoundaryDenoiserSpec):
    """The score of a mixture of two of the process's kernels, whose centres the network predicts.

    Exact in principle: a mixture of kernels obeys the boundary condition.  ``data_std`` is the data's standard
    deviation when data span [-1, 1], for the skip inside the centres.
    """

    name: Literal["kernel-mixture"] = "kernel-mixture"
    implementation: ClassVar[str] = "diffbench.diffusion.denoisers.boundary:KernelMixture"

    data_std: PositiveFloat = 0.5

    @property
    def outputs(self) -> int:
        """Three: two centres and a weight."""
        return 3


class ExactSpec(DenoiserSpec):
    """The exact denoiser of a distribution that is fitted to the training set."""

    needs: ClassVar[Needs] = (GAUSSIAN, ONE_ALPHA)


class GaussianSpec(ExactSpec):
    """The exact denoiser of a Gaussian with the training set's mean and covariance."""

    name: Literal["gaussian"] = "gaussian"
    implementation: ClassVar[str] = "diffbench.diffusion.denoisers.exact:GaussianDenoiser"
    gaussian: ClassVar[bool] = True


class MixtureSpec(ExactSpec):
    """The exact denoiser of a mixture: one Gaussian a class, fitted to the training set."""

    name: Literal["mixture"] = "mixture"
    implementation: ClassVar[str] = "diffbench.diffusion.denoisers.exact:MixtureDenoiser"


class EmpiricalSpec(ExactSpec):
    """The exact denoiser of the training set itself: it can only reproduce training images."""

    name: Literal["empirical"] = "empirical"
    implementation: ClassVar[str] = "diffbench.diffusion.denoisers.exact:EmpiricalDenoiser"


class ReflectedEmpiricalSpec(DenoiserSpec):
    """The exact denoiser of the training set itself between reflecting walls."""

    name: Literal["reflected-empirical"] = "reflected-empirical"
    implementation: ClassVar[str] = "diffbench.diffusion.denoisers.exact:ReflectedMixtureDenoiser"
    needs: ClassVar[Needs] = (WALLS,)
