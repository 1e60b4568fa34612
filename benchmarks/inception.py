"""Features and logits by Inception-v3, here and in torch-fidelity, with weights that nobody trained.

    python benchmarks/inception.py [--images 8] [--rounds 5]

One thread's CPU time, in turns, from uint8 images of 32 x 32 to 2,048 features and 1,008 logits, float32 on both sides.
"""

import argparse
import copy
import tempfile
from pathlib import Path
from unittest import mock

import torch
from in_process import compare
from torch import nn

from diffbench.metrics.inception import FEATURES, Inception, folded, tensorflow_resize
from diffbench.metrics.torchvision_operators import torch_fidelity


def drawn() -> nn.Module:
    """torch-fidelity's network with random weights and batch statistics, so that there is something to fold."""
    torch_fidelity()
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    # Its constructor always reads a file.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "empty.pth")
        torch.save({}, path)
        with mock.patch.object(nn.Module, "load_state_dict"):
            network = theirs.FeatureExtractorInceptionV3("drawn", list(FEATURES), str(path))
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            random = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim == 4:
                tensor.copy_(random * (2 / tensor[0].numel()) ** 0.5)
            elif name.endswith(("running_var", "bn.weight")):
                tensor.copy_(1 + 0.2 * random.clamp(-2, 2))
            else:
                tensor.copy_(0.1 * random)
    return network.eval()


def main(images: int, rounds: int) -> None:
    network = drawn()
    ours = Inception(folded(copy.deepcopy(network)), 256, tensorflow_resize).eval()
    x = torch.randint(256, (images, 3, 32, 32), generator=torch.Generator().manual_seed(1)).byte()
    # Float32 rounds to 6e-8; through the network's 100 layers, and by folding, the features differ by some 3e-7.
    for mine, other in zip(ours(x), network(x), strict=True):
        assert (mine - other).norm() < 2e-6 * other.norm()
    functions = {"torch-fidelity": lambda: network(x), "ours": lambda: ours(x)}
    compare(functions, rounds, item="features by Inception-v3, fp32")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with torch.no_grad():
        main(options.images, options.rounds)
