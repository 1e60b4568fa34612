"""Laws of networks F(x, c_noise, y, raw)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from diffbench.conform.law import IdleError, demand, law, unless
from diffbench.conform.trial import CLASSES, apart, normal
from diffbench.diffusion.core.returned import check_like, described
from diffbench.specs.networks import ClassifierNetworkSpec, NetworkSpec
from diffbench.specs.registry import build

#: float32 sums of a batch and of one image differ in their order: 1e-7 of numbers of order 1, through some 30 layers.
EQUAL = 1e-4
SIDES = (8, 16, 32)
COUNT = 2


def shape_of(spec: NetworkSpec | ClassifierNetworkSpec) -> tuple[int, int, int]:
    """The smallest images (1, H, W) that the network takes."""
    for side in SIDES:
        if (reason := spec.refusal((1, side, side))) is None:
            return 1, side, side
    raise IdleError(str(reason))


def labels_of(spec: NetworkSpec) -> int:
    """The number of labels that the network is tried with."""
    return CLASSES if spec.labels else 0


def built(spec: NetworkSpec) -> tuple[nn.Module, tuple[Tensor, Tensor, Tensor]]:
    """The network with random weights everywhere, also where they start at 0, and its inputs x, c_noise and raw."""
    shape = shape_of(spec)
    torch.manual_seed(0)
    network: nn.Module = build(
        spec, image_shape=shape, in_channels=1, out_channels=1, classes=labels_of(spec)
    )
    for each in network.parameters():
        nn.init.normal_(each, std=0.2)
    x = normal((COUNT, *shape), 1, torch.float32)
    return network.eval(), (x, torch.tensor([-0.4, 0.3]), x / 2)


@torch.no_grad()
def answer(
    network: nn.Module, inputs: tuple[Tensor, Tensor, Tensor], label: int | None = None
) -> Tensor:
    """The network's answer, with one label for all images or None."""
    x, c_noise, raw = inputs
    y = None if label is None else torch.full((len(x),), label)
    found: Tensor = network(x, c_noise, y, raw)
    return found


@law(
    NetworkSpec,
    "shapes and dtypes",
    "F is (B, out_channels, H, W), float32; also with labels and other channels, if the spec says so",
)
def shapes(spec: NetworkSpec) -> None:
    """What is asked for is returned."""
    network, inputs = built(spec)
    check_like(answer(network, inputs), inputs[0], "forward")
    if spec.labels:
        check_like(answer(network, inputs, 0), inputs[0], "forward")
    if not spec.channels_vary:
        return
    wide = build(spec, image_shape=shape_of(spec), in_channels=3, out_channels=2, classes=0).eval()
    x = inputs[0]
    found = answer(wide, (torch.cat([x, x, x], 1), *inputs[1:]))
    right = tuple(found.shape) == (COUNT, 2, *x.shape[2:])
    demand(right, f"with in_channels 3 and out_channels 2 forward returned {described(found)}")


@law(
    NetworkSpec,
    "the same answer twice, and inputs as they were",
    "eval: F(x) = F(x), image by image",
)
def pure(spec: NetworkSpec) -> None:
    """An answer depends on nothing but its image's inputs."""
    network, inputs = built(spec)
    kept = [each.clone() for each in inputs]
    label = 0 if spec.labels else None
    first = answer(network, inputs, label)
    torch.manual_seed(7)
    again = answer(network, inputs, label)
    same = all(torch.equal(a, b) for a, b in zip(inputs, kept, strict=True))
    demand(same, "forward changes its input in place")
    demand(torch.equal(first, again), f"two answers differ by {apart(first, again):.3g}")
    alone = answer(network, tuple(each[:1] for each in inputs), label)  # type: ignore[arg-type]
    error = apart(alone, first[:1])
    demand(error < EQUAL, f"an image's answer depends on the rest of the batch, by {error:.3g}")


@law(
    NetworkSpec,
    "noise and labels are used",
    "F depends on c_noise, and on y unless the spec has no labels; y = None is y = classes",
)
def told(spec: NetworkSpec) -> None:
    """The network is told the level of noise and the class."""
    network, inputs = built(spec)
    x, c_noise, raw = inputs
    first = answer(network, inputs)
    demand(
        apart(answer(network, (x, c_noise + 0.5, raw)), first) > 0,
        "c_noise is ignored: the answer is the same at another level",
    )
    if not spec.labels:
        return
    first = answer(network, inputs, 0)
    null = answer(network, inputs, CLASSES)
    used = [apart(answer(network, inputs, label), null) > 0 for label in range(CLASSES)]
    used.append(apart(answer(network, inputs, 2), first) > 0)
    demand(all(used), "the label is ignored: the answer is the same for two labels, or for none")
    error = apart(answer(network, inputs), null)
    demand(error < EQUAL, f"without y the answer differs from the null class's by {error:.3g}")


@law(NetworkSpec, "state survives", "load_state_dict(state_dict()) => the same F")
def survives(spec: NetworkSpec) -> None:
    """What is stored of a training gives the same network back."""
    network, inputs = built(spec)
    torch.manual_seed(9)
    again: Any = build(
        spec, image_shape=shape_of(spec), in_channels=1, out_channels=1, classes=labels_of(spec)
    )
    again.load_state_dict({name: each.clone() for name, each in network.state_dict().items()})
    label = 1 if spec.labels else None
    first, second = answer(network, inputs, label), answer(again.eval(), inputs, label)
    demand(
        torch.equal(first, second), f"after load_state_dict F differs by {apart(first, second):.3g}"
    )


@law(
    NetworkSpec,
    "a seed gives the same initial weights",
    "torch.manual_seed(s) => the same parameters",
)
def seeded(spec: NetworkSpec) -> None:
    """Initial weights are a function of the seed."""
    unless(not list(built(spec)[0].parameters()), "it has no parameters")
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(
            build(
                spec, image_shape=shape_of(spec), in_channels=1, out_channels=1, classes=0
            ).state_dict()
        )
    changed = [name for name, each in states[0].items() if not torch.equal(each, states[1][name])]
    demand(not changed, f"{changed[:1]} differ between two networks of one seed")


@torch.no_grad()
def logits(network: nn.Module, x: Tensor) -> Tensor:
    """The logits of a classifier for images at two levels of noise."""
    found: Tensor = network(x, torch.tensor([-0.4, 0.3]))
    return found


@law(
    ClassifierNetworkSpec,
    "shapes and dtypes",
    "logits (B, classes), float32, the same twice and after load_state_dict",
)
def classifies(spec: ClassifierNetworkSpec) -> None:
    """A classifier of noisy images gives a logit for each class."""
    shape = shape_of(spec)
    network, again = (build(spec, image_shape=shape, classes=CLASSES).eval() for _ in range(2))
    x = normal((COUNT, *shape), 1, torch.float32)
    kept = x.clone()
    found = logits(network, x)
    right = tuple(found.shape) == (COUNT, CLASSES) and found.dtype == x.dtype
    demand(right, f"forward returned {described(found)}; expected: float32 {(COUNT, CLASSES)}")
    demand(torch.equal(x, kept), "forward changes its input in place")
    demand(torch.equal(found, logits(network, x)), "two answers differ")
    again.load_state_dict(network.state_dict())
    demand(torch.equal(found, logits(again, x)), "after load_state_dict the logits differ")
