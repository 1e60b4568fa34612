"""Streams: a draw is a function of its key and of nothing else."""

import pytest
import torch

from diffbench.diffusion.core.streams import key, normal_like, stream

LIKE = torch.empty(4, 1, 3, 3, dtype=torch.float64)


def draw(purpose: str, *numbers: int) -> torch.Tensor:
    return normal_like(LIKE, stream(purpose, *numbers))


def test_the_same_key_draws_the_same_whatever_ran_before() -> None:
    first = draw("train", 0, 812)
    torch.manual_seed(5)
    draw("train", 0, 811)
    torch.randn(7)
    assert torch.equal(draw("train", 0, 812), first)


def test_a_stream_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    draw("train", 0, 0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "other", [("sample", 0, 1), ("train", 1, 0), ("train", 0), ("train", 0, 10), ("train", 0, 1, 0)]
)
def test_another_purpose_seed_or_index_is_another_stream(other: tuple) -> None:
    assert not torch.equal(draw(*other), draw("train", 0, 1))


def test_keys_are_pinned_across_versions() -> None:
    """The first eight bytes of SHA-256, halved: `printf train/0/812 | sha256sum`."""
    assert key("train", 0, 812) == 0xBB55F2B2A41DB1C3 >> 1


def test_keys_do_not_collide_where_digits_move() -> None:
    keys = {key("a", i, j) for i in range(40) for j in range(40)}
    assert len(keys) == 1600


def test_chunks_are_the_same_in_any_order() -> None:
    """A sample set made chunk by chunk, each from its own stream, forwards and backwards."""
    forwards = [draw("sample", 0, chunk) for chunk in range(4)]
    backwards = [draw("sample", 0, chunk) for chunk in reversed(range(4))]
    assert torch.equal(torch.cat(forwards), torch.cat(backwards[::-1]))


def test_noise_is_standard_normal() -> None:
    """Mean and variance of 100,000 draws within 4 standard errors, 1/sqrt(n) and sqrt(2/n)."""
    z = normal_like(torch.empty(100_000, dtype=torch.float64), stream("test"))
    assert abs(z.mean()) <= 4 / 100_000**0.5
    assert abs(z.var() - 1) <= 4 * (2 / 100_000) ** 0.5
