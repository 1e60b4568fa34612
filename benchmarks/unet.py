"""DDPM's U-Net beside the same network of `diffusers`: a forward pass and a training step of random images.

    python benchmarks/unet.py [--channels 128] [--batch 16] [--rounds 5] [--precision fp32]

The same weights on both sides, one thread, in turns; channels last in memory on both sides of the forward pass.  With
bf16 the peer is under autocast.  `diffusers_unet.py` trains both on real images and compares what they learn.
"""

import argparse

import numpy as np
import torch
from diffusers_unet import import_weights, ours, theirs
from in_process import compare

from diffbench.data.datasets import Dataset
from diffbench.specs.data import ParquetSpec
from diffbench.training import machine


def main(options: argparse.Namespace) -> None:
    device = torch.device("cpu")
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (256, 32, 32, 3), dtype=np.uint8)
    labels = np.zeros(256, np.int64)
    dataset = Dataset(images, images, labels, labels, 256, ("all",), name="random")
    step, peer = theirs(options, dataset, device)
    own_step, network = ours(options, ParquetSpec(path="none", size=32), dataset, device)
    import_weights(network, peer, device)
    kind = f"{options.precision}, {options.channels} channels"
    functions = {"diffusers": step, "ours": own_step}
    compare(functions, options.rounds, f"U-Net, training step, {kind}", with_memory=True)

    # They have learnt from different draws.
    import_weights(network, peer, device)
    last = torch.channels_last
    x = torch.randn(options.batch, 3, 32, 32).contiguous(memory_format=last)
    t = torch.full((options.batch,), 500)
    cast = torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16")
    network.to(memory_format=last).eval()
    peer.to(memory_format=last).eval()
    with torch.no_grad(), cast:
        functions = {"diffusers": lambda: peer(x, t).sample, "ours": lambda: network(x, t.float())}
        mine, other = functions["ours"](), functions["diffusers"]()
        # float32 rounds by 6e-8 and bfloat16 by 4e-3, and some 50 layers add it up.
        allowed = 1e-4 if options.precision == "fp32" else 0.05
        assert (mine - other).norm() < allowed * other.norm()
        compare(functions, options.rounds, f"U-Net, forward pass, {kind}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    chosen = parser.parse_args()
    chosen.steps, chosen.warmup = 1000, 100
    machine.prepare("cpu")
    main(chosen)
