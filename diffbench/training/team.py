"""The processes that train one network together, each on its share of every batch.

Every process draws the random numbers of a step for the whole batch, from the same stream, and keeps the share of its
rank r, b_1 + ... + b_n = B:

    gradient = sum_r (b_r/B) grad mean_r

so n processes train as one does, except for the rounding of sums.  PyTorch's DistributedDataParallel adds up the
gradients while they are computed, and divides them by n; ``Trainer`` undoes the division.

Source: "PyTorch Distributed" (Li et al. 2020, https://arxiv.org/abs/2006.15704).
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from diffbench.diffusion.core.streams import key
from diffbench.training.launch import launched


class Team(ABC):
    """The processes that train one network, as one of them sees them."""

    rank: int
    size: int

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and messages."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """The slice of ``count`` images that this process takes; shares differ by one at most."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    @abstractmethod
    def joined(self, network: nn.Module) -> nn.Module:
        """The network with the gradients of all processes; all processes start with the weights of the first."""

    @abstractmethod
    def adding(self, last_part: bool) -> AbstractContextManager[None]:
        """The context for forward and backward of one part of a share; gradients are exchanged in the last part."""

    @abstractmethod
    def seed(self, *numbers: int) -> None:
        """Seed the random numbers inside the network (dropout), differently in each process."""

    @abstractmethod
    def total(self, x: Tensor) -> Tensor:
        """The sum of x over all processes."""

    @abstractmethod
    def whole(self, x: Tensor, count: int) -> Tensor:
        """The numbers (count,) of all images, from those of this process's share, x."""

    @abstractmethod
    def agreed(self, step: int, *wishes: bool) -> tuple[bool, ...]:
        """For each wish, whether any process has it; all processes learn it at the same step."""


class SingleProcess(Team):
    """A process that trains alone: no method changes anything."""

    rank, size = 0, 1

    def joined(self, network: nn.Module) -> nn.Module:
        return network

    def adding(self, last_part: bool) -> AbstractContextManager[None]:
        return nullcontext()

    def seed(self, *numbers: int) -> None:
        """Seed nothing: the training state keeps the generator's state."""

    def total(self, x: Tensor) -> Tensor:
        return x

    def whole(self, x: Tensor, count: int) -> Tensor:
        return x

    def agreed(self, step: int, *wishes: bool) -> tuple[bool, ...]:
        return wishes


class ProcessGroup(Team):
    """Several processes that torchrun started, in one of them."""

    #: The number of steps between two exchanges of wishes: each exchange waits for the device.
    EVERY = 10

    def __init__(self, device: torch.device) -> None:
        from torch import distributed

        self.distributed, self.device = distributed, device
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def joined(self, network: nn.Module) -> nn.Module:
        """The network, wrapped by DistributedDataParallel; buffers are constants and are not exchanged."""
        from torch.nn.parallel import DistributedDataParallel

        self.network = DistributedDataParallel(
            network, broadcast_buffers=False, gradient_as_bucket_view=True
        )
        return self.network

    def adding(self, last_part: bool) -> AbstractContextManager[None]:
        return nullcontext() if last_part else self.network.no_sync()

    def seed(self, *numbers: int) -> None:
        """Seed dropout by a function of the numbers and the rank, so that the training state need not keep it."""
        torch.manual_seed(key("dropout", *numbers, self.rank))

    def total(self, x: Tensor) -> Tensor:
        x = x.clone()
        self.distributed.all_reduce(x)
        return x

    def whole(self, x: Tensor, count: int) -> Tensor:
        every = x.new_zeros(count)
        every[self.share(count)] = x
        return self.total(every)

    def agreed(self, step: int, *wishes: bool) -> tuple[bool, ...]:
        """For each wish, whether any process has it, at every tenth step; False at all others."""
        if step % self.EVERY:
            return (False,) * len(wishes)
        return tuple(self.total(torch.tensor(wishes, device=self.device).int()).bool().tolist())


@contextmanager
def joined_team(device: torch.device) -> Iterator[Team]:
    """The team of this process while the block lasts: the one that torchrun started, or this process alone."""
    if not launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield SingleProcess()
        return
    from torch import distributed

    if device.type == "cuda":
        distributed.init_process_group("nccl", device_id=device)
    else:
        distributed.init_process_group("gloo")
    try:
        yield ProcessGroup(device)
    finally:
        distributed.destroy_process_group()
