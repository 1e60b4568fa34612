"""A step of training: a batch in parts is a batch, flips are flips, and the loss has the paper's scale.

The comparisons of parts are in float64, where only the order of sums differs: 1e-16 each, and less than 1e-9 after a
few steps of Adam, which divides by gradients.
"""

from __future__ import annotations

import os
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffbench.data.datasets import Dataset
from diffbench.data.resident import TrainingImages
from diffbench.jobs.classifier import classifier_trainer
from diffbench.jobs.train import denoiser_trainer
from diffbench.specs.jobs import ClassifierSpec, TrainSpec
from diffbench.training import gpus, models
from diffbench.training.meter import matrix_peak, operations
from diffbench.training.trainer import Trainer, portions

CPU = torch.device("cpu")
STEPS, BATCH = 4, 11
CHAIN = {"name": "discrete", "schedule": "cosine", "steps": 5}
#: Whatever draws: dequantisation, labels and their dropout, masks, losses that times learn from, flips.
CASES = {
    "edm": {
        "dequantise": "uniform",
        "process": {"name": "edm"},
        "denoiser": {"predict": "edm"},
        "objective": {"name": "edm"},
        "training": {"flip": True, "reduction": "sum", "clip": "none", "ema": "half-life"},
    },
    "importance": {
        "process": CHAIN,
        "denoiser": {"predict": "eps", "conditional": True, "variance": "learned"},
        "objective": {
            "name": "vlb",
            "variance": "learned",
            "label_dropout": 0.3,
            # Two losses of each of the six times are seen within the steps: then the probabilities differ.
            "times": {"name": "importance", "history": 2, "draw": "stratified"},
        },
    },
    "masks": {
        "process": {"name": "vp"},
        "denoiser": {"predict": "eps", "masks": True},
        "objective": {
            "name": "score-matching",
            "times": {"name": "uniform", "draw": "low-discrepancy"},
        },
    },
}
NETWORK = {"name": "unet", "channels": 8, "inner_channels": 8, "heads": 2, "embedding": 16}


def spec_of(case: str, **training: object) -> TrainSpec:
    base = CASES[case]
    budget = {"steps": STEPS, "batch": BATCH, "lr": 1e-2, **base.get("training", {}), **training}
    about = {"variant": case, "seed": 3, "data": {"name": "digits"}, "network": NETWORK}
    return TrainSpec.model_validate({**about, **base, "training": budget})


def trainer_of(digits: Dataset, case: str, **training: object) -> Trainer:
    return denoiser_trainer(spec_of(case, **training), digits, CPU)


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks and images in float64."""
    built, taken = models.build_network, TrainingImages.__getitem__
    monkeypatch.setattr(models, "build_network", lambda *spec: built(*spec).double())
    monkeypatch.setattr(TrainingImages, "__getitem__", lambda *rows: taken(*rows).double())


@pytest.mark.parametrize("parts", [2, 3, BATCH])
@pytest.mark.parametrize("case", CASES)
def test_a_batch_in_parts_is_the_batch(digits, double, case, parts):
    whole, cut = trainer_of(digits, case), trainer_of(digits, case, accumulate=parts)
    losses = [(whole.advance(), cut.advance()) for _ in range(STEPS)]
    assert losses[0][0].dtype == torch.float64
    torch.testing.assert_close(*zip(*losses, strict=True), rtol=1e-9, atol=0)
    ends = whole.state(), cut.state()
    for name, expected in ends[0].items():
        if name.partition(".")[0] != "rng":
            torch.testing.assert_close(ends[1][name], expected, rtol=1e-9, atol=1e-9, msg=name)
    if case == "importance":
        assert whole.objective.times.probability.std() > 0.01


def test_no_part_is_larger_than_the_others_by_more_than_one():
    for count in range(1, 30):
        for parts in range(1, count + 1):
            sizes = [len(range(count)[part]) for part in portions(count, parts)]
            assert sum(sizes) == count
            assert len(sizes) == parts
            assert max(sizes) - min(sizes) in (0, 1)


def test_more_parts_than_images_are_refused():
    with pytest.raises(
        ValueError, match="accumulate: a batch of 11 cannot be divided into 12 parts"
    ):
        spec_of("edm", accumulate=12)


def test_flips_mirror_half_of_the_images_and_change_no_other_draw(digits):
    plain, flipped = (trainer_of(digits, "masks", flip=flip, batch=400) for flip in (False, True))
    before, after = plain.drawn(), flipped.drawn()
    assert torch.equal(before.rows, after.rows)
    assert all(
        torch.equal(a, b) for a, b in zip(before.draws, after.draws, strict=True) if a is not None
    )
    x0, mirrored = plain.pixels(before), after.mirrored
    assert torch.equal(flipped.pixels(after)[mirrored], x0[mirrored].flip(3))
    assert torch.equal(flipped.pixels(after)[~mirrored], x0[~mirrored])
    # Of 400 fair coins 200 +- 10 show heads.
    assert abs(int(mirrored.sum()) - 200) < 50
    # A function of the step alone.
    assert torch.equal(trainer_of(digits, "masks", flip=True, batch=400).drawn().mirrored, mirrored)
    flipped.step = 1
    assert not torch.equal(flipped.drawn().mirrored, mirrored)


@pytest.mark.parametrize(("reduction", "factor"), [("sum", 64), ("half-sum", 32)])
def test_the_reduction_scales_the_gradient_and_not_the_loss(digits, reduction, factor):
    mean, other = (trainer_of(digits, "masks", reduction=name) for name in ("mean", reduction))
    losses = [trainer.backward(trainer.drawn()) for trainer in (mean, other)]
    assert torch.equal(*losses)
    pairs = zip(mean.network.parameters(), other.network.parameters(), strict=True)
    # A power of two: exact.
    assert all(torch.equal(factor * a.grad, b.grad) for a, b in pairs)


def test_gradients_are_made_finite_where_that_is_asked_for(digits):
    plain, mended = (trainer_of(digits, "edm", finite=each, lr=1.0) for each in (False, True))
    # The first step's gradients alone are the same: weights differ thereafter.
    broken = torch.tensor([torch.nan, torch.inf, -torch.inf])
    found = []
    for trainer in (plain, mended):
        weight = next(each for each in trainer.network.parameters() if each.numel() > 3)
        weight.register_hook(lambda g: torch.cat([broken, g.flatten()[3:]]).view_as(g))
        trainer.advance()
        found.append(weight.grad.flatten())
    assert torch.equal(found[0][:3].nan_to_num(7), broken.nan_to_num(7))
    assert found[1][:3].tolist() == [0, 1e5, -1e5]
    assert torch.equal(found[0][3:], found[1][3:])
    finite = [
        all(bool(each.isfinite().all()) for each in trainer.network.parameters())
        for trainer in (plain, mended)
    ]
    assert finite == [False, True]


def test_a_classifiers_loss_is_of_one_number_an_image(digits):
    network = {"name": "encoder", "channels": 8, "inner_channels": 8, "embedding": 16}
    shared = {"seed": 3, "data": {"name": "digits"}, "process": {"name": "vp"}, "network": network}
    training = {"steps": 1, "batch": 8, "reduction": "sum"}
    spec = ClassifierSpec.model_validate({**shared, "times": "uniform", "training": training})
    assert classifier_trainer(spec, digits, CPU).scale == 1


def test_the_optimisers_constants_are_the_specs(digits):
    found = trainer_of(digits, "edm", eps=1e-4, betas=[0.5, 0.75], weight_decay=0.5).optimiser
    assert {key: found.defaults[key] for key in ("eps", "betas", "weight_decay", "fused")} == {
        "eps": 1e-4,
        "betas": (0.5, 0.75),
        "weight_decay": 0.5,
        "fused": True,
    }


def test_images_are_kept_as_levels_and_given_in_model_scale(digits):
    trainer = trainer_of(digits, "edm")
    assert trainer.images.stored.dtype == torch.uint8
    assert trainer.images.shape == (1, 8, 8)
    rows = torch.tensor([5, 5, 1499, 0])
    expected = trainer.grey.to_model(digits.train[rows.numpy()])
    assert torch.equal(trainer.images[rows], expected)


def test_channels_last_changes_the_rounding_alone_and_resumes_in_the_same_bits(digits, tmp_path):
    plain, ordered = (trainer_of(digits, "edm", channels_last=order) for order in (False, True))
    kernel = ordered.network.enter.enter[2].weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert not kernel.is_contiguous()
    seen = []
    ordered.network.stem.register_forward_pre_hook(lambda module, x: seen.append(x[0]))
    assert float(ordered.advance()) == pytest.approx(float(plain.advance()), rel=1e-5)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    save_file(
        {name: each.contiguous() for name, each in ordered.state().items()}
        | {"step": torch.tensor(1)},
        tmp_path / "state",
    )
    resumed = trainer_of(digits, "edm", channels_last=True)
    resumed.restore(load_file(tmp_path / "state"))
    for _ in range(2):
        assert torch.equal(resumed.advance(), ordered.advance())
    for name, expected in ordered.state().items():
        assert torch.equal(resumed.state()[name], expected), name


@pytest.mark.slow
def test_a_compiled_network_trains_and_is_saved_as_the_plain_one(digits, monkeypatch):
    # The compiler's front alone, which calls the same operations: compiling would take a minute.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain, compiled = (trainer_of(digits, "masks", compile=each) for each in (False, True))
    assert operations(compiled) == operations(plain)
    for _ in range(2):
        assert torch.equal(compiled.advance(), plain.advance())
    assert compiled.state().keys() == plain.state().keys()
    assert all(
        torch.equal(compiled.averaged()[name], each) for name, each in plain.averaged().items()
    )


GPU = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU: torch.cuda.is_available() is false"
)
FAST = [
    {"precision": "bf16"},
    {"precision": "tf32"},
    {"channels_last": True},
    {"precision": "bf16", "channels_last": True, "compile": True},
]


@pytest.mark.gpu
@pytest.mark.slow
@GPU
@pytest.mark.parametrize("fast", FAST, ids=lambda each: "+".join(map(str, each.values())))
def test_what_is_for_speed_trains_as_the_cpu_does(digits, fast):
    device = torch.device("cuda")
    ours = denoiser_trainer(spec_of("edm", **fast), digits, device)
    theirs = trainer_of(digits, "edm")
    assert ours.images.stored.device.type == "cuda"
    for _ in range(STEPS):
        # Eight bits of mantissa and a few layers; TF32 has ten.
        assert float(ours.advance()) == pytest.approx(float(theirs.advance()), rel=5e-2)
    assert operations(ours) > 0
    assert 1e12 < matrix_peak(device, ours.training.precision) < 1e16
    # Resumed as it was left.
    again = denoiser_trainer(spec_of("edm", **fast), digits, device)
    again.restore({**{k: v.cpu() for k, v in ours.state().items()}, "step": torch.tensor(STEPS)})
    assert float(again.advance()) == pytest.approx(float(ours.advance()), rel=1e-3)


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_a_step_does_not_wait_for_the_gpu(digits, precision):
    trainer = denoiser_trainer(spec_of("edm", precision=precision), digits, torch.device("cuda"))
    trainer.advance()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = trainer.advance()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert loss.isfinite()


@pytest.mark.gpu
@GPU
def test_images_that_do_not_fit_stay_on_the_cpu(digits, monkeypatch):
    device = torch.device("cuda")
    kept = denoiser_trainer(spec_of("edm"), digits, device)
    monkeypatch.setattr(TrainingImages, "SHARE", 0)
    copied = denoiser_trainer(spec_of("edm"), digits, device)
    assert (kept.images.stored.device.type, copied.images.stored.device.type) == ("cuda", "cpu")
    assert torch.equal(kept.pixels(kept.drawn()), copied.pixels(copied.drawn()))


@pytest.mark.gpu
@GPU
def test_the_lock_is_of_a_real_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv(gpus.FOLDER, str(tmp_path))
    monkeypatch.setattr(gpus, "_held", [])
    names = gpus.visible()
    assert len(set(names)) == torch.cuda.device_count() == len(gpus.entries())
    assert gpus.claim(names) == [0]
    assert (tmp_path / f"{names[0]}.lock").exists()
    os.close(gpus._held[0])
