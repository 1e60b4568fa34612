"""CUDA graphs of a network's calls, for small batches.

A call of a network launches some hundred kernels, each of which takes the CPU a few microseconds.  On few images a GPU
is done with them sooner, and waits.  A graph is recorded once, with the memory that it works in, and is one launch:

    inputs' memory <- x, c_noise, ..;    replay;    a copy of the output's memory

The kernels are those of the call that was recorded.  A graph belongs to the shapes of its inputs, and to the weights'
memory, whose contents may change.  Gradients are not recorded.  PyTorch, "CUDA graphs",
https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Function = Callable[..., Tensor]

#: The environment variable that asks for graphs, by 1.
VARIABLE = "DIFFBENCH_CUDA_GRAPHS"


class Graph:
    """The recorded call of a function on inputs of one kind; it costs three calls, and the memory of one.

    Raises:
        RuntimeError: when the function waits for the GPU, or does what else cannot be recorded.
    """

    def __init__(self, function: Function, inputs: Sequence[Tensor | None]) -> None:
        self.inputs = [None if each is None else each.clone() for each in inputs]
        # Libraries choose their kernels, and take their workspaces, in the first calls of a stream.
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(2):
                function(*self.inputs)
        torch.cuda.current_stream().wait_stream(beside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.output = function(*self.inputs)

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        """The function of other inputs of the same kind."""
        for own, given in zip(self.inputs, inputs, strict=True):
            if own is not None and given is not None:
                own.copy_(given)
        self.graph.replay()
        # The next call writes over the output, and solvers keep what they were given.
        return self.output.clone()


class Recorded:
    """The graphs of one function, each recorded once inputs of its kind have come often enough.

    With gradients the function is called as it is.  Where it cannot be recorded it is so from then on, with a warning.
    """

    #: The calls after which inputs are worth a graph, and how many graphs are kept: the last batch may be smaller.
    AFTER, MOST = 8, 4

    def __init__(
        self, record: Callable[[Function, Sequence[Tensor | None]], Function] = Graph
    ) -> None:
        self.record = record
        self.seen: dict[tuple[object, ...], int] = {}
        #: None where inputs cannot be recorded.
        self.graphs: dict[tuple[object, ...], Function | None] = {}

    def __call__(self, function: Function, *inputs: Tensor | None) -> Tensor:
        """The function of these inputs; it must be the same at every call."""
        if torch.is_grad_enabled():
            return function(*inputs)
        kind = tuple(each if each is None else described(each) for each in inputs)
        self.seen[kind] = self.seen.get(kind, 0) + 1
        if (
            self.seen[kind] > self.AFTER
            and kind not in self.graphs
            and len(self.graphs) < self.MOST
        ):
            self.graphs[kind] = self.graph_of(function, inputs)
        return (self.graphs.get(kind) or function)(*inputs)

    def graph_of(self, function: Function, inputs: Sequence[Tensor | None]) -> Function | None:
        """The graph of these inputs, or None where it cannot be recorded."""
        try:
            return self.record(function, inputs)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            warnings.warn(
                f"{VARIABLE}: the network is called without a graph: {reason}", stacklevel=2
            )
            return None


def described(x: Tensor) -> tuple[object, ...]:
    """What of a tensor a graph depends on, but for its numbers."""
    return (x.shape, x.stride(), x.dtype, x.device)


def asked_for(device: torch.device) -> bool:
    """Whether the environment asks for graphs, and the device is a GPU."""
    return device.type == "cuda" and os.environ.get(VARIABLE) == "1"
