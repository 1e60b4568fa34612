"""A digit under each process, at times that are even from the first to the last."""

import matplotlib.pyplot as plt
import torch

from diffbench.data.datasets import Digits
from diffbench.data.grey_levels import GreyLevels
from diffbench.diffusion import VE, VP, Blurring, Reflected, SubVP, stream
from diffbench.specs.data import DigitsSpec

digits = Digits(DigitsSpec()).load()
processes = {
    "VP": VP(),
    "sub-VP": SubVP(),
    "VE": VE(sigma_max=10),
    "blurring": Blurring(sigma_max=2, image_shape=(1, 8, 8)),
    "reflected": Reflected(),
}
figure, panes = plt.subplots(len(processes), 8, figsize=(8, 5.2), constrained_layout=True)
for row, (name, process) in zip(panes, processes.items(), strict=True):
    ends = process.spec.low, process.spec.high
    grey = GreyLevels(digits.levels, *ends, process.spec.bounded)
    x_0 = grey.to_model(digits.train[:1])
    eps = torch.randn(x_0.shape, generator=stream("gallery"))
    for pane, t in zip(row, torch.linspace(process.t_min, process.t_max, len(row)), strict=True):
        x_t = process.diffuse(x_0, t[None], eps)
        pane.imshow(x_t[0, 0].numpy(), cmap="gray", vmin=ends[0], vmax=ends[1])
        pane.set(xticks=[], yticks=[])
    row[0].set_ylabel(name)
