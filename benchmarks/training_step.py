"""Training steps of the embedded benchmark's network in fp32 and bf16, interleaved, one thread."""

import tempfile
import time
from pathlib import Path

import torch

from diffbench.plan.runs import load_plan
from diffbench.stages import data
from diffbench.stages.train import denoiser_trainer

STEPS, ROUNDS = 20, 5

if __name__ == "__main__":
    root = Path(__file__).resolve().parent.parent
    plan = load_plan([root / "config" / "digits.yaml"], {}, root)
    spec = plan.run("train", "ddpm-cosine", 0, "").spec
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data.run(plan.run("data", "", 0, "").spec, Path(folder), "cpu")
        dataset = data.load(Path(folder), spec.data)
        trainers = {}
        for precision in ("fp32", "bf16"):
            training = spec.training.model_copy(update={"precision": precision})
            variant = spec.model_copy(update={"training": training})
            trainers[precision] = denoiser_trainer(variant, dataset, torch.device("cpu"))
        best = dict.fromkeys(trainers, float("inf"))
        for _ in range(ROUNDS):
            for precision, trainer in trainers.items():
                start = time.process_time()
                for _ in range(STEPS):
                    trainer.advance()
                best[precision] = min(best[precision], (time.process_time() - start) / STEPS)
    for precision, seconds in best.items():
        ratio = best["fp32"] / seconds
        print(f"{precision}: {1000 * seconds:.1f} CPU ms a step, {ratio:.2f} x fp32")
