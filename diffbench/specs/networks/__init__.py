"""Every network's spec: what is imported here is known by name."""

from diffbench.specs.networks.network import (
    ClassifierNetworkSpec,
    EncoderSpec,
    NetworkSpec,
    UNetSpec,
)
from diffbench.specs.networks.residual_unet import (
    ADMSpec,
    DDPMOriginalSpec,
    IDDPMSpec,
    IHDMUNetSpec,
)
from diffbench.specs.networks.song import SongSpec
from diffbench.specs.networks.vdm import ReflectedVDMSpec, VDMSpec

__all__ = [
    "ADMSpec",
    "ClassifierNetworkSpec",
    "DDPMOriginalSpec",
    "EncoderSpec",
    "IDDPMSpec",
    "IHDMUNetSpec",
    "NetworkSpec",
    "ReflectedVDMSpec",
    "SongSpec",
    "UNetSpec",
    "VDMSpec",
]
