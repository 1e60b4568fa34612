"""Masks: what is drawn in training, what the network sees, and that telling pixels is worth what Gaussian conditioning
says."""

import math

import pytest
import torch
from commands import REPOSITORY
from pydantic import ValidationError
from torch import Tensor, nn
from toys import Toy, close, process_of

from diffbench.data.datasets import Dataset
from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.known import NOTHING, SCATTERED, Known, stretches, training_masks
from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.core.process import Process, float64
from diffbench.diffusion.core.streams import stream
from diffbench.diffusion.denoisers.denoiser import Counted, Denoiser
from diffbench.diffusion.denoisers.network import NetworkDenoiser
from diffbench.diffusion.denoisers.thresholds import StaticThreshold
from diffbench.diffusion.inverse.operators.operator import Operator
from diffbench.diffusion.inverse.restorers.restorer import Measurement
from diffbench.diffusion.inverse.restorers.tuned import InpaintTuned
from diffbench.diffusion.objectives.losses import Simple
from diffbench.diffusion.objectives.times import UniformTimes
from diffbench.diffusion.solvers.loop import sample
from diffbench.diffusion.solvers.transition import Ancestral
from diffbench.jobs import train
from diffbench.networks.unet import UNet
from diffbench.plan.loading import load_plan
from diffbench.specs.denoisers import DenoiserSpec, NetworkDenoiserSpec
from diffbench.specs.jobs import TrainSpec
from diffbench.specs.networks.network import UNetSpec
from diffbench.specs.objectives import SimpleSpec, UniformTimesSpec
from diffbench.specs.operators import (
    BoxMaskSpec,
    DrawnMaskSpec,
    IdentitySpec,
    ImageShape,
    OperatorSpec,
)
from diffbench.specs.restorers import InpaintTunedSpec
from diffbench.specs.solvers import AncestralSpec
from diffbench.training import models

CPU = torch.device("cpu")


# What is drawn in training.


def test_masks_are_a_function_of_the_stream() -> None:
    first, again, other = (training_masks(50, 4, 6, stream("training", 3, i)) for i in (7, 7, 8))
    assert first.shape == (50, 1, 4, 6) and first.dtype == torch.float32
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert set(first.unique().tolist()) == {0, 1}


def share_within(found: Tensor, probability: float) -> bool:
    """Whether booleans are as often true as they should, to 4 standard deviations of the binomial."""
    n = found.numel()
    spread = math.sqrt(n * probability * (1 - probability))
    return abs(float(found.sum()) - n * probability) <= 4 * spread


@pytest.mark.parametrize(("height", "width"), [(8, 8), (2, 4), (1, 2)])
def test_nothing_is_known_as_often_as_it_should_be(height: int, width: int) -> None:
    """Beside the share that is told nothing: a box of all rows and columns has probability 1/(HW), and the integral of
    (1 - p)^HW over p is 1/(HW + 1)."""
    masks = training_masks(40_000, height, width, stream("masks"))
    pixels = height * width
    empty = SCATTERED / (pixels + 1) + (1 - SCATTERED) / pixels
    assert share_within((masks == 0).all(dim=(1, 2, 3)), NOTHING + (1 - NOTHING) * empty)


def test_pixels_are_known_as_often_as_they_should_be() -> None:
    """A scattered pixel half the time; one outside the box where the box's rows or columns miss it.  The probability
    that 1 to 4 rows of 4, uniform, cover row i is the mean over sizes k of the share of the 5 - k places that do."""
    masks = training_masks(40_000, 4, 4, stream("masks", 1))[:, 0]
    shares = [
        [sum(s <= i < s + k for s in range(5 - k)) / (5 - k) for i in range(4)] for k in range(1, 5)
    ]
    covers = torch.tensor(shares, dtype=torch.float64).mean(0)
    outside = 1 - covers[:, None] * covers
    want = (1 - NOTHING) * (SCATTERED / 2 + (1 - SCATTERED) * outside)
    for i in range(4):
        for j in range(4):
            assert share_within(masks[:, i, j] > 0, float(want[i, j]))


def test_a_stretch_is_one_run_of_every_size_and_place_alike() -> None:
    lines = stretches(40_000, 3, stream("stretches"))
    found = (lines.long() * torch.tensor([4, 2, 1])).sum(1)
    want = {0b100: 1 / 9, 0b010: 1 / 9, 0b001: 1 / 9, 0b110: 1 / 6, 0b011: 1 / 6, 0b111: 1 / 3}
    assert set(found.tolist()) == set(want)
    for pattern, probability in want.items():
        assert share_within(found == pattern, probability)


class Listening(Denoiser):
    """Notes what it is asked and told."""

    def __init__(self, takes_masks: bool) -> None:
        super().__init__(process_of("vp"))
        self.takes_masks = takes_masks

    def predict(self, x_t, t, condition):
        self.seen = x_t, t, condition.known
        return Prediction(self.process, x_t, t, "eps", x_t)


def listened(takes_masks: bool) -> tuple[tuple[Tensor, Tensor, Known | None], Tensor]:
    """What reaches a denoiser from the objective, and the stream's state afterwards."""
    denoiser = Listening(takes_masks)
    objective = Simple(SimpleSpec(), denoiser, UniformTimes(UniformTimesSpec(), denoiser.process))
    generator = stream("training", 0, 0)
    x0, noise = torch.randn(2, 30, 2, 4, 6, generator=generator)
    objective(x0, noise, generator)
    return denoiser.seen, generator.get_state()


def test_masks_are_drawn_last_so_that_all_else_is_as_without() -> None:
    (plain_x, plain_t, nothing), state = listened(takes_masks=False)
    (x_t, t, known), _ = listened(takes_masks=True)
    assert nothing is None and torch.equal(x_t, plain_x) and torch.equal(t, plain_t)
    generator = stream("training", 0, 0)
    x0, _ = torch.randn(2, 30, 2, 4, 6, generator=generator)
    torch.rand(30, generator=generator, dtype=torch.float64)
    # Without masks the objective has drawn the times and nothing else.
    assert torch.equal(state, generator.get_state())
    mask = training_masks(30, 4, 6, generator)
    assert known is not None
    assert torch.equal(known.mask, mask) and torch.equal(known.image, mask * x0)


# What the network sees.


class Seen(nn.Module):
    """Keeps its inputs."""

    def forward(self, x, c_noise, y=None, raw=None):
        self.x, self.raw = x, raw
        return x[:, :2]


def told_apart(name: str = "vp") -> tuple[NetworkDenoiser, Seen, Tensor, Tensor]:
    """A denoiser, its network, some x_t (3, 2, 2, 4) and masks."""
    network = Seen()
    spec = NetworkDenoiserSpec(predict="eps" if name == "vp" else "score", masks=True)
    denoiser = NetworkDenoiser(spec, process_of(name), network)
    x_t = torch.randn(3, 2, 2, 4, generator=stream("x"))
    mask = (torch.rand(3, 1, 2, 4, generator=stream("mask")) < 0.5).float()
    return denoiser, network, x_t, mask


@pytest.mark.parametrize(("name", "middle", "half"), [("vp", 0.0, 1.0), ("reflected", 0.5, 0.5)])
def test_the_mask_and_the_centred_image_come_after_the_scaled_one(name, middle, half) -> None:
    denoiser, network, x_t, mask = told_apart(name)
    x0 = middle + half * (2 * torch.rand(3, 2, 2, 4, generator=stream("x0")) - 1)
    t = float64(0.3)
    denoiser(x_t, t)
    plain, raw = network.x, network.raw
    assert plain.shape == (3, 5, 2, 4) and raw.shape == (3, 2, 2, 4)
    assert not plain[:, 2:].any()
    denoiser(x_t, t, Condition(known=Known.of(x0, mask)))
    assert torch.equal(network.x[:, :2], plain[:, :2]) and torch.equal(network.raw, raw)
    assert torch.equal(network.x[:, 2:3], mask)
    want = torch.where(mask > 0, (x0 - middle) / half, 0.0)
    close(network.x[:, 3:], want, atol=1e-6)


def test_nothing_known_is_a_mask_of_zeros() -> None:
    torch.manual_seed(0)
    network = UNet(
        UNetSpec(fourier=(8,)), image_shape=(1, 4, 4), in_channels=3, out_channels=1, classes=0
    )
    nn.init.normal_(network.head[-1].weight)
    spec = NetworkDenoiserSpec(predict="eps", masks=True)
    denoiser = NetworkDenoiser(spec, process_of("vp"), network)
    x_t, t = torch.randn(3, 1, 4, 4), float64(0.5)
    plain = denoiser(x_t, t).value

    def told(known: Known) -> Tensor:
        return denoiser(x_t, t, Condition(known=known)).value

    nothing = Known(torch.zeros(3, 1, 4, 4), torch.zeros(3, 1, 4, 4))
    assert torch.equal(told(nothing), plain)
    # One mask may serve all images.
    mask = torch.ones(1, 1, 4, 4)
    one = told(Known.of(x_t[:1], mask))
    each = Known.of(x_t[:1].expand_as(x_t), mask.expand_as(x_t))
    assert torch.equal(told(each), one)
    assert not torch.equal(one, plain)


def test_a_denoiser_without_masks_cannot_be_told() -> None:
    plain = NetworkDenoiser(NetworkDenoiserSpec(predict="eps"), process_of("vp"), Seen())
    x_t = torch.zeros(1, 1, 2, 2)
    for denoiser in (plain, StaticThreshold(plain)):
        with pytest.raises(TypeError, match=f"this {type(denoiser).__name__} takes no masks"):
            denoiser(x_t, float64(0.5), Condition(known=Known.nothing(x_t)))


def test_what_wraps_a_denoiser_with_masks_can_be_told() -> None:
    denoiser, network, x_t, mask = told_apart()
    condition = Condition(known=Known.of(x_t, mask))
    denoiser(x_t, float64(0.5), condition)
    want = network.x
    for wrapper in (Counted(denoiser), StaticThreshold(denoiser)):
        wrapper(x_t, float64(0.5), condition)
        assert torch.equal(network.x, want)


def test_masks_are_of_a_networks_denoiser_alone() -> None:
    spec = DenoiserSpec.choose({"predict": "eps", "masks": True})
    assert spec.takes_masks and spec.inputs(3) == 7
    assert not DenoiserSpec.choose({"predict": "eps"}).takes_masks
    for name in set(DenoiserSpec.known) - {"network"}:
        with pytest.raises(ValidationError, match="masks"):
            DenoiserSpec.choose({"name": name, "masks": True})
        assert not DenoiserSpec.known[name]().takes_masks
        assert DenoiserSpec.known[name]().inputs(3) == 3


# Training as the stage does it.


def trainer_of(digits: Dataset, **denoiser: object) -> train.Trainer:
    spec = TrainSpec.model_validate(
        {
            "variant": "some",
            "seed": 1,
            "data": {"name": "digits"},
            "dequantise": "uniform",
            "process": {"name": "vp"},
            "denoiser": {"predict": "eps", "skip": "edm", **denoiser},
            "network": {"name": "unet", "fourier": [8]},
            "objective": {"name": "score-matching"},
            "training": {"steps": 6, "batch": 8, "lr": 1e-2},
        }
    )
    return train.denoiser_trainer(spec, digits, CPU)


def test_the_network_has_the_channels_of_what_it_is_told(digits) -> None:
    plain, masked = trainer_of(digits).network, trainer_of(digits, masks=True).network
    assert plain.stem.in_channels == 1 + 2 and masked.stem.in_channels == 1 + 2 + 2
    x, c_noise = torch.randn(4, 1, 8, 8), torch.zeros(4)
    told = torch.cat([x, torch.zeros(4, 2, 8, 8)], dim=1)
    assert masked(told, c_noise, None, x).shape == plain(x, c_noise, None, x).shape == (4, 1, 8, 8)


def test_networks_start_alike_but_for_the_stem(digits) -> None:
    """The first loss of both is that of a network that gives 0: masks change neither times nor noise."""
    plain, masked = trainer_of(digits), trainer_of(digits, masks=True)
    assert torch.equal(plain.advance(), masked.advance())
    assert not torch.equal(plain.advance(), masked.advance())


def test_training_with_masks_resumes_in_the_same_bits(digits) -> None:
    whole, half, resumed = (trainer_of(digits, masks=True) for _ in range(3))
    for _ in range(6):
        whole.advance()
    for _ in range(3):
        half.advance()
    resumed.restore(half.state() | {"step": torch.tensor(3)})
    for _ in range(3):
        resumed.advance()
    ends = zip(whole.averaged().values(), resumed.averaged().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in ends)


def test_the_trained_denoiser_takes_masks(digits) -> None:
    trainer = trainer_of(digits, masks=True)
    process = models.build_process(trainer.spec.process, digits)
    assert models.wrap(trainer.spec, process, trainer.network, digits, CPU, "fp32").takes_masks


def test_the_variant_is_vp_with_masks_and_its_restorer_serves_it() -> None:
    chosen = {"variants": ["vp", "inpaint-tuned"]}
    variants = load_plan([REPOSITORY / "config/digits.yaml"], chosen, REPOSITORY).variants
    vp, masked = variants["vp"], variants["inpaint-tuned"]
    assert masked.denoiser == vp.denoiser.model_copy(update={"masks": True})
    for key in ("process", "objective", "dequantise", "network", "training"):
        assert getattr(masked, key) == getattr(vp, key)
    restorer, box = masked.restorers["inpaint-tuned"], BoxMaskSpec(height=4, width=4)
    assert restorer.refusal(masked.process, masked.denoiser, box) is None
    assert "denoiser.masks: true" in restorer.refusal(vp.process, vp.denoiser, box)


# What telling is worth: two pixels, N(0, S), S = v [[1, r], [r, 1]].

V, R = 0.25, 0.95
STEPS = 4000
COVARIANCE = torch.tensor([[V, R * V], [R * V, V]], dtype=torch.float64)


def pairs(count: int, generator: torch.Generator) -> Tensor:
    """Images (count, 1, 1, 2)."""
    factor = torch.linalg.cholesky(COVARIANCE).float()
    return (torch.randn(count, 2, generator=generator) @ factor.T)[:, None, None, :]


class Small(nn.Module):
    """F(x, c_noise) of a few numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(7, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2)
        )

    def forward(self, x, c_noise, y=None, raw=None):
        seen = torch.cat([x.flatten(1), c_noise[:, None]], dim=1)
        return self.layers(seen).reshape(-1, 1, 1, 2)


@pytest.fixture(scope="module")
def tuned() -> NetworkDenoiser:
    """Trained on random masks, which takes a few seconds."""
    torch.manual_seed(0)
    network = Small()
    spec = NetworkDenoiserSpec(predict="eps", masks=True, data_std=math.sqrt(V), skip="edm")
    denoiser = NetworkDenoiser(spec, process_of("vp"), network)
    times = UniformTimes(UniformTimesSpec(draw="stratified"), denoiser.process)
    objective = Simple(SimpleSpec(), denoiser, times)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for step in range(STEPS):
        generator = stream("training", 0, step)
        x0 = pairs(512, generator)
        noise = torch.randn(x0.shape, generator=generator)
        optimiser.zero_grad()
        objective(x0, noise, generator).mean().backward()
        optimiser.step()
        decay.step()
    network.requires_grad_(False)
    return denoiser


def posterior(ratio: float, told: bool) -> Tensor:
    """The least squared errors of x0 from x_t/alpha = x0 + ratio z; told: the first pixel as well."""
    precision = torch.linalg.inv(COVARIANCE) + torch.eye(2) / ratio**2
    if told:
        return torch.stack([torch.zeros((), dtype=torch.float64), 1 / precision[1, 1]])
    return torch.linalg.inv(precision).diagonal()


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
def test_what_is_told_is_used_as_bayes_would(tuned, ratio) -> None:
    """Errors are the closed form's, to a tenth and a fiftieth of what the data vary by; the first pixel's is 0, and
    the second's v (1 - r^2) at most, a tenth of v."""
    process = tuned.process
    t = process.time_of(float64(ratio))
    generator = stream("held out")
    x0 = pairs(20_000, generator)
    x_t = process.diffuse(x0, t, torch.randn(x0.shape, generator=generator))
    mask = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    errors = {}
    for told in (False, True):
        condition = Condition(known=Known.of(x0, mask) if told else None)
        errors[told] = (tuned(x_t, t, condition).x0 - x0).square().flatten(1).mean(0).double()
        # Of 20,000 squares the mean is known to 1 % (one standard deviation); the rest is the network's.
        want = posterior(ratio, told)
        assert (errors[told] > 0.95 * want).all()
        assert (errors[told] < 1.1 * want + 0.02 * V).all()
    assert errors[True][0] < 0.02 * errors[False][0]
    assert errors[True][1] < 0.3 * errors[False][1]


class Selection(Operator):
    """Some pixels of an image, in the order of the image."""

    def __init__(self, spec: OperatorSpec, image_shape: ImageShape, mask: Tensor) -> None:
        super().__init__(spec, image_shape)
        self.s = mask.expand(image_shape).flatten().double()
        self.measurement_shape = (int(self.s.sum()),)

    def coordinates(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def pixels(self, u: Tensor) -> Tensor:
        return u.reshape(len(u), *self.image_shape)

    def spectral(self, y: Tensor) -> Tensor:
        u = y.new_zeros(len(y), len(self.s))
        u[:, self.s > 0] = y
        return u

    def measurement(self, u: Tensor) -> Tensor:
        return u[:, self.s > 0]


FIRST = Selection(DrawnMaskSpec(rows=(".#",)), (1, 1, 2), torch.tensor([[1.0, 0.0]]))
SPEC = InpaintTunedSpec(solver=AncestralSpec(steps=100, threshold="none"))


def restored(denoiser: Denoiser, y: Tensor, std: float, seed: int = 0) -> Tensor:
    restorer = InpaintTuned(SPEC, Ancestral(SPEC.solver, denoiser))
    return restorer.restore(Measurement(FIRST, y, std), stream("restore", seed))


def informed_by_hand(process: Process, y: Tensor) -> Toy:
    """The exact denoiser given the first pixel: the second is N(r y, v (1 - r^2)), seen through the noise."""

    def x0(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (each.to(x) for each in (process.alpha(t), process.sigma(t)))
        variance = V * (1 - R**2)
        gain = alpha * variance / (alpha**2 * variance + sigma**2)
        second = R * y + gain * (x[:, 0, 0, 1:] - alpha * R * y)
        return torch.cat([y, second], dim=1)[:, None, None]

    return Toy(process, "x0", x0)


@pytest.mark.slow
def test_the_other_pixel_is_drawn_from_its_posterior(tuned) -> None:
    """The same solver with the same noise and the exact denoiser ends in the same images: to a fifth of the posterior's
    standard deviation in the root mean square, and a seventh on average, for each of a few y."""
    n, std = 2000, math.sqrt(V * (1 - R**2))
    counted = Counted(tuned)
    y = torch.tensor([-0.8, 0.0, 0.5]).repeat_interleave(n)[:, None]
    x = restored(counted, y, 0.0)
    assert counted.calls == 100
    assert torch.equal(x[:, 0, 0, :1], y)
    exact = Ancestral(SPEC.solver, informed_by_hand(tuned.process, y))
    want = sample(exact, x.shape, stream("restore", 0))
    assert (want[:, 0, 0, :1] - y).abs().max() < 1e-5
    error = (x - want)[:, 0, 0, 1].reshape(3, n)
    assert (error.square().mean(1).sqrt() < 0.2 * std).all()
    assert (error.mean(1).abs() < std / 7).all()


@pytest.mark.slow
def test_draws_are_a_function_of_the_generator(tuned) -> None:
    y = torch.tensor([[0.3], [-0.2]])
    first, again, other = (restored(tuned, y, 0.0, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.slow
def test_a_noisy_measurement_is_told_but_not_put_back(tuned) -> None:
    y = torch.tensor([[0.3], [-0.2]])
    noisy, exact = restored(tuned, y, 0.1), restored(tuned, y, 0.0)
    assert torch.equal(noisy[..., 1], exact[..., 1])
    assert not torch.equal(noisy[..., 0], exact[..., 0])
    # It was told the pixels: they come out near.
    assert (noisy[:, 0, 0, :1] - y).abs().max() < 0.1


def test_the_mask_of_an_operator_on_colours_is_one_for_all_channels() -> None:
    denoiser, _, x_t, _ = told_apart()
    mask = torch.ones(2, 4)
    mask[:, 1:3] = 0
    box = Selection(BoxMaskSpec(height=2, width=2), (2, 2, 4), mask)
    restorer = InpaintTuned(SPEC, Ancestral(SPEC.solver, denoiser))
    known = restorer.known(box, box.apply(x_t))
    assert known.mask.shape == (3, 1, 2, 4)
    assert torch.equal(known.mask, mask.expand(3, 1, 2, 4))
    assert torch.equal(known.image, mask * x_t)
    x = restorer.restore(Measurement(box, box.apply(x_t), 0.0), stream("restore"))
    assert torch.equal(mask * x, mask * x_t)


@pytest.mark.slow
def test_what_it_cannot_restore_is_refused(tuned) -> None:
    restorer = InpaintTuned(SPEC, Ancestral(SPEC.solver, tuned))
    identity = Selection(IdentitySpec(), (1, 1, 2), torch.ones(1, 2))
    y = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="needs a mask of pixels, not identity"):
        restorer.restore(Measurement(identity, y, 0.0), stream("restore"))
    plain = NetworkDenoiser(NetworkDenoiserSpec(predict="eps"), tuned.process, Seen())
    with pytest.raises(TypeError, match="takes no masks"):
        restored(plain, torch.zeros(1, 1), 0.0)
