"""Specs of measures of images: how far a restored image is from the true one, besides PSNR and SSIM."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from diffbench.specs.base import Registered, nothing
from diffbench.specs.extractors import Sha256


class ImageMeasureSpec(Registered):
    """A measure of restored images: one number for each of them, beside PSNR and SSIM.

    Its class is called with the spec, the images' ``shape`` (C, H, W) and the ``device``.
    """

    kind: ClassVar[str] = "image measure"
    #: Which values are better.
    better: ClassVar[Literal["lower", "higher"]] = "lower"

    name: str

    @property
    def metric(self) -> str:
        """The metric's name, by which ``config/tables.yaml`` says how it is shown and which values are better."""
        return self.name

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
    def described(self) -> str:
        """What the measure is, in words for the notes of a table."""
        return self.name

    def refusal(self, shape: tuple[int, int, int]) -> str | None:
        """Return why images (C, H, W) cannot be measured; None when they can."""
        return None


AnyImageMeasure = Annotated[
    SerializeAsAny[ImageMeasureSpec], BeforeValidator(ImageMeasureSpec.choose)
]

#: The networks of LPIPS: their names, and the smallest side of an image of which all layers leave something.
BACKBONES = {"alex": ("AlexNet", 31), "vgg": ("VGG-16", 16)}
#: The learnt weights of version 0.1, ``weights/v0.1/{net}.pth`` of the lpips package.
LPIPS_SHA256 = {
    "alex": "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    "vgg": "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
}


class LpipsSpec(ImageMeasureSpec):
    """LPIPS of each restoration, clipped, to the true image: lower is nearer.  Each network is a metric of its own.

    net: ``alex`` (images of at least 31 x 31) or ``vgg`` (16 x 16).
    backbone: the file of the network, in torchvision's layout; hashes of the spec contain its sha256, not its path.
    backbone_sha256: of this file (``sha256sum FILE``).
    weights: the file of the learnt weights, in the lpips package's layout.
    sha256: of this file; by default that of version 0.1.
    """

    name: Literal["lpips"] = "lpips"
    implementation: ClassVar[str] = "diffbench.metrics.lpips:Lpips"

    net: Literal["alex", "vgg"] = "alex"
    backbone: Annotated[str | None, BeforeValidator(nothing), Field(exclude=True)] = None
    backbone_sha256: Sha256
    weights: Annotated[str | None, BeforeValidator(nothing), Field(exclude=True)] = None
    sha256: Sha256

    @model_validator(mode="before")
    @classmethod
    def _published_by_default(cls, value: Any) -> Any:
        if isinstance(value, dict) and (known := LPIPS_SHA256.get(value.get("net", "alex"))):
            return {"sha256": known} | value
        return value

    @property
    def metric(self) -> str:
        return f"lpips_{self.net}"

    @property
    def files(self) -> dict[str, str]:
        """``backbone`` and ``weights``, those that are given."""
        given = {"backbone": self.backbone, "weights": self.weights}
        return {key: path for key, path in given.items() if path}

    @property
    def origins(self) -> dict[str, str]:
        """Who publishes such files, and their SHA-256."""
        return {
            "backbone": f"torchvision's {BACKBONES[self.net][0]} (sha256 {self.backbone_sha256})",
            "weights": f"weights/v0.1/{self.net}.pth of the lpips package (sha256 {self.sha256})",
        }

    @property
    def checksums(self) -> dict[str, str | None]:
        return {"backbone": self.backbone_sha256, "weights": self.sha256}

    @property
    def described(self) -> str:
        network = BACKBONES[self.net][0]
        return (
            f"{network} sha256 {self.backbone_sha256[:8]}, weights sha256 {self.sha256[:8]}, of each restoration, "
            "clipped to the range of images; lower is nearer"
        )

    def refusal(self, shape: tuple[int, int, int]) -> str | None:
        channels, height, width = shape
        network, least = BACKBONES[self.net]
        if min(height, width) < least:
            return f"net: {network} needs images of at least {least}x{least}, not {height}x{width}"
        if channels not in (1, 3):
            return f"net: {network} needs grey or RGB images, not {channels} channels"
        return None
