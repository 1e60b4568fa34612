"""A model of another code base among the baselines: its module, wrapped as a network F(x, c_noise).

The benchmark file says what it predicts and which noise input it takes.  Its weights are a state_dict of its own names:

    diffbench import examples/foreign_model.yaml:theirs-scratch weights.pt --to models/theirs

and a variant with ``pretrained: models/theirs`` uses them without training.
"""

from typing import ClassVar, Literal

from torch import Tensor, cat, nn

from diffbench.networks.network import Network
from diffbench.specs.networks import NetworkSpec


class Theirs(nn.Module):
    """Stands for any module; this one takes images and the time 0 .. 999, and predicts eps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels + 1, 32, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(32, channels, 3, padding=1),
        )

    def forward(self, image: Tensor, time: Tensor) -> Tensor:
        level = (time / 1000)[:, None, None, None].expand(-1, 1, *image.shape[2:])
        return self.layers(cat([image, level], dim=1))


class Wrapped(Network):
    def __init__(self, spec: "TheirsSpec", **sizes: int) -> None:
        super().__init__()
        self.theirs = Theirs(sizes["in_channels"])

    def forward(self, x: Tensor, c_noise: Tensor, *others: Tensor | None) -> Tensor:
        return self.theirs(x, c_noise)


class TheirsSpec(NetworkSpec):
    name: Literal["theirs"] = "theirs"
    implementation: ClassVar[str | type] = Wrapped
    labels: ClassVar[bool] = False
    channels_vary: ClassVar[bool] = False
