"""The signal-to-noise ratio of each process over its time."""

import matplotlib.pyplot as plt
import torch

from diffbench.diffusion import EDM, VE, VP, Discrete, SubVP, VPCosine

processes = {
    "VP": VP(),
    "VP, cosine": VPCosine(),
    "sub-VP": SubVP(),
    "VE": VE(),
    "EDM": EDM(),
    "DDPM, linear": Discrete(schedule="linear"),
    "DDPM, cosine": Discrete(schedule="cosine"),
}
figure, pane = plt.subplots(figsize=(6, 3.8), constrained_layout=True)
share = torch.linspace(0, 1, 200, dtype=torch.float64)
for name, process in processes.items():
    t = process.t_min + share * (process.t_max - process.t_min)
    t = t.round().unique() if "DDPM" in name else t
    log_snr = -2 * (process.ratio(t) / process.unit).log()
    pane.plot(t / process.t_max, log_snr, label=name)
pane.set(xlabel="time, as a share of the last", ylabel="log SNR", ylim=(-15, 15))
pane.legend(ncols=2, fontsize="small")
