"""Specs of the feature extractors that samples are scored by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints

from diffbench.specs.base import (
    MOST_STEPS,
    Int,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Registered,
    Spec,
    StepCount,
    TogetherCount,
    nothing,
)
from diffbench.specs.weights import untold

#: torch-fidelity's Inception-v3: TensorFlow's weights of 2015-12-05 (Szegedy et al., 2015).
INCEPTION_URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
INCEPTION_SIZE = 95_628_359
#: Where the authors publish DINOv2's weights.
DINOV2_URL = "https://github.com/facebookresearch/dinov2"

#: How many images the classifier of a large data set sees in its training, each epoch anew: 2,000 batches of 100.
SEEN = 200_000

#: The number of bootstrap resamples; each costs the eigenvalues of a covariance.
Resamples = Annotated[NonNegativeInt, Field(le=MOST_STEPS)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class ExtractorSpec(Registered):
    """A feature extractor: its features give FID, KID, precision and recall, its logits the Inception score.

    resamples: bootstrap resamples for the standard errors of FID and Inception score; 0 for none.
    opinions: further scores, FID by other features: some of ``offers``.
    """

    kind: ClassVar[str] = "extractor"
    default_name: ClassVar[str | None] = "classifier"
    #: Whether its weights are made here, and kept beside the reference statistics.
    stored: ClassVar[bool] = False
    #: Whether it is large enough to need a GPU.
    heavy: ClassVar[bool] = False
    #: Whether its logits are of the data set's classes.
    tells_classes: ClassVar[bool] = False
    #: The further opinions that it can give.
    offers: ClassVar[tuple[str, ...]] = ()
    #: Whether it has logits: without them there are neither an Inception score nor a confidence.
    has_logits: ClassVar[bool] = True
    #: How it converts grey levels.
    conversion: ClassVar[str]
    #: Floating-point operations of an image, two per multiplication, where it cannot be timed without its weights.
    operations: ClassVar[float | None] = None

    name: str
    resamples: Resamples = 20
    opinions: tuple[str, ...] = Field(default=(), exclude_if=untold)

    @property
    def width(self) -> int | None:
        """The number of features of an image; None where it is not known before the network is made."""
        return None

    @property
    def others(self) -> int:
        """The number of further extractors with an FID of their own."""
        return len(self.opinions)

    def passes(self, images: int) -> int:
        """Return how many passes of an image it costs to make and validate it on that many training images."""
        return 0

    @property
    def files(self) -> dict[str, str]:
        """Configuration key -> file that is read, relative to the working directory."""
        return {}

    @property
    def origins(self) -> dict[str, str]:
        """Configuration key -> where such a file comes from."""
        return {}

    @property
    def checksums(self) -> dict[str, str | None]:
        """Configuration key -> the SHA-256 of such a file, by which results know it; None where it is not given."""
        return {}

    @property
    def reference_sha256(self) -> str | None:
        """The SHA-256 of the published reference; None without a reference, or where it is not known."""
        return None

    def with_reference(self, sha256: str) -> Self:
        """Return this spec with the SHA-256 of its published reference."""
        return self

    def suited(self, images: int | None) -> Self:
        """Return this spec with defaults that suit the number of training images; None where it is not known yet."""
        return self

    def with_opinions(self, names: Iterable[str]) -> Self:
        """Return this spec with further opinions."""
        return self.model_copy(update={"opinions": tuple(dict.fromkeys([*self.opinions, *names]))})


class TrainedExtractorSpec(ExtractorSpec):
    """A small seeded classifier, trained on the data set itself.

    features: the number of its features, the outputs of the penultimate layer.
    channels: widths of its convolutions; the second halves the resolution.
    epochs: passes over the training images: 40 by default, or where a plan knows that there are more than 5,000 images,
        as many as make 200,000 images, at least one.
    noise: standard deviation, in [-1, 1] scale, of the Gaussian noise added to its training images.
    variance: total variance to which its features are scaled, over the training images.
    threads: CPU threads it is trained with; the order of float sums depends on them.
    opinions: further scores, by the same network: ``sfid``, FID of its last convolution before the mean over pixels.
    """

    name: Literal["classifier"] = "classifier"
    implementation: ClassVar[str] = "diffbench.metrics.trained:Trained"
    stored: ClassVar[bool] = True
    tells_classes: ClassVar[bool] = True
    offers: ClassVar[tuple[str, ...]] = ("sfid",)
    conversion: ClassVar[str] = "grey levels to [-1, 1]"

    features: PositiveInt = 32
    channels: tuple[PositiveInt, ...] = (24, 48, 96)
    epochs: StepCount = 40
    batch: TogetherCount = 100
    lr: PositiveFloat = 3e-3
    noise: NonNegativeFloat = 0.1
    variance: PositiveFloat = 350.0
    seed: Int = 0
    threads: PositiveInt = 1
    opinions: tuple[Literal["sfid"], ...] = Field(default=(), exclude_if=untold)

    def suited(self, images: int | None) -> Self:
        """Return this spec with the number of epochs that suits the training images, where none was given."""
        if images is None or "epochs" in self.model_fields_set:
            return self
        usual: int = type(self).model_fields["epochs"].default
        return self.model_copy(update={"epochs": max(1, min(usual, round(SEEN / images)))})

    @property
    def width(self) -> int:
        return self.features

    def passes(self, images: int) -> int:
        """A step of training counts as three passes; validation is on the images and five damaged sets of them."""
        return images * (3 * self.epochs + 7)


class Dinov2File(Spec):
    """A file of DINOv2's weights; the network's sizes are read from it.

    weights: the file, in the authors' layout (``dinov2_vitl14_pretrain.pth`` is the usual one) or in that of
        transformers (safetensors); hashes of the spec contain its sha256, not its path.
    sha256: of the weights (``sha256sum FILE``).
    """

    weights: Annotated[str | None, BeforeValidator(nothing), Field(exclude=True)] = None
    sha256: Sha256

    @property
    def origin(self) -> str:
        """The address of the authors' files, and the SHA-256."""
        return f"such a file as those of {DINOV2_URL} (sha256 {self.sha256})"


class Dinov2Spec(Dinov2File, ExtractorSpec):
    """DINOv2's Vision Transformer, for photographs: its FID is FD-DINOv2.

    weights: the file, in the authors' layout (``dinov2_vitl14_pretrain.pth`` is the usual one) or in that of
        transformers (safetensors); hashes of the spec contain its sha256, not its path.  The environment variable
        DIFFBENCH_WEIGHTS can name it too.
    sha256: of the weights (``sha256sum FILE``).
    resamples: none by default; each costs the eigenvalues of a matrix with a row for each feature, usually 1024.
    """

    name: Literal["dinov2"] = "dinov2"
    implementation: ClassVar[str] = "diffbench.metrics.dinov2:PublishedDinov2"
    heavy: ClassVar[bool] = True
    has_logits: ClassVar[bool] = False
    conversion: ClassVar[str] = (
        "grey levels to 0..255, grey repeated to RGB, resized to 224x224 by Pillow's bicubic filter, ImageNet's mean "
        "and deviation, float32"
    )

    resamples: Resamples = 0

    @property
    def files(self) -> dict[str, str]:
        """``weights``, where it is given."""
        return {"weights": self.weights} if self.weights else {}

    @property
    def origins(self) -> dict[str, str]:
        """The address of the authors' files, and the SHA-256."""
        return {"weights": self.origin}

    @property
    def checksums(self) -> dict[str, str | None]:
        return {"weights": self.sha256}


class ReferenceFileSpec(Spec):
    """A published npz file of reference statistics, and perhaps images; ``reference: FILE`` is short for its path.

    path: a local copy; hashes of the spec contain its sha256, not its path.
    sha256: of the file; by default that of the file at ``path``.
    """

    path: Annotated[str | None, BeforeValidator(nothing), Field(exclude=True)] = None
    sha256: Annotated[Sha256 | None, BeforeValidator(nothing)] = None


def _named(value: object) -> object:
    """Return a mapping for a path, and None for ``none``."""
    return {"path": value} if isinstance(value, str) and value != "none" else nothing(value)


class InceptionSpec(ExtractorSpec):
    """Inception-v3 as torch-fidelity has it, for photographs; its weights are fetched once or given.

    weights: a local copy of the weights; hashes of the spec contain its sha256, not its path.  The environment variable
        DIFFBENCH_WEIGHTS can name it too; without either the weights are downloaded into the cache.
    sha256: of the weights.
    reference: a published file that replaces the training images: their statistics for FID and, where it has images,
        their features for KID, precision and recall.  Such files are ADM's reference batch and EDM's statistics.
    opinions: further scores, by the same network: ``clean_fid``, FID of images resized without aliasing, and
        ``sfid``, FID of a convolution whose pixels are kept apart.
    dinov2: a file of DINOv2's weights, for one more score, ``fd_dinov2``: the FID of its features.
    resamples: none by default; each costs the eigenvalues of a 2048 x 2048 matrix, seconds of a CPU.
    """

    name: Literal["inception"] = "inception"
    implementation: ClassVar[str] = "diffbench.metrics.inception:PublishedInception"
    heavy: ClassVar[bool] = True
    offers: ClassVar[tuple[str, ...]] = ("clean_fid", "sfid")
    #: 5.7 billion multiplications (torchvision's table of its models).
    operations: ClassVar[float | None] = 11.4e9
    conversion: ClassVar[str] = (
        "grey levels to 0..255, grey repeated to RGB, resized to 299x299 as TensorFlow 1 does, float32"
    )

    weights: Annotated[str | None, BeforeValidator(nothing), Field(exclude=True)] = None
    sha256: Sha256 = INCEPTION_SHA256
    reference: Annotated[ReferenceFileSpec | None, BeforeValidator(_named)] = None
    opinions: tuple[Literal["clean_fid", "sfid"], ...] = ()
    dinov2: Dinov2File | None = Field(default=None, exclude_if=untold)
    resamples: Resamples = 0

    @property
    def width(self) -> int:
        return 2048

    @property
    def others(self) -> int:
        return len(self.opinions) + (self.dinov2 is not None)

    @property
    def files(self) -> dict[str, str]:
        """``weights`` and ``reference``, those that are given."""
        given = {
            "weights": self.weights,
            "reference": self.reference and self.reference.path,
            "dinov2": self.dinov2 and self.dinov2.weights,
        }
        return {key: path for key, path in given.items() if path}

    @property
    def origins(self) -> dict[str, str]:
        """The address, where it is known, and the SHA-256."""
        published = self.sha256 == INCEPTION_SHA256
        known = (
            f" (sha256 {self.reference.sha256})" if self.reference and self.reference.sha256 else ""
        )
        return {
            "weights": f"{INCEPTION_URL if published else 'a file'} (sha256 {self.sha256})",
            "reference": "an npz file with mu and sigma, and perhaps arr_0, as guided-diffusion and EDM publish it"
            + known,
            "dinov2": self.dinov2.origin if self.dinov2 else "",
        }

    @property
    def checksums(self) -> dict[str, str | None]:
        return {
            "weights": self.sha256,
            "reference": self.reference_sha256,
            "dinov2": self.dinov2.sha256 if self.dinov2 else None,
        }

    @property
    def reference_sha256(self) -> str | None:
        return None if self.reference is None else self.reference.sha256

    def with_reference(self, sha256: str) -> Self:
        assert self.reference is not None
        known = self.reference.model_copy(update={"sha256": sha256})
        return self.model_copy(update={"reference": known})
