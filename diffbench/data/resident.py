"""Training images on the device that uses them: as uint8, a quarter of the size of float32."""

from __future__ import annotations

import torch
from torch import Tensor

from diffbench.data.grey_levels import GreyLevels, Images


class TrainingImages:
    """Images in grey levels, uint8, kept on the device when they fit; indexing converts them to model scale.

    They fit when they take a quarter of the device's free memory at most.  Else they stay where they are, as a rule in
    a file mapped into memory that all jobs share, and rows are copied when asked for.
    """

    SHARE = 1 / 4

    def __init__(self, grey: GreyLevels, images: Images, device: torch.device) -> None:
        self.grey, self.device = grey, device
        stored = grey.checked(images)
        if device.type == "cuda":
            fits = stored.nbytes <= self.SHARE * torch.cuda.mem_get_info(device)[0]
            stored = stored.to(device) if fits else stored
        self.stored = stored

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of an image."""
        _, height, width, channels = self.stored.shape
        return channels, height, width

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return the images of these rows (B,), float32 (B, C, H, W) on the device."""
        chosen = self.stored[rows.to(self.stored.device)]
        on_gpu = self.device.type == "cuda"
        if on_gpu and not chosen.is_cuda:
            # A large copy from pageable memory would wait for the previous step.
            chosen = chosen.pin_memory()
        return self.grey.values(chosen.to(self.device, non_blocking=on_gpu))
