"""Training steps under several budgets, interleaved: what precision, memory order and the compiler bring.

    python benchmarks/training_step.py [CONFIG] [VARIANT] [--device cuda] [--steps 20] [--rounds 5]

On a CPU one thread's CPU time counts and nothing is compiled; on a GPU the clock does, and the share of its matrix peak
is shown beside.
"""

import argparse
import tempfile
import time
from pathlib import Path

from diffbench.jobs import data
from diffbench.jobs.train import denoiser_trainer
from diffbench.plan.loading import load_plan
from diffbench.training import machine
from diffbench.training.meter import matrix_peak, operations

ROOT = Path(__file__).resolve().parent.parent
BUDGETS = {
    "fp32": {"precision": "fp32"},
    "fp32, channels last": {"precision": "fp32", "channels_last": True},
    "bf16": {"precision": "bf16"},
    "bf16, channels last": {"precision": "bf16", "channels_last": True},
}
COMPILED = {
    "bf16, compiled": {"precision": "bf16", "compile": True},
    "bf16, channels last, compiled": {"precision": "bf16", "channels_last": True, "compile": True},
}


def seconds(trainer, steps: int) -> float:
    """Of one step."""
    on_gpu = trainer.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    start = clock()
    for _ in range(steps):
        loss = trainer.advance()
    float(loss)
    return (clock() - start) / steps


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("config", nargs="?", type=Path, default=ROOT / "config" / "digits.yaml")
    parser.add_argument("variant", nargs="?", default="ddpm-cosine")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    plan = load_plan([options.config], {}, ROOT)
    spec = plan.job("train", options.variant, plan.seeds(options.variant)[0]).spec
    device = machine.prepare(options.device, spec.training)
    budgets = BUDGETS | (COMPILED if device.type == "cuda" else {})
    with tempfile.TemporaryDirectory() as folder:
        data.run(plan.job("data").spec, Path(folder), "cpu")
        dataset = data.load(Path(folder), spec.data)
    trainers, best = {}, dict.fromkeys(budgets, float("inf"))
    for name, budget in budgets.items():
        off = {"channels_last": False, "compile": False}
        training = spec.training.model_copy(update=off | budget)
        variant = spec.model_copy(update={"training": training})
        trainers[name] = denoiser_trainer(variant, dataset, device)
        seconds(trainers[name], 3)
    for _ in range(options.rounds):
        for name, trainer in trainers.items():
            best[name] = min(best[name], seconds(trainer, options.steps))
    for name, trainer in trainers.items():
        speed, peak = (
            spec.training.batch / best[name],
            matrix_peak(device, budgets[name]["precision"]),
        )
        share = (
            f", {speed * operations(trainer) / peak:.1%} of {peak / 1e12:.0f} TFLOP/s"
            if peak
            else ""
        )
        ratio = best["fp32"] / best[name]
        print(
            f"{name}: {1000 * best[name]:.2f} ms a step, {speed:.0f} images/s, {ratio:.2f} x fp32{share}"
        )
