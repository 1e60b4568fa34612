"""Every network's spec: what is imported here is known by name."""

from diffbench.specs.network import ClassifierNetworkSpec, EncoderSpec, NetworkSpec, UNetSpec
from diffbench.specs.residual_unet import ADMSpec, DDPMOriginalSpec, IDDPMSpec, IHDMUNetSpec
from diffbench.specs.song import SongSpec
from diffbench.specs.vdm import ReflectedVDMSpec, VDMSpec

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
