"""Operators: the laws of a singular value decomposition over all of them, each against its H written directly, and
the official arrays."""

import io
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import ValidationError
from scipy.fft import dctn
from scipy.linalg import hadamard
from torch import Tensor
from toys import close, recorded

from diffbench.diffusion.core.process import float64
from diffbench.diffusion.core.streams import stream
from diffbench.diffusion.inverse.operators.dense import Dense
from diffbench.diffusion.inverse.operators.fourier import MRI, measured_rows
from diffbench.diffusion.inverse.operators.jpeg import CHROMINANCE, JPEG, LUMINANCE, table
from diffbench.diffusion.inverse.operators.operator import Operator
from diffbench.diffusion.inverse.operators.radon import CT, projections
from diffbench.diffusion.inverse.operators.selections import Colourisation, Selection
from diffbench.diffusion.inverse.operators.separable import Bicubic, Separable, convolution_matrix
from diffbench.specs.operators import (
    AnisotropicBlurSpec,
    BicubicSpec,
    BlockAverageSpec,
    BlurSpec,
    BoxMaskSpec,
    ColourisationSpec,
    CompressedSensingSpec,
    CTSpec,
    DrawnMaskSpec,
    GaussianBlurSpec,
    IdentitySpec,
    ImageShape,
    JPEGSpec,
    MRISpec,
    OperatorSpec,
    RandomMaskSpec,
    UniformBlurSpec,
)
from diffbench.specs.registry import build


def randn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def singular_values(operator: Operator) -> Tensor:
    """The min(M, D) singular values, decreasing, float64."""
    count = min(math.prod(operator.measurement_shape), len(operator.s))
    return operator.s.sort(descending=True).values[:count]


# Each H once more, from its definition: (B, C, H, W) -> (B, M), M in the order of y.


def kept(operator: Operator, x: Tensor) -> Tensor:
    """The pixels of a mask that only the seed knows: read from what H makes of an image of the pixels' numbers."""
    numbers = torch.arange(x[0, 0].numel()).double().reshape(x.shape[2:]).expand_as(x[:1])
    index = operator.apply(numbers)[0]
    assert torch.equal(index, index.unique(sorted=True, dim=1)) and (index == index[0]).all()
    lost = x[0, 0].numel() - index.shape[1]
    assert lost == round(operator.spec.missing * x[0, 0].numel())
    return x.flatten(2)[..., index[0].long()]


def unboxed(operator: Operator, x: Tensor) -> Tensor:
    spec = operator.spec
    top = (x.shape[2] - spec.height) // 2 if spec.top is None else spec.top
    left = (x.shape[3] - spec.width) // 2 if spec.left is None else spec.left
    inside = [
        (i, j)
        for i in range(x.shape[2])
        for j in range(x.shape[3])
        if not (top <= i < top + spec.height and left <= j < left + spec.width)
    ]
    return torch.stack([x[..., i, j] for i, j in inside], -1)


def undrawn(operator: Operator, x: Tensor) -> Tensor:
    text = enumerate("".join(operator.spec.rows))
    return torch.stack([x.flatten(2)[..., i] for i, pixel in text if pixel == "."], -1)


def cubic(t: float) -> float:
    """Keys's kernel, as it stands in the paper with a = -1/2."""
    a, t = -0.5, abs(t)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


def windowed(x: float, lobes: int) -> float:
    """Lanczos's kernel: sin(pi x) sin(pi x/n) n/(pi x)^2."""
    if x == 0 or abs(x) >= lobes:
        return float(x == 0)
    return lobes * math.sin(math.pi * x) * math.sin(math.pi * x / lobes) / (math.pi * x) ** 2


#: Kernel -> its values, and how far it reaches.
SAMPLED = {
    "cubic": (cubic, 2),
    "linear": (lambda x: max(0.0, 1 - abs(x)), 1),
    "lanczos2": (lambda x: windowed(x, 2), 2),
    "lanczos3": (lambda x: windowed(x, 3), 3),
}


def sampled(operator: Operator, x: Tensor) -> Tensor:
    """Reflect the image (the last pixel twice), then correlate with the kernel at every f-th place."""
    f, (value, radius) = operator.spec.factor, SAMPLED[operator.spec.kernel]
    first = -radius * f + (f + 1) // 2
    taps = float64([value((first + m - (f - 1) / 2) / f) for m in range(2 * radius * f)])
    kernel = (taps[:, None] * taps / taps.sum() ** 2)[None, None]
    room = (-first, 2 * radius * f)
    padded = np.pad(x.numpy(), [(0, 0), (0, 0), room, room], "symmetric")
    flat = torch.from_numpy(padded).flatten(0, 1)[:, None]
    small = F.conv2d(flat, kernel, stride=f).unflatten(0, x.shape[:2])[:, :, 0]
    return small[..., : x.shape[2] // f, : x.shape[3] // f]


def kernel_of(spec: BlurSpec) -> Tensor:
    offsets = torch.arange(-(spec.size // 2), spec.size // 2 + 1).double()
    if isinstance(spec, UniformBlurSpec):
        return torch.full((spec.size, spec.size), 1 / spec.size**2, dtype=torch.float64)
    down, along = (
        (spec.std_rows, spec.std_columns)
        if isinstance(spec, AnisotropicBlurSpec)
        else (spec.std, spec.std)
    )
    kernel = torch.exp(-(offsets[:, None] ** 2) / (2 * down**2) - offsets**2 / (2 * along**2))
    return kernel / kernel.sum()


def blurred(operator: Operator, x: Tensor) -> Tensor:
    """Convolve with zeros outside; then leave out small singular values, by numpy's decomposition of all of it."""
    kernel, shape = kernel_of(operator.spec), x.shape[2:]

    def convolve(images: Tensor) -> Tensor:
        return F.conv2d(images, kernel[None, None], padding=operator.spec.size // 2)

    matrix = convolve(torch.eye(shape.numel()).double().reshape(-1, 1, *shape)).flatten(1).T
    U, s, Vh = np.linalg.svd(matrix.numpy())
    s[s < operator.spec.smallest * s[0]] = 0
    return x.flatten(2) @ torch.from_numpy((U * s) @ Vh).T


def sensed(operator: Operator, x: Tensor) -> Tensor:
    n, draws = x[0, 0].numel(), stream("compressed-sensing", operator.spec.seed)
    order = torch.randperm(n, generator=draws)
    if not operator.spec.shuffle:
        order = order.sort().values
    rows = torch.randperm(n, generator=draws)[: round(operator.spec.measured * n)].sort().values
    matrix = torch.from_numpy(hadamard(n)).double() / math.sqrt(n)
    return x.flatten(2)[..., order] @ matrix[rows].T


def transformed(operator: Operator, x: Tensor) -> Tensor:
    rows = torch.fft.fft2(x, norm="ortho")[..., operator.rows, :]
    return torch.view_as_real(rows).permute(0, 1, 4, 2, 3)


def area(corners: list[tuple[float, float]], low: float, high: float) -> float:
    """Of the part of a polygon between two vertical lines: Sutherland and Hodgman's clipping, then Gauss's formula."""
    for sign, line in ((1, low), (-1, high)):
        clipped = []
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            d0, d1 = sign * (x0 - line), sign * (x1 - line)
            if d0 >= 0:
                clipped.append((x0, y0))
            if d0 * d1 < 0:
                clipped.append((line, y0 + (y1 - y0) * d0 / (d0 - d1)))
        corners = clipped
    pairs = zip(corners, corners[1:] + corners[:1], strict=True)
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairs)) / 2


def scanned(operator: Operator, x: Tensor) -> Tensor:
    (height, width), (angles, strips) = x.shape[2:], operator.measurement_shape[1:]
    matrix = torch.zeros(angles, strips, height, width, dtype=torch.float64)
    for k in range(angles):
        theta = math.pi * k / angles
        c, s = math.cos(theta), math.sin(theta)
        for i in range(height):
            for j in range(width):
                square = [(j, i), (j + 1, i), (j + 1, i + 1), (j, i + 1)]
                moved = [(u - width / 2, v - height / 2) for u, v in square]
                turned = [(u * c + v * s, v * c - u * s) for u, v in moved]
                for b in range(strips):
                    matrix[k, b, i, j] = area(turned, b - strips / 2, b + 1 - strips / 2)
    return torch.einsum("kbij,ncij->nckb", matrix, x)


DIRECT = {
    "identity": lambda operator, x: x,
    "random-mask": kept,
    "box-mask": unboxed,
    "mask": undrawn,
    "colourisation": lambda operator, x: x.mean(1, keepdim=True),
    "block-average": lambda operator, x: F.avg_pool2d(x, operator.spec.factor),
    "bicubic": sampled,
    "uniform-blur": blurred,
    "gaussian-blur": blurred,
    "anisotropic-blur": blurred,
    "compressed-sensing": sensed,
    "mri": transformed,
    "ct": scanned,
}

CASES: list[tuple[OperatorSpec, ImageShape]] = [
    (IdentitySpec(), (3, 3, 5)),
    (RandomMaskSpec(), (1, 5, 7)),
    (RandomMaskSpec(missing=0.9, seed=3), (3, 4, 6)),
    (BoxMaskSpec(height=2, width=3), (3, 5, 4)),
    (BoxMaskSpec(height=1, width=2, top=0, left=5), (1, 3, 7)),
    (DrawnMaskSpec(rows=("..#", "#.#")), (3, 2, 3)),
    (ColourisationSpec(), (3, 3, 5)),
    (ColourisationSpec(), (2, 4, 4)),
    (BlockAverageSpec(factor=3), (1, 6, 9)),
    (BlockAverageSpec(factor=2), (3, 4, 6)),
    (BicubicSpec(factor=2), (3, 4, 6)),
    (BicubicSpec(factor=3), (1, 3, 12)),
    (BicubicSpec(factor=4), (1, 8, 8)),
    (BicubicSpec(factor=2, kernel="linear"), (3, 4, 6)),
    (BicubicSpec(factor=3, kernel="lanczos2"), (1, 3, 12)),
    (BicubicSpec(factor=4, kernel="lanczos3"), (1, 8, 16)),
    (UniformBlurSpec(size=3), (3, 4, 6)),
    (UniformBlurSpec(size=9), (1, 8, 8)),
    (UniformBlurSpec(size=5, smallest=0.2), (1, 5, 7)),
    (GaussianBlurSpec(size=5, std=10), (1, 7, 6)),
    (GaussianBlurSpec(size=3, std=0.7), (3, 5, 4)),
    (AnisotropicBlurSpec(size=9, std_rows=20, std_columns=1), (1, 9, 7)),
    (AnisotropicBlurSpec(size=3, std_rows=0.3, std_columns=2), (3, 4, 5)),
    (CompressedSensingSpec(), (1, 4, 8)),
    (CompressedSensingSpec(measured=0.6, seed=2), (3, 4, 4)),
    (CompressedSensingSpec(measured=0.6, seed=2, shuffle=False), (3, 4, 4)),
    (MRISpec(acceleration=2), (1, 8, 6)),
    (MRISpec(acceleration=1.2, seed=1), (1, 8, 5)),
    (MRISpec(acceleration=1.7, seed=4), (3, 5, 4)),
    (CTSpec(angles=6), (1, 5, 7)),
    (CTSpec(angles=3, full=3), (3, 4, 4)),
]
every_case = pytest.mark.parametrize(
    ("spec", "shape"),
    CASES,
    ids=[f"{spec.name}-{'x'.join(map(str, shape))}" for spec, shape in CASES],
)


def dense(operator: Operator) -> np.ndarray:
    """The matrix (M, D), column by column."""
    size = math.prod(operator.image_shape)
    units = torch.eye(size, dtype=torch.float64).reshape(size, *operator.image_shape)
    return operator.apply(units).flatten(1).T.numpy()


def images(shape: ImageShape, seed: int = 1) -> Tensor:
    return randn(4, *shape, seed=seed)


def laws(operator: Operator) -> None:
    """H^T is the adjoint, V orthogonal, U orthonormal, s and H^+ are those of the matrix."""
    x, D = images(operator.image_shape), math.prod(operator.image_shape)
    y, u = randn(4, *operator.measurement_shape, seed=2), randn(4, D, seed=3)
    matrix, measured = dense(operator), operator.s > 0
    applied = operator.apply(x)
    assert applied.shape == y.shape and operator.s.shape == (D,)
    assert operator.s.dtype == torch.float64
    close((applied * y).flatten(1).sum(1), (x * operator.adjoint(y)).flatten(1).sum(1))
    assert operator.coordinates(x).shape == (4, D)
    close(operator.pixels(operator.coordinates(x)), x)
    close(operator.coordinates(operator.pixels(u)), u)
    close(operator.coordinates(x).square().sum(1), x.square().sum((1, 2, 3)))
    close(operator.spectral(operator.measurement(u)), torch.where(measured, u, 0.0))
    projected = operator.measurement(operator.spectral(y))
    close(operator.measurement(operator.spectral(projected)), projected)
    close((projected * (y - projected)).flatten(1).sum(1), torch.zeros(4).double())
    close(torch.from_numpy(matrix) @ x.flatten(1).T, applied.flatten(1).T)
    want = torch.from_numpy(np.linalg.svd(matrix, compute_uv=False))
    close(singular_values(operator), want)
    inverse = torch.from_numpy(np.linalg.pinv(matrix, rcond=1e-8))
    close(operator.pseudo_inverse(y).flatten(1), y.flatten(1) @ inverse.T, atol=1e-9)
    assert operator.zero_filled(y).shape == x.shape


def test_every_linear_operator_has_a_case() -> None:
    known = {
        name
        for name, spec in OperatorSpec.known.items()
        if spec.linear and spec.__module__.startswith("diffbench.")
    }
    assert {spec.name for spec, _ in CASES} == set(DIRECT) == known


@every_case
def test_the_laws_of_a_decomposition(spec: OperatorSpec, shape: ImageShape) -> None:
    assert spec.facts == ("image_shape",)
    laws(build(spec, image_shape=shape))


@every_case
def test_it_is_the_operator_written_directly(spec: OperatorSpec, shape: ImageShape) -> None:
    operator = build(spec, image_shape=shape)
    x = images(shape)
    want = DIRECT[spec.name](operator, x)
    close(operator.apply(x).flatten(1), want.flatten(1))
    operator.check(want.reshape(4, *operator.measurement_shape))


@every_case
def test_precision_is_the_inputs_under_autocast(spec: OperatorSpec, shape: ImageShape) -> None:
    operator, x = build(spec, image_shape=shape), images(shape)
    want = operator.adjoint(operator.apply(x))
    with torch.autocast("cpu", torch.bfloat16):
        got = operator.adjoint(operator.apply(x.float()))
    assert got.dtype == torch.float32
    # float32 rounds sums of some 50 numbers below 4, weights below 1, by 1e-5 at most; bfloat16 by 1e-2.
    close(got.double(), want, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("shape", [(20, 12), (5, 18)], ids=["whole", "per channel"])
def test_the_laws_of_a_matrix(shape: tuple[int, int]) -> None:
    image_shape = (2, 2, 3) if shape[1] == 12 else (3, 3, 6)
    operator = Dense(IdentitySpec(), image_shape, randn(*shape))
    laws(operator)
    x = images(image_shape)
    want = x.reshape(-1, shape[1]) @ randn(*shape).T
    close(operator.apply(x).flatten(), want.flatten())


def test_the_laws_of_a_mask_that_differs_from_channel_to_channel() -> None:
    mask = randn(3, 4, 5) > 0.3
    operator = Selection(IdentitySpec(), (3, 4, 5), mask)
    laws(operator)
    x = images((3, 4, 5))
    assert torch.equal(operator.apply(x), x[:, mask])


def test_a_matrix_of_low_rank() -> None:
    laws(Dense(IdentitySpec(), (1, 3, 4), randn(9, 3) @ randn(3, 12, seed=2)))


def test_the_colours_axis_may_already_be_the_first() -> None:
    weights = float64([1.0, 0.0, 0.0])
    laws(Colourisation(ColourisationSpec(), (3, 2, 2), weights=weights))


# Bicubic: against torch's inside the image, as torch treats the border otherwise; against ILVR's resizer.


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize(("kernel", "mode"), [("cubic", "bicubic"), ("linear", "bilinear")])
def test_bicubic_is_torchs_inside_the_image(kernel: str, mode: str, factor: int) -> None:
    x = images((1, 12 * factor, 8 * factor))
    want = F.interpolate(x, scale_factor=1 / factor, mode=mode, antialias=True)
    got = Bicubic(BicubicSpec(factor=factor, kernel=kernel), x.shape[1:]).apply(x)
    close(got[..., 2:-2, 2:-2], want[..., 2:-2, 2:-2])


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_three_lobes_are_pillows_inside_the_image(factor: int) -> None:
    """Both ways; Pillow's images have float32 pixels, of up to 4 here, and its sums some 20 terms: 4e-6."""
    small, large = (8, 10), (8 * factor, 10 * factor)
    operator = Bicubic(BicubicSpec(factor=factor, kernel="lanczos3"), (1, *large))
    for size, new, resize in ((large, small, operator.apply), (small, large, operator.enlarge)):
        x = images((1, *size))[:1]
        pillow = Image.fromarray(x[0, 0].float().numpy(), mode="F")
        want = np.asarray(pillow.resize(new[::-1], Image.Resampling.LANCZOS), dtype=np.float64)
        inside = (slice(3 * new[0] // small[0], -3 * new[0] // small[0]),) * 2
        close(resize(x)[0, 0][inside], torch.from_numpy(want)[inside], rtol=0, atol=4e-6)


@pytest.mark.parametrize("kernel", ["cubic", "linear", "lanczos2", "lanczos3"])
@pytest.mark.parametrize("factor", [2, 3])
def test_a_kernel_leaves_constants_and_its_low_pass_does_too(kernel: str, factor: int) -> None:
    operator = Bicubic(BicubicSpec(factor=factor, kernel=kernel), (1, 6 * factor, 5 * factor))
    ones = torch.ones(1, 1, 6 * factor, 5 * factor).double()
    close(operator.apply(ones), torch.ones(1, 1, 6, 5).double(), rtol=1e-14)
    close(operator.enlarge(operator.apply(ones)), ones, rtol=1e-14)


@pytest.mark.parametrize("name", ["n32_N2", "n32_N4", "n16_N4"])
def test_bicubic_and_its_enlarging_are_ilvrs(name: str) -> None:
    """To 1e-6: the official weights are float32."""
    arrays = recorded("ilvr_resizer")
    x = arrays[f"{name}_x"]
    operator = Bicubic(BicubicSpec(factor=int(name[-1])), tuple(x.shape[1:]))
    down = operator.apply(x)
    close(down, arrays[f"{name}_down"], rtol=0, atol=1e-6)
    close(operator.enlarge(down), arrays[f"{name}_lowpass"], rtol=0, atol=1e-6)


# DDRM's operators.


def official(name: str) -> tuple[Operator, Tensor]:
    """The operator, and the places of the official measurements among ours."""
    arrays, shape = recorded("ddrm_operators"), (3, 8, 8)
    if name == "inp":
        lost = arrays["inp_missing"].long()
        mask = torch.ones(8 * 8 * 3, dtype=torch.bool)
        mask[lost] = False
        # The official places count channels fastest; ours slowest.
        operator = Selection(IdentitySpec(), shape, mask.reshape(8, 8, 3).permute(2, 0, 1))
        pixel, channel = mask.nonzero()[:, 0] // 3, mask.nonzero()[:, 0] % 3
        return operator, (64 * channel + pixel).argsort().argsort()
    if name == "deno":
        operator = build(IdentitySpec(), shape)
    elif name == "sr2":
        operator = build(BlockAverageSpec(factor=2), shape)
    elif name == "color":
        weights = float64([0.3333, 0.3334, 0.3333])
        operator = Colourisation(ColourisationSpec(), shape, weights=weights)
    else:
        operator = Dense(IdentitySpec(), shape, arrays["general_matrix"])
    return operator, torch.arange(math.prod(operator.measurement_shape))


@pytest.mark.parametrize("name", ["deno", "inp", "sr2", "color", "general"])
def test_h_its_transpose_and_its_inverse_are_ddrms(name: str) -> None:
    arrays, (operator, places) = recorded("ddrm_operators"), official(name)
    x, y = arrays["x"], torch.empty_like(arrays[f"{name}_y"])
    y[:, places] = arrays[f"{name}_y"]
    y = y.reshape(2, *operator.measurement_shape)
    close(operator.apply(x).flatten(1)[:, places], arrays[f"{name}_Hx"])
    close(operator.adjoint(y).flatten(1), arrays[f"{name}_Hty"])
    close(operator.pseudo_inverse(y).flatten(1), arrays[f"{name}_pinvy"])
    close(torch.from_numpy(dense(operator))[places], arrays[f"{name}_matrix"])
    close(singular_values(operator), arrays[f"{name}_singulars"].sort(descending=True).values)


def test_inpaintings_coordinates_are_ddrms_up_to_their_order() -> None:
    """V and V^T of DDRM list the measured pixels first, then the others, each channels fastest."""
    arrays, (operator, _) = recorded("ddrm_operators"), official("inp")
    lost = arrays["inp_missing"].long()
    kept = torch.tensor([i for i in range(192) if i not in set(lost.tolist())])
    places = torch.cat([kept, lost])
    places = 64 * (places % 3) + places // 3
    vector = arrays["x"].flatten(1)
    close(operator.coordinates(arrays["x"])[:, places], arrays["inp_Vt"])
    moved = torch.empty_like(vector)
    moved[:, places] = vector
    close(operator.pixels(moved).flatten(1), arrays["inp_V"])


def test_blur_is_what_ddrm_intends() -> None:
    """With the eight taps that its code uses; what it makes of them is another operator with the same values."""
    arrays = recorded("ddrm_operators")
    kernel = float64([1 / 9] * 8 + [0.0])
    matrix = convolution_matrix(kernel, 8)
    operator = Separable(IdentitySpec(), (3, 8, 8), matrix, matrix)
    got = operator.apply(arrays["x"])
    close(got, arrays["deblur_uni9_Hx_intended"])
    close(singular_values(operator), arrays["deblur_uni9_singulars"].sort(descending=True).values)
    assert (got.flatten(1) - arrays["deblur_uni9_Hx"]).abs().max() > 0.1


def test_blur_of_a_constant_is_constant_inside_and_does_not_move() -> None:
    spec = UniformBlurSpec(size=5, smallest=1e-9)
    operator = build(spec, image_shape=(1, 9, 11))
    close(
        operator.apply(torch.ones(1, 1, 9, 11).double())[..., 2:-2, 2:-2],
        torch.ones(1, 1, 5, 7).double(),
    )
    point = torch.zeros(1, 1, 9, 11).double()
    point[..., 4, 5] = 1
    blurred = operator.apply(point)
    close(blurred, blurred.flip(-1, -2))


# Magnetic resonance, tomography.


@pytest.mark.parametrize("height", [5, 8, 28, 33])
@pytest.mark.parametrize("acceleration", [1.5, 4.0, 8.0])
def test_rows_of_k_space(height: int, acceleration: float) -> None:
    """As many as the acceleration leaves, once each, and the lowest frequencies among them."""
    spec = MRISpec(acceleration=acceleration, centre=0.1)
    rows = measured_rows(spec, height).tolist()
    lowest = {5: [0], 8: [0], 28: [0, 1, 27], 33: [0, 1, 32]}[height]
    assert rows == sorted(set(rows)) and set(lowest) <= set(rows) <= set(range(height))
    assert len(rows) == max(round(height / acceleration), len(lowest))
    assert rows == measured_rows(spec, height).tolist()


def test_other_rows_of_k_space_are_the_seeds() -> None:
    draws = {tuple(measured_rows(MRISpec(seed=seed), 64).tolist()) for seed in range(20)}
    assert len(draws) == 20
    # 11 of 59 rows in each draw: the chance that a given one is in none of the 20 is 0.02.
    assert len(set().union(*draws)) > 50


def test_a_row_and_its_opposite_are_one_thing_measured_twice() -> None:
    operator = MRI(MRISpec(acceleration=2, seed=2), (1, 9, 6))
    rows = set(operator.rows.tolist())
    times = float64([len(rows & {k}) + len(rows & {-k % 9}) for k in range(9)])
    assert set(times.tolist()) == {0, 1, 2}
    close(operator.s.reshape(9, 6), (times / 2).sqrt()[:, None].expand(9, 6))


def test_zero_filling_is_the_inverse_transform_of_zeros_elsewhere() -> None:
    operator = MRI(MRISpec(acceleration=2), (3, 8, 6))
    y = randn(4, *operator.measurement_shape)
    space = torch.zeros(4, 3, 8, 6, dtype=torch.complex128)
    space[..., operator.rows, :] = torch.complex(y[:, :, 0], y[:, :, 1])
    close(operator.zero_filled(y), torch.fft.ifft2(space, norm="ortho").real)


def test_zero_filling_is_the_complete_scans_inverse() -> None:
    """Of the singular values above 0.1 of the largest: the others' directions are lost."""
    spec, shape = CTSpec(angles=4, full=12), (2, 5, 6)
    operator, complete = CT(spec, shape), CT(CTSpec(angles=12, full=12), shape)
    x, strips = images(shape), operator.measurement_shape[2]
    _, s, vt = torch.linalg.svd(projections(12, 5, 6).flatten(0, 1), full_matrices=False)
    kept = vt[s > 0.1 * s[0]]
    assert 0 < len(kept) < 30
    seen = (x.flatten(2) @ kept.T @ kept).unflatten(2, (5, 6))
    close(complete.zero_filled(complete.apply(x)), seen)
    y = torch.zeros(4, 2, 12, strips).double()
    y[:, :, ::3] = operator.apply(x)
    close(operator.zero_filled(operator.apply(x)), complete.zero_filled(y))


@pytest.mark.parametrize("full", [12, 24, 60])
@pytest.mark.parametrize("size", [8, 16])
def test_zero_filling_few_directions_makes_little_more_of_an_image(size: int, full: int) -> None:
    """By a quarter at most, where without its cut it would be by 8 and more."""
    operator = CT(CTSpec(angles=4, full=full), (1, size, size))
    unit = torch.eye(size * size).double().unflatten(1, (1, size, size))
    matrix = operator.zero_filled(operator.apply(unit)).flatten(1)
    assert torch.linalg.matrix_norm(matrix, 2) < 1.25


@pytest.mark.parametrize("shape", [(5, 7), (8, 8), (6, 3)])
def test_strips_share_out_the_mass(shape: tuple[int, int]) -> None:
    """All directions see the sum; strips at angle 0 are columns; a point opposite another casts the shadow turned."""
    matrices = projections(24, *shape)
    close(matrices.sum(1), torch.ones(24, shape[0] * shape[1]).double(), atol=1e-12)
    assert (matrices > -1e-12).all()
    x = randn(*shape)
    columns = matrices[0] @ x.flatten()
    edge = (len(columns) - shape[1]) // 2
    close(columns[edge : edge + shape[1]], x.sum(0))
    close(matrices.flip(1) @ x.flatten(), matrices @ x.flip(0, 1).flatten())


# JPEG.


def photograph(channels: int = 1, size: int = 32) -> Tensor:
    """Smooth and rough, in [-1, 1], a multiple of 1/127.5 from -1, as a file's bytes are: (2, C, size, size)."""
    rough = torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(5)).double()
    wave = torch.arange(size).double() / size * 2 * math.pi
    smooth = (wave[:, None].sin() * (2 * wave).cos() + 1) / 2
    return ((0.7 * smooth + 0.3 * rough) * 255).round() / 127.5 - 1


def file_of(x: Tensor, quality: int) -> Image.Image:
    """The image (H, W) in [-1, 1] as the library's JPEG file."""
    pixels = ((x + 1) * 127.5).round().to(torch.uint8).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=2)
    return Image.open(file)


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 75, 95, 100])
def test_tables_are_the_librarys(quality: int) -> None:
    tables = file_of(photograph(3)[0].permute(1, 2, 0), quality).quantization
    for each, base in ((0, LUMINANCE), (1, CHROMINANCE)):
        assert table(base, quality).flatten().tolist() == list(tables[each])


@pytest.mark.parametrize("quality", [10, 60])
def test_grey_images_are_the_librarys(quality: int) -> None:
    """But for coefficients in the middle of two steps, which its integers may round to the other side."""
    x = photograph()
    jpeg, steps = JPEG(JPEGSpec(quality=quality), (1, 32, 32)), table(LUMINANCE, quality).numpy()
    theirs = np.stack([np.asarray(file_of(each[0], quality)) for each in x]).astype(float)
    ours = ((jpeg.pseudo_inverse(jpeg.apply(x)) + 1) * 127.5).clamp(0, 255).round()[:, 0].numpy()
    exact = blocks((x[:, 0].numpy() + 1) * 127.5) / steps
    moved = np.abs(blocks(theirs) / steps - blocks(ours) / steps) > 0.5
    assert moved.sum() < 5 and (np.abs(exact % 1 - 0.5)[moved] < 0.01).all()
    error = np.abs(theirs - ours).reshape(2, 4, 8, 4, 8).max((2, 4))
    assert (error[~moved.any((3, 4))] <= 1).all()


def blocks(v: np.ndarray) -> np.ndarray:
    """The cosine transforms of 8 x 8 blocks, by scipy: (B, H, W) -> (B, H/8, W/8, 8, 8)."""
    split = v.reshape(len(v), v.shape[1] // 8, 8, v.shape[2] // 8, 8).transpose(0, 1, 3, 2, 4)
    return dctn(split - 128, axes=(3, 4), norm="ortho")


@pytest.mark.parametrize("quality", [5, 50, 90])
def test_coefficients_are_off_by_half_a_step(quality: int) -> None:
    x = photograph()
    jpeg = JPEG(JPEGSpec(quality=quality), (1, 32, 32))
    y = jpeg.apply(x)
    assert y.shape == (2, *jpeg.measurement_shape) == (2, 1024) and torch.equal(y, y.round())
    before, after = (
        blocks((each[:, 0].numpy() + 1) * 127.5) for each in (x, jpeg.pseudo_inverse(y))
    )
    assert (np.abs(after - before) <= table(LUMINANCE, quality).numpy() / 2 + 1e-9).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_is_decoded_encodes_to_the_same(channels: int, dtype: torch.dtype) -> None:
    x, errors = photograph(channels).to(dtype), []
    for quality in (5, 20, 50, 80, 100):
        jpeg = JPEG(JPEGSpec(quality=quality), (channels, 32, 32))
        y = jpeg.apply(x)
        decoded = jpeg.pseudo_inverse(y)
        assert decoded.shape == x.shape and decoded.dtype == dtype
        assert torch.equal(jpeg.apply(decoded), y)
        errors.append(float((decoded - x).square().mean()))
    assert errors == sorted(errors, reverse=True)


def test_colours_are_the_librarys() -> None:
    """At quality 100 and with colours the same in every 2 x 2 pixels, what is lost is rounding; the library converts
    with integers, to 1 in 255."""
    x = photograph(3, 16).repeat_interleave(2, 2).repeat_interleave(2, 3)
    jpeg = JPEG(JPEGSpec(quality=100), (3, 32, 32))
    y = jpeg.apply(x)
    assert y.shape == (2, 1536)
    assert (jpeg.pseudo_inverse(y) - x).abs().max() < 3 / 127.5
    flat = float64([0.2, -0.6, 1.0])[:, None, None].expand(1, 3, 16, 16)
    y = JPEG(JPEGSpec(quality=100), (3, 16, 16)).apply(flat)[0]
    pixel = tuple(int(v) for v in ((flat[0, :, 0, 0] + 1) * 127.5).round())
    want = Image.new("RGB", (1, 1), pixel).convert("YCbCr").getpixel((0, 0))
    # The mean of an 8 x 8 block is an eighth of its first coefficient.
    got = torch.stack([y[0], y[256], y[256 + 64]]) / 8 + 128
    assert (got - torch.tensor(want).double()).abs().max() <= 1


def test_jpeg_knows_the_datas_range() -> None:
    x = photograph()
    spec = JPEGSpec(quality=30)
    unit, centred = JPEG(spec, (1, 32, 32), low=0.0, high=1.0), JPEG(spec, (1, 32, 32))
    y = centred.apply(x)
    assert torch.equal(unit.apply((x + 1) / 2), y)
    close(unit.pseudo_inverse(y), (centred.pseudo_inverse(y) + 1) / 2)


# What is refused.


@pytest.mark.parametrize(
    ("spec", "shape", "message"),
    [
        (
            DrawnMaskSpec(rows=("#.", "..")),
            (1, 2, 3),
            "rows: a mask of 2x2 does not fit images of 2x3",
        ),
        (BoxMaskSpec(height=2, width=2, top=3), (1, 4, 4), r"2x2 at \(3, 1\) does not lie"),
        (BoxMaskSpec(height=9, width=2), (1, 4, 4), "height, width: a box of 9x2"),
        (BoxMaskSpec(height=4, width=4), (1, 4, 4), "a box of 4x4 leaves nothing"),
        (RandomMaskSpec(missing=0.99), (1, 2, 2), "missing: 0.99 loses 4 of the 4"),
        (RandomMaskSpec(missing=0.1), (1, 2, 2), "missing: 0.1 loses 0 of the 4"),
        (BlockAverageSpec(factor=3), (1, 6, 8), "factor: 3 does not divide images of 6x8"),
        (BicubicSpec(factor=4), (1, 6, 8), "factor: 4 does not divide images of 6x8"),
        (CompressedSensingSpec(), (1, 4, 6), r"needs 2\^k pixels, and these images have 24"),
        (
            CompressedSensingSpec(measured=0.01),
            (1, 4, 4),
            "measured: 0.01 of 16 .* is less than one",
        ),
        (ColourisationSpec(), (1, 4, 4), "name: colourisation needs images of several channels"),
        (CTSpec(), (1, 65, 64), "name: ct needs .* at most 64x64 pixels, .* 65x64"),
        (
            JPEGSpec(),
            (1, 12, 8),
            "name: jpeg needs whole blocks of 8x8 pixels, and these images have 12x8",
        ),
        (JPEGSpec(), (3, 8, 16), "name: jpeg needs whole blocks of 16x16"),
        (JPEGSpec(), (2, 16, 16), "name: jpeg needs 1 or 3 channels, and these images have 2"),
    ],
)
def test_images_that_cannot_be_degraded(
    spec: OperatorSpec, shape: ImageShape, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        build(spec, image_shape=shape)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("spec", "parameters", "message"),
    [
        (MRISpec, {"acceleration": 4, "centre": 0.3}, "centre: 0.3 of the rows is more than"),
        (CTSpec, {"angles": 5, "full": 24}, "angles: 5 must divide full, 24"),
        (UniformBlurSpec, {"size": 4}, "size: 4 must be odd"),
    ],
)
def test_parameters_that_contradict(spec: type, parameters: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        spec(**parameters)


def test_measurements_masks_and_matrices_of_the_wrong_size() -> None:
    operator = build(BlockAverageSpec(factor=2), image_shape=(3, 4, 6))
    with pytest.raises(
        ValueError, match=r"a measurement has the shape \(3, 4, 6\), but block-average"
    ):
        operator.check(randn(2, 3, 4, 6))
    with pytest.raises(
        ValueError, match=r"measured: a mask of \(1, 2, 2\) .* does not fit images of"
    ):
        Selection(IdentitySpec(), (1, 2, 3), torch.ones(1, 2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="measured: a mask .* with 0 coefficients"):
        Selection(IdentitySpec(), (1, 2, 3), torch.zeros(1, 2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="matrix: 5 columns"):
        Dense(IdentitySpec(), (1, 2, 3), randn(2, 5))
