r"""LPIPS: the distance of two images by the features of a classifier of photographs.

    d(x, y) = sum_l mean_hw  w_l . (u_l(x) - u_l(y))^2        u_l = f_l / (|f_l| + 1e-10), the norm over channels

with features f_l after the last activation before each of five taps, of x scaled to [-1, 1] and then by (x - m)/s, grey
repeated to RGB, and learnt weights w_l, one for each channel.

Zhang, Isola, Efros, Shechtman, Wang, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018,
https://arxiv.org/abs/1801.03924, equation 1, in version 0.1 of https://github.com/richzhang/PerceptualSimilarity.  The
networks are torchvision's AlexNet (Krizhevsky, 2014, https://arxiv.org/abs/1404.5997) and VGG-16 (Simonyan & Zisserman,
2015, https://arxiv.org/abs/1409.1556, configuration D), without their linear layers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffbench.metrics.restoration import ImageMeasure
from diffbench.pretrained.checkpoints import read
from diffbench.pretrained.conversion import CheckpointError, converted, rule, tensors
from diffbench.pretrained.importing import check_finite
from diffbench.specs.image_measures import BACKBONES, LpipsSpec
from diffbench.store.downloads import PublishedFile

#: Mean and deviation of red, green and blue, of images in [-1, 1].
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
#: What is added to the norm of a pixel's features.
SMALLEST = 1e-10


class Conv(NamedTuple):
    """A convolution, and whether the features after its activation are compared."""

    channels: int
    tapped: bool = False
    kernel: int = 3
    stride: int = 1
    padding: int = 1


#: Convolutions in their order; a number is the side of a max pooling of stride 2.
NETS: dict[str, tuple[Conv | int, ...]] = {
    "alex": (
        *(Conv(64, True, 11, 4, 2), 3, Conv(192, True, 5, 1, 2), 3),
        *(Conv(384, True), Conv(256, True), Conv(256, True)),
    ),
    "vgg": (
        *(Conv(64), Conv(64, True), 2, Conv(128), Conv(128, True), 2),
        *(Conv(256), Conv(256), Conv(256, True), 2, Conv(512), Conv(512), Conv(512, True), 2),
        *(Conv(512), Conv(512), Conv(512, True)),
    ),
}


class PerceptualDistance(nn.Module):
    """The distance of images by one network, ``alex`` or ``vgg``."""

    def __init__(self, net: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.taps: list[int] = []
        channels, widths = 3, []
        for each in NETS[net]:
            if isinstance(each, int):
                layers.append(nn.MaxPool2d(each, 2))
                continue
            convolution = nn.Conv2d(channels, each.channels, each.kernel, each.stride, each.padding)
            layers += [convolution, nn.ReLU()]
            channels = each.channels
            if each.tapped:
                self.taps.append(len(layers) - 1)
                widths.append(channels)
        self.features = nn.ModuleList(layers)
        self.linear = nn.ModuleList(nn.Conv2d(width, 1, 1, bias=False) for width in widths)

    def forward(self, x: Tensor, others: Tensor) -> Tensor:
        """Distances (K,) of one image x (C, H, W) to others (K, C, H, W), all on [0, 1]."""
        both = torch.cat([x[None], others]).expand(-1, 3, -1, -1)
        shift, scale = both.new_tensor([SHIFT, SCALE])[:, :, None, None]
        found = both.new_zeros(len(others))
        for f, weigh in zip(self.embed((2 * both - 1 - shift) / scale), self.linear, strict=True):
            u = f / (f.norm(dim=1, keepdim=True) + SMALLEST)
            found = found + weigh((u[1:] - u[:1]).square()).mean((1, 2, 3))
        return found

    def embed(self, x: Tensor) -> Iterable[Tensor]:
        """Yield the features (N, C_l, H_l, W_l) at each tap, of scaled images x (N, 3, H, W)."""
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.taps:
                yield x


class Lpips(ImageMeasure):
    """LPIPS with the weights of two files.

    Args:
        spec: the network and the files.
        shape: (C, H, W) of the images.
        device: the device of the network.

    Raises:
        StoreError: when there is no complete copy of a file.
        ValueError: when a file is of another network, or the images are too small.
    """

    def __init__(self, spec: LpipsSpec, shape: tuple[int, int, int], device: torch.device) -> None:
        if reason := spec.refusal(shape):
            raise ValueError(f"restorations.measures: lpips.{reason}")
        self.spec = spec
        with torch.device("meta"):
            network = PerceptualDistance(spec.net)
        backbone = self._file("backbone", BACKBONES[spec.net][0], spec.backbone_sha256)
        fill(network.features, backbone, "features.{}".format, ("classifier.",))
        fill(network.linear, self._file("weights", "LPIPS", spec.sha256), learnt)
        self.network = network.to(device).eval().requires_grad_(False)
        self.device = device

    def _file(self, key: str, called: str, sha256: str) -> Path:
        given = self.spec.files.get(key) or os.environ.get(
            f"DIFFBENCH_{self.spec.metric}_{key}".upper()
        )
        where = f"restorations.measures: lpips.{key}"
        file = PublishedFile(f"the weights of {called}", None, sha256, None, where)
        return file.local(Path(given) if given else None)

    def __call__(self, truth: Tensor, drawn: Tensor) -> Tensor:
        # TF32, the default of convolutions on a GPU, keeps only three digits.
        with (
            torch.no_grad(),
            torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False),
        ):
            found = [
                self.network(x.to(self.device, torch.float32), each.to(self.device, torch.float32))
                for x, each in zip(truth, drawn, strict=True)
            ]
        return torch.stack(found).double().cpu()


def fill(
    module: nn.Module, file: Path, theirs: Callable[[str], str], unused: tuple[str, ...] = ()
) -> None:
    """Give a module the tensors of a file.

    Args:
        module: the module, which may be on the meta device.
        file: a state_dict; nothing in it is executed.
        theirs: from a name of ours to that of the file.
        unused: how names of tensors that are not needed begin.

    Raises:
        CheckpointError: when the file is of another network; one line that names it.
    """
    contents = read(file)
    try:
        state = tensors(contents, "a file of weights")
        rules = [rule(ours, theirs(ours)) for ours in module.state_dict()]
        made = converted(state, rules, module, {key for key in state if key.startswith(unused)})
        check_finite(made)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    module.load_state_dict(made, assign=True)


def learnt(ours: str) -> str:
    """The lpips package's name of a layer of learnt weights."""
    return f"lin{ours.partition('.')[0]}.model.1.weight"
