"""EDM's augmentation: the wavelet, warps with known answers, what is drawn and told, and training with it."""

import math

import numpy as np
import pytest
import torch
from toys import process_of

from diffbench.diffusion.denoisers.network import NetworkDenoiser
from diffbench.diffusion.objectives.augmentation import CENTRE, SYM6, EDMAugmentation, warp
from diffbench.diffusion.objectives.times import LogNormalTimes
from diffbench.specs.augmentations import EDMAugmentationSpec
from diffbench.specs.denoisers import NetworkDenoiserSpec
from diffbench.specs.objectives import EDMObjectiveSpec, SimpleSpec, VLBObjectiveSpec
from diffbench.specs.processes import DiscreteSpec, EDMSpec, ReflectedSpec
from diffbench.specs.registry import build

NOTHING = torch.zeros(1, 2, dtype=torch.float64)
SIZE = 24


def turn(angle, zoom=1.0):
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.tensor([[[cos, -sin], [sin, cos]]], dtype=torch.float64) / zoom


def places(size=SIZE):
    """x and y of every pixel from the centre."""
    line = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    return line[None, :].expand(size, size), line[:, None].expand(size, size)


def warped(function, matrix, shift=NOTHING):
    """An image warped, and the function at the places that it should come from."""
    x, y = places()
    image = function(x, y)[None, None]
    (a, b), (c, d) = matrix[0]
    u, v = x - shift[0, 0], y - shift[0, 1]
    return warp(image, matrix, shift)[0, 0], function(a * u + b * v, c * u + d * v)


def inside(image, margin):
    return image[margin:-margin, margin:-margin]


def test_the_wavelet_is_orthonormal_and_has_six_vanishing_moments():
    """Of its high-pass filter (-1)^k h_(11-k); the moments of order 0 to 5 cancel to rounding times 11^5."""
    h = np.array(SYM6)
    for shift in range(6):
        assert abs(h[2 * shift :] @ h[: 12 - 2 * shift] - (shift == 0)) < 1e-10
    high = h[::-1] * (-1) ** np.arange(12)
    for order in range(6):
        assert abs(high @ (np.arange(12.0) - 5.5) ** order) < 1e-11 * 5.5**order * 12
    assert 5 < CENTRE < 5.5


def test_where_nothing_moves_nothing_changes():
    image = torch.rand(2, 3, 8, 5, generator=torch.Generator().manual_seed(0)).double()
    still = warp(image, torch.eye(2).double().expand(2, 2, 2), NOTHING.expand(2, 2))
    torch.testing.assert_close(still, image, rtol=0, atol=1e-10)


@pytest.mark.parametrize("matrix", [turn(0.5), turn(-2.0, 1.3), turn(math.pi, 0.8)])
def test_a_ramp_stays_one(matrix):
    """Linear functions pass through the wavelet and between its values exactly."""
    shift = torch.tensor([[1.3, -0.4]]).double()
    got, expected = warped(lambda x, y: 0.3 * x - 0.2 * y + 0.1, matrix, shift)
    torch.testing.assert_close(inside(got, 10), inside(expected, 10), rtol=0, atol=1e-9)


@pytest.mark.parametrize("matrix", [turn(0.5), turn(-2.0, 1.3)])
def test_a_wave_comes_from_its_places(matrix):
    """Bilinear in steps of half a pixel, a wave of 8 pixels errs by (2 pi/16)^2/8 a direction: 0.02 each."""
    got, expected = warped(lambda x, y: torch.sin(math.pi / 4 * x) * 1.0, matrix)
    assert (inside(got, 9) - inside(expected, 9)).abs().max() < 0.05


@pytest.mark.parametrize("shift", [5, -5, 17, -40, 46])
def test_beyond_the_edge_is_a_mirror(shift):
    """Any image moved by whole pixels, however far: the line goes on as 2 1 | 0 1 2 .. 22 23 | 22 21 .."""
    image = torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).double()
    moved = warp(image, turn(0), torch.tensor([[float(shift), 0.0]]).double())
    line = np.concatenate([np.arange(SIZE), np.arange(SIZE - 2, 0, -1)])
    expected = image[..., line[(np.arange(SIZE) - shift) % len(line)]]
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-10)


def test_the_map_undoes_the_transforms_one_after_the_other():
    """T R_r diag(q, 1/q) R_-r R_w 2^(0.2 s) by homogeneous matrices, and back."""
    augmentation = EDMAugmentation(EDMAugmentationSpec(probability=1))
    parameters = augmentation.draw(5, torch.Generator().manual_seed(0))
    matrix, shift = augmentation.inverse(parameters, 20, 10)

    def rotate(w):
        return np.array([[np.cos(w), -np.sin(w), 0], [np.sin(w), np.cos(w), 0], [0, 0, 1]])

    for row, inverse, moved in zip(parameters.numpy(), matrix.numpy(), shift.numpy(), strict=True):
        _, _, s, w, a, r, right, down = row
        q = 2 ** (0.2 * a)
        move = np.array([[1, 0, 20 * right / 8], [0, 1, 10 * down / 8], [0, 0, 1]])
        whole = move @ rotate(r) @ np.diag([q, 1 / q, 1]) @ rotate(-r) @ rotate(w)
        whole = whole @ np.diag([2 ** (0.2 * s), 2 ** (0.2 * s), 1])
        place = np.array([0.7, -1.9, 1])
        np.testing.assert_allclose(inverse @ ((whole @ place)[:2] - moved), place[:2], atol=1e-12)


def test_parts_happen_as_often_as_they_should():
    """Within five standard deviations of 20,000 coins."""
    count = 20_000
    parameters = EDMAugmentation(EDMAugmentationSpec()).draw(
        count, torch.Generator().manual_seed(0)
    )
    chances = torch.tensor([0.5, 0.06, 0.12, 0.12, 0.12, 0.06, 0.12, 0.12])
    often = (parameters != 0).double().mean(0)
    assert ((often - chances).abs() < 5 * (chances * (1 - chances) / count).sqrt()).all()
    drawn = parameters[parameters[:, 6] != 0]
    assert (drawn[:, 7] != 0).all() and abs(drawn[:, 6].std() - 1) < 0.08
    assert parameters[:, 3].abs().max() <= math.pi


def test_what_is_told():
    parameters = torch.tensor([[1, 1, 0.5, math.pi / 2, 2, math.pi / 6, -1, 3]]).double()
    told = EDMAugmentation(EDMAugmentationSpec()).labels(parameters)
    expected = torch.tensor([[1, 1, 0.5, -1, 1, math.sqrt(3), 1, -1, 3]]).double()
    torch.testing.assert_close(told, expected)


def test_nothing_changes_and_nothing_is_told_at_zero():
    augmentation = EDMAugmentation(EDMAugmentationSpec())
    image = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    parameters = torch.zeros(2, 8, dtype=torch.float64)
    assert torch.equal(augmentation.apply(image, parameters), image)
    assert torch.equal(augmentation.labels(parameters), torch.zeros(2, 9, dtype=torch.float64))


def test_mirrored_images_are_mirrored_and_others_left():
    image = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    parameters = torch.zeros(3, 8, dtype=torch.float64)
    parameters[1, 0] = parameters[2, 1] = 1
    mirrored = EDMAugmentation(EDMAugmentationSpec()).apply(image, parameters)
    assert torch.equal(mirrored, torch.stack([image[0], image[1].flip(-1), image[2].flip(-2)]))


def test_only_images_that_move_are_warped():
    image = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    parameters = torch.zeros(3, 8, dtype=torch.float64)
    parameters[1, 3] = 0.5
    changed = EDMAugmentation(EDMAugmentationSpec()).apply(image, parameters)
    assert torch.equal(changed[::2], image[::2]) and not torch.allclose(changed[1], image[1])
    alone = warp(image[1:2], turn(-0.5), NOTHING)
    torch.testing.assert_close(changed[1:2], alone)


def test_small_images_are_refused():
    with pytest.raises(ValueError, match="two rows and columns or more, not 1x8"):
        warp(torch.zeros(1, 1, 1, 8), turn(0.1), NOTHING)


class Recorder:
    """A network that keeps what it was called with."""

    def __init__(self):
        self.calls = []

    def __call__(self, x, c_noise, y=None, raw=None, augmented=None):
        self.calls.append((raw, augmented))
        return torch.zeros_like(x)


def objective(recorder, **changes):
    process = process_of("edm")
    spec = EDMObjectiveSpec(**changes)
    denoiser = NetworkDenoiser(NetworkDenoiserSpec(predict="edm"), process, recorder)
    augmentation = None if spec.augmentation is None else build(spec.augmentation)
    times = LogNormalTimes(spec.times, process)
    return build(spec, denoiser, times, 0.0, augmentation)


def test_training_sees_changed_images_and_the_network_is_told():
    recorder, generator = Recorder(), torch.Generator().manual_seed(0)
    trained = objective(recorder, augmentation="edm")
    x0, noise = torch.rand(2, 6, 3, 8, 8, generator=generator)
    draws = trained.draw(noise, generator)
    trained.losses_for(x0, draws)
    seen, told = recorder.calls[0]
    augmentation = trained.augmentation
    changed = augmentation.apply(x0, draws.augmentation)
    assert not torch.allclose(changed, x0)
    sigma = draws.t.to(x0)[:, None, None, None]
    torch.testing.assert_close(seen, changed + sigma * noise)
    torch.testing.assert_close(told, augmentation.labels(draws.augmentation).float())
    trained.denoiser(x0, torch.tensor(1.0).double())
    assert recorder.calls[1][1] is None


def test_parts_of_a_batch_have_the_losses_of_the_whole():
    generator = torch.Generator().manual_seed(0)
    trained = objective(Recorder(), augmentation={"name": "edm", "probability": 0.5})
    x0, noise = torch.rand(2, 6, 3, 8, 8, generator=generator)
    draws = trained.draw(noise, generator)
    parts = [trained.losses_for(x0[part], draws.cut(part)) for part in (slice(0, 2), slice(2, 6))]
    torch.testing.assert_close(torch.cat(parts), trained.losses_for(x0, draws))


def test_all_other_draws_are_the_same_without_it():
    noise = torch.zeros(6, 3, 8, 8)
    drawn = [
        objective(Recorder(), augmentation=each).draw(noise, torch.Generator().manual_seed(0))
        for each in ("edm", "none")
    ]
    assert drawn[1].augmentation is None and drawn[0].augmentation is not None
    assert torch.equal(drawn[0].t, drawn[1].t)


def test_objectives_that_it_does_not_suit_are_refused():
    denoiser = NetworkDenoiserSpec(predict="eps")
    chain = DiscreteSpec(schedule="linear")
    levels = VLBObjectiveSpec(variance="small", augmentation="edm").refusal(chain, denoiser)
    assert levels is not None and "grey levels" in levels
    score = NetworkDenoiserSpec(predict="score")
    walls = SimpleSpec(augmentation="edm").refusal(ReflectedSpec(), score)
    assert walls is not None and "walls of reflected" in walls
    assert EDMObjectiveSpec(augmentation="edm").refusal(EDMSpec(), denoiser) is None
