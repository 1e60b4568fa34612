"""What a class of an extension returns is checked where it comes in: nothing broadcasts without a word."""

import pytest
import torch
from torch import nn

from diffbench.diffusion import VP, Heun
from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.core.streams import stream
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.objectives.losses import Draws, Loss
from diffbench.diffusion.solvers.loop import sample
from diffbench.metrics.extractor import features_and_logits

SHAPE = (4, 1, 8, 8)
#: What may come back in place of a tensor like x: too few rows, a row that is broadcast, another type, nothing.
WRONG = {
    "half of the images": lambda x: x[:2],
    "one image for all": lambda x: x[:1],
    "without a row of pixels": lambda x: x[:, :, :-1],
    "one channel too many": lambda x: torch.cat([x, x], 1),
    "float64": lambda x: x.double(),
    "whole numbers": lambda x: x.long(),
    "an array": lambda x: x.numpy(),
    "nothing": lambda x: None,
}
each_wrong = pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)


class Zero(Denoiser):
    """Predicts eps = 0, changed by a function."""

    def __init__(self, change=lambda x: x):
        super().__init__(VP())
        self.change = change

    def predict(self, x_t, t, condition):
        return Prediction(self.process, x_t, t, "eps", self.change(torch.zeros_like(x_t)))


def drawn(solver):
    return sample(solver, SHAPE, stream("test", 0))


@each_wrong
@pytest.mark.parametrize("method", ["step", "draw", "returned"])
def test_a_solver_returns_as_many_images_as_it_was_given(monkeypatch, wrong, method):
    solver = Heun(Zero(), steps=2)
    assert drawn(solver).shape == SHAPE
    right = getattr(solver, method)
    monkeypatch.setattr(solver, method, lambda *given: wrong(right(*given)))
    with pytest.raises(ValueError, match=rf"^Heun\.{method} returned .*; expected: float32 \(4, 1"):
        drawn(solver)


@each_wrong
def test_a_prediction_has_the_shape_of_its_images(wrong):
    with pytest.raises(ValueError, match=r"^Zero\.predict returned .*; expected: float32 \(4, 1"):
        Zero(wrong)(torch.zeros(SHAPE), torch.tensor(0.5, dtype=torch.float64))


def test_a_denoiser_returns_a_prediction(monkeypatch):
    denoiser = Zero()
    monkeypatch.setattr(denoiser, "predict", lambda x_t, t, condition: x_t)
    with pytest.raises(ValueError, match=r"^Zero\.predict returned float32 .*: a Prediction"):
        denoiser(torch.zeros(SHAPE), torch.tensor(0.5))


class Given(Loss):
    """A loss that a function makes of the images' means."""

    def __init__(self, change):
        super().__init__(None)
        self.change = change

    def losses(self, x0, t, eps, condition):
        return self.change(x0.flatten(1).mean(1))


@pytest.mark.parametrize(
    "wrong",
    [lambda x: x.mean(), lambda x: x[:2], lambda x: x[:, None], lambda x: x > 0, lambda x: None],
)
def test_a_loss_is_one_number_for_each_image(wrong):
    x0, t = torch.zeros(SHAPE), torch.ones(4, dtype=torch.float64)
    draws = Draws(x0, t, t, None, None)
    assert Given(lambda x: x).losses_for(x0, draws).shape == (4,)
    with pytest.raises(ValueError, match=r"^Given\.losses returned .*; expected: floats \(4\)"):
        Given(wrong).losses_for(x0, draws)


class Features(nn.Module):
    """An extractor whose outputs a function makes."""

    def __init__(self, make):
        super().__init__()
        self.make, self.weight = make, nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.make(x.float().flatten(1))


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x,
        lambda x: (x, x, x),
        lambda x: (x[:-1], x),
        lambda x: (x, x.long()),
        lambda x: (x[:, None], x),
        lambda x: (x[:, :0], x),
        lambda x: None,
    ],
)
def test_an_extractor_returns_features_and_logits_of_each_image(make):
    images = torch.zeros(3, 4, 4, 1, dtype=torch.uint8).numpy()
    assert features_and_logits(Features(lambda x: (x, x)), images)[0].shape == (3, 16)
    with pytest.raises(ValueError, match="^Features returned"):
        features_and_logits(Features(make), images)
