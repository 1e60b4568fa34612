"""Every network's spec: what is imported here is known by name."""

from diffbench.specs.network import ClassifierNetworkSpec, EncoderSpec, NetworkSpec, UNetSpec
from diffbench.specs.song import SongSpec

__all__ = ["ClassifierNetworkSpec", "EncoderSpec", "NetworkSpec", "SongSpec", "UNetSpec"]
