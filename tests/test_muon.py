"""Muon's step against singular values, and what is beside it: AdamW, the budget's rate, a resumed training."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from test_trainer import trainer_of
from torch import Tensor, nn

from diffbench.specs.training import MuonSpec, TrainingSpec
from diffbench.training.muon import CONSTANTS, ITERATIONS, Muon, orthogonalised

ADAMW = {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1, "fused": True}


def by_singular_values(matrix: Tensor) -> Tensor:
    """O(A) by the singular values of A, each through the polynomial."""
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = s / s.norm()
    a, b, c = CONSTANTS
    for _ in range(ITERATIONS):
        s = a * s + b * s**3 + c * s**5
    return u @ s.diag() @ v


def matrices(count: int, rows: int, columns: int) -> Tensor:
    return torch.randn(
        count, rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (7, 7), (1, 9)])
def test_orthogonalised_is_the_polynomial_of_each_singular_value(shape) -> None:
    found = orthogonalised(matrices(3, *shape).unbind())
    for matrix, got in zip(matrices(3, *shape), found, strict=True):
        # A condition of 100 at most, and five polynomials: far above the rounding of 1e-16.
        torch.testing.assert_close(got, by_singular_values(matrix), rtol=0, atol=1e-11)


def test_singular_values_from_a_hundredth_on_come_near_one() -> None:
    s = torch.linspace(0.01, 1, 500, dtype=torch.float64)
    # A matrix of norm 1 with each of them: the rest of the norm is in a second singular value.
    diagonal = torch.stack([s, (1 - s**2).clamp_min(1e-4).sqrt()], dim=1)
    found = torch.stack(
        [each[0, 0] for each in orthogonalised(torch.diag_embed(diagonal).unbind())]
    )
    assert float(found.min()) > 0.67 and float(found.max()) < 1.15


def test_a_zero_gradient_moves_nothing() -> None:
    (found,) = orthogonalised([torch.zeros(3, 4)])
    assert torch.equal(found, torch.zeros(3, 4))


def network() -> nn.Sequential:
    """Weights of two shapes, two of one; and what is not a weight of a convolution."""
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(2, 3, 3),
        nn.Conv2d(3, 3, 1),
        nn.Conv2d(3, 3, 1),
        nn.Flatten(),
        nn.Linear(12, 2),
    )
    return nn.Sequential(*layers).double()


def with_gradients(module: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for each in module.parameters():
        each.grad = torch.randn(each.shape, dtype=each.dtype, generator=generator)


def test_convolutions_take_the_rule_and_the_rest_is_adamw() -> None:
    moved, plain = network(), network()
    wanted = {
        name: each.detach().clone() for name, each in moved.named_parameters() if each.ndim == 4
    }
    averages = {name: torch.zeros_like(each) for name, each in wanted.items()}
    muon = Muon(MuonSpec(lr=0.03, momentum=0.8), moved.parameters(), **ADAMW)
    adamw = torch.optim.AdamW(plain.parameters(), **ADAMW)
    for step in range(3):
        rate = 0.01 * (1 - 0.3 * step)  # the budget's rate falls, and Muon's with it, from 0.03
        for optimiser, module in ((muon, moved), (adamw, plain)):
            with_gradients(module, step)
            optimiser.param_groups[0]["lr"] = rate
        given = {name: each.grad for name, each in moved.named_parameters()}
        muon.step()
        adamw.step()
        assert all(each.grad is given[name] for name, each in moved.named_parameters())
        for name, weight in wanted.items():
            averages[name] = 0.8 * averages[name] + 0.2 * given[name]
            ahead = (0.8 * averages[name] + 0.2 * given[name]).flatten(1)
            size = 0.2 * max(ahead.shape) ** 0.5
            change = (size * by_singular_values(ahead)).view_as(weight)
            wanted[name] = weight * (1 - 3 * rate * 0.1) - 3 * rate * change
    for name, weight in moved.named_parameters():
        expected = wanted.get(name, plain.get_parameter(name))
        torch.testing.assert_close(weight, expected, rtol=0, atol=1e-11)


def test_a_step_changes_entries_by_about_a_fifth_of_the_rate() -> None:
    """As AdamW does: the singular values are .68 to 1.14, so the factor 0.2 becomes .13 to .23."""
    convolution = nn.Conv2d(32, 32, 3)
    before = convolution.weight.detach().clone()
    muon = Muon(MuonSpec(lr=0.05), convolution.parameters(), **ADAMW | {"weight_decay": 0.0})
    with_gradients(convolution, 0)
    muon.step()
    change = (convolution.weight.detach() - before).square().mean().sqrt()
    assert 0.13 < float(change) / 0.05 < 0.23


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_resumed_training_goes_on_in_the_same_bits(digits, tmp_path, channels_last) -> None:
    budget = {"muon": {"lr": 0.02, "momentum": 0.9}, "channels_last": channels_last}
    trainer, resumed = (trainer_of(digits, "edm", **budget) for _ in range(2))
    trainer.advance()
    state = {name: each.contiguous() for name, each in trainer.state().items()}
    save_file(state | {"step": torch.tensor(1)}, tmp_path / "state")
    resumed.restore(load_file(tmp_path / "state"))
    for _ in range(2):
        assert torch.equal(resumed.advance(), trainer.advance())
    for name, expected in trainer.state().items():
        assert torch.equal(resumed.state()[name], expected), name


def test_a_budget_without_muon_is_written_as_before() -> None:
    assert "muon" not in TrainingSpec(steps=1).model_dump()
    assert TrainingSpec.model_validate({"steps": 1, "muon": "none"}) == TrainingSpec(steps=1)


@pytest.mark.parametrize(("key", "value"), [("lr", 1.5), ("lr", 0), ("momentum", 1), ("steps", 5)])
def test_what_muon_cannot_be_is_refused(key: str, value: float) -> None:
    with pytest.raises(ValidationError, match=f"muon.{key}"):
        TrainingSpec.model_validate({"steps": 1, "muon": {key: value}})
