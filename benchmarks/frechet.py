"""FID of sample sets to one reference, from fitted Gaussians: here and in torch-fidelity.

    python benchmarks/frechet.py [--width 2048] [--rounds 3]

One thread's CPU time, in turns.  The covariances are of full rank.  Here the reference's root is computed at its first
distance; the time of the first and that of each further one are two rows.
"""

import argparse

import numpy as np
from in_process import compare

from diffbench.metrics.distances import Fitted, FrechetTo
from diffbench.metrics.torchvision_operators import torch_fidelity
from diffbench.training import machine


def gaussian(width: int, seed: int) -> Fitted:
    """A mean and a covariance of full rank, of 3 x width drawn features with unlike spreads."""
    generator = np.random.default_rng(seed)
    z = generator.standard_normal((3 * width, width)) * np.geomspace(1, 0.1, width)
    z[:, 1:] += 0.5 * z[:, :-1]
    return Fitted(z.mean(0), np.cov(z, rowvar=False), None)


def main(width: int, rounds: int) -> None:
    torch_fidelity()
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    one, other = gaussian(width, 0), gaussian(width, 1)
    statistics = [{"mu": each.mu, "sigma": each.sigma} for each in (one, other)]
    known = FrechetTo(statistics[1])
    theirs = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    # FID is a difference of numbers of the size of the traces.
    trace = sum(float(np.trace(each["sigma"])) for each in statistics)
    assert abs(known(one) - theirs) < 1e-10 * trace, (known(one), theirs)
    theirs_again = {"torch-fidelity": lambda: fid_statistics_to_metric(*statistics, verbose=False)}
    for name, ours in (
        ("first", lambda: FrechetTo(statistics[1])(one)),
        ("each further", lambda: known(one)),
    ):
        item = f"FID of {width} features, {name} to a reference"
        compare({**theirs_again, f"ours, {name}": ours}, rounds, item=item)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    machine.prepare("cpu")
    main(options.width, options.rounds)
