"""Neighbours and balls against sorted differences in float64, and against torch-fidelity."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_fidelity import normal

from diffbench.data.grey_levels import Images
from diffbench.metrics import neighbours
from diffbench.metrics.neighbours import (
    NEIGHBOURHOOD,
    blocks,
    nearest_distances,
    nearest_neighbours,
    precision_recall,
    radii,
    sketch,
    squared_distances,
)
from diffbench.metrics.torchvision_operators import torch_fidelity

pytestmark = pytest.mark.usefixtures("one_thread")

Points = NDArray[np.float64]


def apart(a: Points, b: Points) -> Points:
    """Squared distances of all pairs, as differences."""
    found: Points = ((a[:, None] - b) ** 2).sum(-1)
    return found


def covered(points: Points, centres: Points) -> float:
    """The share of points in the balls around the centres."""
    reach = np.sort(apart(centres, centres), axis=1)[:, NEIGHBOURHOOD]
    return float((apart(points, centres) <= reach).any(1).mean())


def lattice(count: int, seed: int) -> Points:
    """Points far from 0 whose squared distances are 1 + 1e-9 times an integer: float32 cannot tell them apart."""
    turns = np.random.default_rng(seed).permutation(count) + 1.0
    points = np.eye(count) * np.sqrt(0.5 + 1e-9 * turns[:, None])
    return points + 100.0


POINTS = {
    "normal": (normal(60, 0), normal(80, 1, 1.0)),
    "far from 0": (normal(60, 2) + 1e4, normal(80, 3, 0.5) + 1e4),
    "apart by less than float32 tells": (lattice(70, 0)[:60], lattice(70, 1)),
    "copies": (np.repeat(normal(20, 4), 3, 0), np.repeat(normal(20, 4), 4, 0)),
}


@pytest.mark.parametrize("numbers", [40, 300, 2**24])
@pytest.mark.parametrize("kind", POINTS)
def test_neighbours_are_those_of_sorted_differences(kind: str, numbers: int) -> None:
    a, b = POINTS[kind]
    squares, names = nearest_neighbours(a, b, 3, numbers=numbers)
    expected = apart(a, b)
    # Of distances that differ by less than float64's rounding, either may be the nearer one.
    scale = 1e-13 * float((b**2).sum(1).max())
    assert np.allclose(squares, np.sort(expected, 1)[:, :3], rtol=1e-12, atol=scale)
    chosen = np.take_along_axis(expected, names.numpy(), 1)
    assert np.allclose(chosen, np.sort(expected, 1)[:, :3], rtol=1e-12, atol=scale)
    assert all(len(set(row)) == 3 for row in names.tolist())


@pytest.mark.parametrize("numbers", [40, 300, 2**24])
@pytest.mark.parametrize("kind", POINTS)
def test_radii_within_a_set_are_those_of_sorted_differences(kind: str, numbers: int) -> None:
    _, points = POINTS[kind]
    expected = np.sort(apart(points, points), axis=1)[:, 1:4]
    scale = 1e-13 * float((points**2).sum(1).max())
    assert np.allclose(radii(points, 3, numbers=numbers), expected, rtol=1e-12, atol=scale)


@pytest.mark.parametrize("kind", ["normal", "far from 0", "copies"])
def test_precision_and_recall_by_brute_force(kind: str) -> None:
    z, reference = POINTS[kind]
    for numbers in (300, 2**24):
        precision, recall = precision_recall(z, reference, numbers=numbers)
        assert precision == pytest.approx(covered(z, reference)) and 0 < precision <= 1
        assert recall == pytest.approx(covered(reference, z)) and 0 < recall <= 1


@pytest.mark.parametrize(("width", "shift"), [(4, 0.3), (64, 0.05), (300, 0.02)])
def test_precision_and_recall_are_torch_fidelitys(width: int, shift: float) -> None:
    torch_fidelity()
    from torch_fidelity.metric_prc import prc_features_to_metric

    generator = np.random.default_rng(width)
    z, reference = (
        generator.standard_normal((count, width)) + shift * step
        for step, count in enumerate((400, 300))
    )
    theirs = prc_features_to_metric(
        torch.from_numpy(z),
        torch.from_numpy(reference),
        prc_neighborhood=NEIGHBOURHOOD,
        prc_batch_size=100,
        save_cpu_ram=True,
        verbose=False,
    )
    found = precision_recall(z, reference)
    assert found == (theirs["precision"], theirs["recall"])
    balls = radii(reference, NEIGHBOURHOOD)[:, -1]
    assert precision_recall(z, reference, balls=balls) == found and 0 < found[0] < 1


def test_what_float32_cannot_decide_is_decided_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = POINTS["apart by less than float32 tells"]
    again: list[int] = []
    squares = neighbours._squares

    def counted(x: Any, y: Any) -> Any:
        again.append(len(x))
        return squares(x, y)

    monkeypatch.setattr(neighbours, "_squares", counted)
    expected = apart(a, b)
    limits = np.sort(expected, 1)[:, 30:32].mean(1, keepdims=True)
    (block,) = blocks(a, b)
    assert (block.within(torch.from_numpy(limits)).numpy() == (expected <= limits)).all()
    assert sum(again) == len(a)
    again.clear()
    (block,) = blocks(*POINTS["normal"])
    block.within(torch.tensor([[1.0]]))
    assert sum(again) <= 1


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4])
@pytest.mark.parametrize("width", [3, 200, 2048])
def test_squares_are_wrong_by_no_more_than_their_bound(width: int, scale: float) -> None:
    generator = np.random.default_rng(width)
    a, b = (scale * (generator.standard_normal((50, width)) + 3) for _ in range(2))
    for block in blocks(a, b):
        wrong = np.abs(block.squares.double().numpy() - apart(a, b)).max()
        assert wrong <= block.error <= 1e-3 * scale**2 * width


def test_nearest_distances_by_hand() -> None:
    reference = np.zeros((3, 1, 2, 1), np.uint8)
    reference[:, 0, :, 0] = [[0, 0], [10, 0], [0, 200]]
    levels = np.zeros((3, 1, 2, 1), np.uint8)
    levels[:, 0, :, 0] = [[10, 0], [3, 4], [7, 200]]
    for numbers in (1, 2, 8, 10**6):
        assert nearest_distances(levels, reference, numbers=numbers).tolist() == [0, 5, 7]


def test_no_more_numbers_than_allowed_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 3), np.uint8)
    converted: list[int] = []
    double, products, product = torch.Tensor.double, [], torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "double", lambda x: converted.append(x.numel()) or double(x))

    def counted(x: Any, y: Any) -> Any:
        products.append(product(x, y))
        return products[-1]

    monkeypatch.setattr(torch.Tensor, "__matmul__", counted)
    assert nearest_distances(images, np.flip(images, 0).copy(), numbers=480).tolist() == [0] * 30
    assert sum(each.numel() for _, _, each in squared_distances(*POINTS["normal"])) == 60 * 80
    # Ten of 48 numbers each, and a hundred distances; then all of the other sets.
    assert max(converted[:-2]) == 480
    assert max(each.numel() for each in products[:-1]) == 100


def photographs(count: int, seed: int, side: int = 32) -> Images:
    """Images whose blocks differ more than what is in them does."""
    random = np.random.RandomState(seed)
    coarse = random.randint(0, 200, (count, 4, 4, 3)).repeat(side // 4, 1).repeat(side // 4, 2)
    images: Images = (coarse + random.randint(0, 30, coarse.shape)).astype(np.uint8)
    return images


@pytest.mark.parametrize("side", [8, 5])
@pytest.mark.parametrize("shape", [(32, 32, 3), (17, 11, 1)])
def test_sketches_are_never_farther_apart_than_images(
    shape: tuple[int, int, int], side: int
) -> None:
    x = np.random.RandomState(0).randint(0, 256, (30, *shape)).astype(np.uint8)
    y = np.clip(x[::-1].astype(int) + 3, 0, 255).astype(np.uint8)
    short = [sketch(each, side) for each in (x, y)]
    assert short[0].shape == (30, side * side * shape[2] + 1)
    lower = ((short[0][:, None] - short[1]) ** 2).sum(-1)
    flat = [each.reshape(30, -1).astype(np.float64) for each in (x, y)]
    true = ((flat[0][:, None] - flat[1]) ** 2).sum(-1)
    # The rest's length is a root of a difference of numbers as large as an image's square.
    assert (lower <= true + 1e-12 * (flat[0] ** 2).sum(-1).max()).all()
    # An image's length is its sketch's.
    assert np.allclose((short[0] ** 2).sum(1), (flat[0] ** 2).sum(1), rtol=1e-12)
    # Constant images lie in the projection.
    flat_image = np.full((1, *shape), 9, np.uint8)
    assert sketch(flat_image, side)[0, -1] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("kind", ["photographs", "noise", "copies"])
def test_nearest_images_by_sketches_are_the_nearest(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    reference_images, samples = photographs(300, 0), photographs(60, 1)
    if kind == "noise":
        samples = np.random.RandomState(2).randint(0, 256, samples.shape).astype(np.uint8)
    if kind == "copies":
        samples[::2] = reference_images[100:130]
    flat = [each.reshape(len(each), -1).astype(np.float64) for each in (samples, reference_images)]
    # Squares are whole numbers below 2^53.
    wanted = ((flat[0][:, None] - flat[1]) ** 2).sum(-1).min(1)
    whole = nearest_distances(samples, reference_images)
    assert np.array_equal((whole**2).round(), wanted)
    monkeypatch.setattr(neighbours, "MANY", 1)
    sketched: list[int] = []
    way = neighbours._nearest_sketched

    def counted(*given: Any) -> Any:
        found = way(*given)
        sketched.append(int(found[1].sum()))
        return found

    monkeypatch.setattr(neighbours, "_nearest_sketched", counted)
    found = nearest_distances(samples, reference_images, numbers=50_000)
    assert np.array_equal(found, whole)
    decided = {"photographs": 30, "noise": 0, "copies": 30}[kind]
    assert sum(sketched) >= decided and (kind != "noise" or len(sketched) == 1)
