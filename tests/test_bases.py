"""The cosine transform: a law of every orthonormal basis, its arrays, and the heat equation."""

import pytest
import torch
from scipy.fft import dctn, idctn
from toys import close, recorded

from diffbench.diffusion.core.bases import DCT, Identity
from diffbench.diffusion.core.process import float64

SHAPES = [(8, 8), (5, 12), (1, 3), (32, 32)]
every_shape = pytest.mark.parametrize("shape", SHAPES)


def images(shape: tuple[int, int]) -> torch.Tensor:
    return torch.randn(4, 3, *shape, generator=torch.Generator().manual_seed(1)).double()


@every_shape
def test_it_is_scipys_orthonormal_dct(shape: tuple[int, int]) -> None:
    basis, x = DCT(*shape), images(shape)
    want = dctn(x.numpy(), axes=(2, 3), norm="ortho")
    close(basis.coordinates(x), torch.from_numpy(want), atol=1e-12)
    close(
        basis.pixels(x), torch.from_numpy(idctn(x.numpy(), axes=(2, 3), norm="ortho")), atol=1e-12
    )


@every_shape
def test_it_is_orthonormal(shape: tuple[int, int]) -> None:
    basis, x = DCT(*shape), images(shape)
    close(basis.pixels(basis.coordinates(x)), x, atol=1e-12)
    close(basis.coordinates(x).square().sum(), x.square().sum())


@pytest.mark.parametrize("basis", [Identity(), DCT(5, 12)], ids=["identity", "dct"])
def test_laws_of_a_basis(basis: Identity | DCT) -> None:
    """Scaling is between two changes of coordinates; an image of one value has one coordinate."""
    x, factor = images((5, 12)), torch.rand(4, 1, 5, 12, generator=torch.Generator().manual_seed(2))
    factor = factor.double()
    want = basis.pixels(factor * basis.coordinates(x))
    close(basis.scale(factor, x), want, atol=1e-12)
    for one in (0.3, float64(0.3), float64([0.3] * 4).reshape(4, 1, 1, 1)):
        assert torch.equal(basis.scale(one, x), one * x)
    constant = torch.full_like(x, 0.7)
    if isinstance(basis, DCT):
        close(basis.scale(factor, constant), basis.on_constant(factor) * constant, atol=1e-12)
    noise = torch.randn(20000, 1, 5, 12, generator=torch.Generator().manual_seed(3)).double()
    got = basis.scale(factor[0].sqrt(), noise).square().mean()
    # The mean of 1.2e6 squares, each of variance at most 2: 5 standard errors.
    assert abs(got - basis.pixel_variance(factor[0]).mean()) < 5 * (2 / 1.2e6) ** 0.5


def test_heat_is_the_factor_of_its_eigenvalues() -> None:
    basis, x, tau = DCT(5, 12), images((5, 12)), float64([0.0, 0.01, 0.5, 40]).reshape(4, 1, 1, 1)
    want = basis.scale((-basis.eigenvalues * tau).exp(), x)
    close(basis.heat(x, tau), want, atol=1e-12)
    close(
        basis.heat(x, tau[1, 0, 0, 0]),
        basis.scale((-basis.eigenvalues * 0.01).exp(), x),
        atol=1e-12,
    )
    close(basis.heat(x, float64(1e6)), x.mean((2, 3), keepdim=True).expand_as(x), atol=1e-12)


def test_heat_of_a_cosine_dies_out_at_its_rate() -> None:
    """du/dtau = u'' with flat ends: cos(pi k (j + 1/2)/n) has the rate (pi k/n)^2 of the continuous equation."""
    n, k, tau = 16, 3, 0.8
    x = (torch.pi * k * (torch.arange(n).double() + 0.5) / n).cos().expand(1, 1, n, n)
    want = x * torch.exp(float64(-tau * (torch.pi * k / n) ** 2))
    close(DCT(n, n).heat(x, float64(tau)), want, atol=1e-12)


@pytest.mark.parametrize("size", [8, 32])
def test_the_blur_is_ihdms(size: int) -> None:
    arrays, basis = recorded(f"ihdm_blur{size}"), DCT(size, size)
    close(basis.eigenvalues, arrays["frequencies_squared"])
    close(basis.coordinates(arrays["x"]), arrays["dct"])
    close(basis.pixels(arrays["x"]), arrays["idct"])
    widths = arrays["blur_schedule"][arrays["fwd_steps"].long()].reshape(-1, 1, 1, 1)
    close(basis.heat(arrays["x"], widths**2 / 2), arrays["blurred"])


def test_the_precision_survives_autocast() -> None:
    x = images((8, 8)).float()
    with torch.autocast("cpu", torch.bfloat16):
        got = DCT(8, 8).coordinates(x)
    # float32 rounds sums of 16 products of numbers below 4 by some 1e-6; bfloat16 by 1e-2.
    close(got.double(), DCT(8, 8).coordinates(x.double()), atol=1e-5)
