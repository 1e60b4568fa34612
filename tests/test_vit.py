"""DINOv2's network against transformers and the authors' code, on parameters that both sides make (`fills`)."""

import pytest
import torch
from fills import filled_layout
from record_peers import SHAPES, pictures
from toys import recorded

from diffbench.metrics.dinov2 import network_of


@pytest.mark.parametrize("name", ["net_dinov2", "net_dinov2_gated", "net_dinov2_authors"])
def test_features_are_those_of_the_peers(name):
    """Features have the size 1 of a layer norm's output, in float32: 1e-5 is about a hundred roundings."""
    network = network_of(filled_layout(name, torch.float32))
    for i, (height, width) in enumerate(SHAPES):
        with torch.no_grad():
            found = network(pictures(i, 2, 3, height, width))[:, 0].double()
        wanted = recorded(name)[f"out_{height}x{width}"]
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
