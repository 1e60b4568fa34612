"""The group norms, against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F

from diffbench.networks.norms import AdaptiveNorm, GroupNorm


@pytest.mark.parametrize(("channels", "groups"), [(16, 8), (12, 4), (3, 1)])
@pytest.mark.parametrize("rows", [5, 1])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_pytorchs_norm(channels, groups, rows, order):
    generator = torch.Generator().manual_seed(0)
    x, dy = (
        torch.randn(5, channels, 6, 4, generator=generator, dtype=torch.float64).to(
            memory_format=order
        )
        for _ in range(2)
    )
    scale, shift = torch.randn(2, rows, channels, generator=generator, dtype=torch.float64)
    inputs = [each.requires_grad_() for each in (3 * x + 1, scale, shift)]
    x, scale, shift = inputs
    expected = F.group_norm(x, groups) * scale[..., None, None] + shift[..., None, None]
    found = AdaptiveNorm(channels).double()(x, scale, shift)
    # Each is a sum of at most 72 products of numbers below 1e2, in float64: errors below 72 * 1e2 * 1.1e-16 = 8e-13.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for got, wanted in zip(
        torch.autograd.grad(found, inputs, dy),
        torch.autograd.grad(expected, inputs, dy),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


def test_learnt_scale_and_shift_have_pytorchs_names_and_first_values():
    ours, pytorchs = GroupNorm(16), torch.nn.GroupNorm(8, 16)
    assert ours.state_dict().keys() == pytorchs.state_dict().keys()
    x = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    # float32: the norm is below 8, its rounding a few times 6e-8 of that.
    torch.testing.assert_close(ours(x), pytorchs(x), rtol=0, atol=4e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precisions_are_normalised_in_float32(dtype):
    x = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = GroupNorm(16)(x)
    assert found.dtype == torch.float32
    assert torch.equal(found, GroupNorm(16)(x.float()))
