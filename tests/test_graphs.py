"""A recorded network answers as the network: which calls are recorded, and what their memory holds."""

import warnings
from functools import partial

import pytest
import torch
from torch import nn

from diffbench.specs.networks.network import UNetSpec
from diffbench.specs.registry import build
from diffbench.training import graphs
from diffbench.training.graphs import Recorded, asked_for


class Replayed:
    """What a graph does, without a GPU: the function's inputs and output are always in the same memory."""

    def __init__(self, function, inputs):
        self.inputs = [None if each is None else each.clone() for each in inputs]
        self.function, self.output = function, function(*self.inputs)

    def __call__(self, *inputs):
        return graphs.Graph.__call__(self, *inputs)

    @property
    def graph(self):
        return self

    def replay(self):
        self.output.copy_(self.function(*self.inputs))


def double(x, y):
    return 2 * x + (0 if y is None else y)


@torch.no_grad()
def test_calls_are_recorded_once_they_have_come_often():
    made = []

    def record(function, inputs):
        made.append([None if each is None else each.shape for each in inputs])
        return Replayed(function, inputs)

    network, answers = partial(Recorded(record), double), []
    inputs = [torch.full((3,), float(i)) for i in range(12)]
    for x in inputs:
        answers.append(network(x, None))
    assert made == [[(3,), None]]
    # Each answer has memory of its own.
    assert torch.equal(torch.stack(answers), 2 * torch.stack(inputs))
    # Other shapes, orders in memory and inputs are other graphs.
    for x, y in ((torch.ones(2), None), (torch.ones(3), torch.ones(3)), (torch.ones(6)[::2], None)):
        for _ in range(Recorded.AFTER + 1):
            assert torch.equal(network(x, y), double(x, y))
    assert len(made) == Recorded.MOST == 4
    # No more are kept.
    for _ in range(Recorded.AFTER + 2):
        assert torch.equal(network(torch.ones(5), None), torch.full((5,), 2.0))
    assert len(made) == 4


def test_gradients_are_not_recorded():
    def refuse(function, inputs):
        raise AssertionError

    network, x = partial(Recorded(refuse), double), torch.ones(3, requires_grad=True)
    for _ in range(Recorded.AFTER + 2):
        (gradient,) = torch.autograd.grad(network(x, None).sum(), x)
        assert gradient.tolist() == [2.0] * 3


@torch.no_grad()
def test_what_cannot_be_recorded_is_called_as_it_is():
    def refuse(function, inputs):
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    network, x = partial(Recorded(refuse), double), torch.ones(3)
    with pytest.warns(UserWarning, match=r"without a graph: operation not permitted$") as told:
        for _ in range(Recorded.AFTER + 3):
            assert torch.equal(network(x, None), 2 * x)
    assert len(told) == 1


@pytest.mark.parametrize(
    ("device", "asked", "wanted"), [("cpu", "1", False), ("cuda", "", False), ("cuda", "1", True)]
)
def test_graphs_are_for_a_gpu_and_asked_for(monkeypatch, device, asked, wanted):
    monkeypatch.setenv(graphs.VARIABLE, asked)
    assert asked_for(torch.device(device)) == wanted


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU: torch.cuda.is_available() is false"
)
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_a_graph_answers_as_the_network(monkeypatch, precision):
    from diffbench.specs.training import TrainingSpec
    from diffbench.training.models import NetworkRunner

    device = torch.device("cuda")
    spec = UNetSpec(channels=16, inner_channels=32)
    network = build(spec, image_shape=(1, 8, 8), in_channels=1, out_channels=1, classes=3)
    for module in network.modules():
        # The last convolution starts at zero.
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.1)
    network = network.to(device).eval().requires_grad_(False)
    running = TrainingSpec(steps=1)
    plain = NetworkRunner(network, device, running, precision)
    monkeypatch.setenv(graphs.VARIABLE, "1")
    fast = NetworkRunner(network, device, running, precision)
    generator = torch.Generator(device).manual_seed(0)
    answers = []
    with torch.no_grad(), warnings.catch_warnings():
        # It must not fall back to the network itself.
        warnings.filterwarnings("error", message=graphs.VARIABLE)
        for count in (16, 5):
            for _ in range(2 * Recorded.AFTER):
                x = torch.randn(count, 1, 8, 8, device=device, generator=generator)
                level = torch.randn(count, device=device, generator=generator)
                y = torch.randint(0, 4, (count,), device=device, generator=generator)
                answers.append((fast(x, level, y, x), plain(x, level, y, x)))
    assert [type(each) for each in fast.graphs.graphs.values()] == 2 * [graphs.Graph]
    assert plain.graphs is None
    for ours, theirs in answers:
        # Another kernel may have been chosen: sums of a few hundred products in another order, or 8 bits of mantissa.
        allowed = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 5e-2}[precision]
        assert (ours - theirs).norm() <= allowed * theirs.norm()
        assert theirs.norm() > 0
