"""The error of solvers on Gaussian data, whose exact denoiser is known, against evaluations of the denoiser."""

import matplotlib.pyplot as plt
import torch

from diffbench.diffusion import DDIM, VP, Counted, DPMSolver, GaussianDenoiser, Heun, sample, stream
from diffbench.specs.denoisers import GaussianSpec

process = VP()
mean, covariance = (
    torch.tensor([0.3, -0.2]).double(),
    torch.diag(torch.tensor([0.3, 0.02]).double()),
)
exact = GaussianDenoiser(GaussianSpec(), process, {"mean": mean, "covariance": covariance})
solvers = {"DDIM": DDIM, "Heun": Heun, "DPM-Solver++": DPMSolver}


def drawn(solver, steps):
    """Images that a solver makes of always the same noise, and how often it called the denoiser."""
    counted = Counted(exact)
    built = solver(counted, steps=steps, grid="log-snr")
    return sample(built, (64, 2, 1, 1), stream("gallery"), dtype=torch.float64), counted.calls


truth, _ = drawn(Heun, 2000)
figure, pane = plt.subplots(figsize=(5, 3.6), constrained_layout=True)
for name, solver in solvers.items():
    found = [drawn(solver, steps) for steps in (8, 16, 32, 64, 128)]
    errors = [float((x - truth).square().mean().sqrt()) for x, _ in found]
    pane.loglog([calls for _, calls in found], errors, marker="o", label=name)
pane.set(xlabel="evaluations of the denoiser", ylabel="root mean squared error")
pane.legend()
