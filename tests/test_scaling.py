"""Training in float16: the loss's scale, what is left out, and what a resumed training takes up."""

from __future__ import annotations

import pytest
import torch
from test_trainer import CPU, spec_of, trainer_of
from torch import Tensor

from diffbench.jobs.train import denoiser_trainer
from diffbench.specs.training import TrainingSpec
from diffbench.training.scaling import DynamicLossScale, LossScale, all_finite, loss_scale
from diffbench.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("strange", [torch.nan, torch.inf, -torch.inf])
def test_one_number_that_is_not_finite_is_found(strange: float) -> None:
    gradients = [torch.full((3, 2), -6e4), torch.zeros(5), torch.tensor(1e-30)]
    assert all_finite(gradients)
    for each in gradients:
        kept = each.flatten()[-1].clone()
        each.flatten()[-1] = strange
        assert not all_finite(gradients)
        each.flatten()[-1] = kept
    assert all_finite(gradients)


def test_the_scale_is_halved_after_an_overflow_and_doubled_after_2000_good_steps() -> None:
    scale, one = DynamicLossScale(), torch.ones(2)
    assert scale.factor == 2**16
    assert not scale.unscale([torch.tensor([1.0, torch.inf])])
    assert scale.factor == 2**15
    for step in range(2000):
        assert scale.factor == 2**15, step
        assert scale.unscale([one.fill_(1)])
    assert scale.factor == 2**16 and one.tolist() == [2**-15] * 2
    # An overflow starts the count again.
    for _ in range(1999):
        scale.unscale([one])
    scale.unscale([torch.tensor(torch.nan)])
    scale.unscale([one])
    assert scale.factor == 2**15
    while not scale.exhausted:
        scale.unscale([torch.tensor(torch.nan)])
    assert scale.factor == 2**-15


@pytest.mark.parametrize(
    ("keys", "factor", "kind"),
    [
        ({}, 1, LossScale),
        ({"precision": "bf16"}, 1, LossScale),
        ({"precision": "fp16"}, 2**16, DynamicLossScale),
        ({"precision": "fp16", "loss_scale": "1e2"}, 100, LossScale),
    ],
)
def test_float16_alone_has_a_scale(keys: dict, factor: float, kind: type) -> None:
    scale = loss_scale(TrainingSpec(steps=1, **keys))
    assert type(scale) is kind and scale.factor == factor


def test_a_scale_without_float16_is_refused() -> None:
    with pytest.raises(ValueError, match=r"loss_scale: 100 belongs to fp16, but precision is bf16"):
        TrainingSpec(steps=1, precision="bf16", loss_scale=100)


def gradients(trainer: Trainer) -> list[Tensor]:
    """Of the first batch, as the optimiser would see them."""
    trainer.backward(trainer.drawn())
    found = [each.grad for each in trainer.network.parameters() if each.grad is not None]
    assert trainer.loss_scale.unscale(found)
    return found


def test_the_gradient_is_that_of_float32_but_for_rounding(digits) -> None:
    small = {"reduction": "mean", "clip": "none"}
    full, half = (
        gradients(trainer_of(digits, "edm", precision=p, **small)) for p in ("fp32", "fp16")
    )
    both = zip(full, half, strict=True)
    # Ten bits of mantissa and some thirty roundings one after another: 30 x 2^-11 of each tensor's norm at most.
    for expected, found in both:
        assert float((found - expected).norm()) <= 30 * 2**-11 * float(expected.norm()) + 1e-7
    # Whatever the scale, a power of two, the rounding is the same where nothing underflows.
    trainer = trainer_of(digits, "edm", precision="fp16", loss_scale=2.0**14, **small)
    for expected, found in zip(half, gradients(trainer), strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-7)


def test_what_a_scale_is_for(digits) -> None:
    """Where the loss is a mean over 11 x 64 numbers its gradient is of order 2^-9: times 2^-30, nothing is left."""
    lost = trainer_of(digits, "edm", precision="fp16", loss_scale=2.0**-30, reduction="mean")
    kept = trainer_of(digits, "edm", precision="fp16", reduction="mean")
    norms = [sum(float(each.norm()) for each in gradients(trainer)) for trainer in (lost, kept)]
    assert norms[0] == 0 < norms[1]


def overflowing(trainer: Trainer, steps: set[int]) -> Trainer:
    """The trainer whose gradients overflow at some of its steps, as they would in float16."""
    weight = next(iter(trainer.network.parameters()))

    def hook(gradient: Tensor) -> Tensor:
        return gradient + torch.inf if trainer.step in steps else gradient

    weight.register_hook(hook)
    return trainer


def test_a_step_whose_gradient_overflows_is_left_out(digits) -> None:
    # The gradient of a sum would overflow by itself in the first steps.
    trainer = overflowing(trainer_of(digits, "edm", precision="fp16", reduction="mean"), {1})
    trainer.advance()
    before = {name: each.clone() for name, each in trainer.state().items()}
    trainer.advance()
    after = trainer.state()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed <= {"scale.factor", "scale.good", "rng.cpu"}
    assert after["scale.factor"] == before["scale.factor"] / 2
    # The batch is gone, the next step sees the next one.
    assert trainer.step == 2
    trainer.advance()
    assert all(bool(each.isfinite().all()) for each in trainer.network.parameters())
    assert float(trainer.state()["optimiser.0.step"]) == 2


def test_a_constant_scale_leaves_nothing_out_and_finite_mends(digits) -> None:
    """As in EDM's training on ImageNet."""
    budget = {"precision": "fp16", "loss_scale": 100, "finite": True}
    trainer = overflowing(trainer_of(digits, "edm", **budget), {0})
    trainer.advance()
    assert float(trainer.state()["optimiser.0.step"]) == 1
    assert all(bool(each.isfinite().all()) for each in trainer.network.parameters())


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_training_ends_in_the_same_bits(digits, stop: int) -> None:
    """Stopped after its first step, which was left out, and after the second that was."""
    lost = {0, 2}
    whole = overflowing(trainer_of(digits, "importance", precision="fp16", steps=6), lost)
    first = overflowing(trainer_of(digits, "importance", precision="fp16", steps=6), lost)
    for _ in range(stop):
        first.advance()
    saved = {name: each.clone() for name, each in first.state().items()}
    resumed = overflowing(trainer_of(digits, "importance", precision="fp16", steps=6), lost)
    resumed.restore(saved | {"step": torch.tensor(first.step)})
    for _ in range(6):
        whole.advance()
    while resumed.step < 6:
        resumed.advance()
    # Besides the two, the scale finds out by itself what the bound allows.
    assert float(whole.state()["scale.factor"]) <= 2**14
    for name, expected in whole.state().items():
        assert torch.equal(resumed.state()[name], expected), name


def test_a_state_without_the_scale_is_refused(digits) -> None:
    trainer = trainer_of(digits, "edm")
    trainer.advance()
    half = trainer_of(digits, "edm", precision="fp16")
    with pytest.raises(RuntimeError, match=r"lacks scale\.factor: remove it"):
        half.restore(trainer.state() | {"step": torch.tensor(1)})


def test_an_overflow_is_sound_until_no_scale_helps(digits) -> None:
    loss = torch.tensor(torch.inf)
    plain, half = trainer_of(digits, "edm"), trainer_of(digits, "edm", precision="fp16")
    assert not plain.sound(loss) and half.sound(loss)
    half.loss_scale.factor = 2.0**-15
    assert not half.sound(loss) and half.sound(torch.tensor(1.0))


def test_the_network_computes_in_float16(digits) -> None:
    trainer = denoiser_trainer(spec_of("edm", precision="fp16"), digits, CPU)
    seen = []
    trainer.network.stem.register_forward_hook(lambda module, x, out: seen.append(out.dtype))
    trainer.advance()
    assert set(seen) == {torch.float16}
    assert {each.dtype for each in trainer.network.parameters()} == {torch.float32}
