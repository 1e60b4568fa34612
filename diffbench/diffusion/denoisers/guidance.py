r"""Guidance: wrappers that make samples agree more with a label y than the model alone does.

    classifier-free   prediction <- (1 + w) prediction(x_t, y) - w prediction(x_t)
                                        (Ho & Salimans 2022, https://arxiv.org/abs/2207.12598, equation 6)
    classifier        score <- score + s grad log p(y | x_t)           p: a classifier of noisy images
                                        (Dhariwal & Nichol 2021, https://arxiv.org/abs/2105.05233, algorithm 2)

Both are denoisers around another, for every process and view.  At a given x_t all views are affine in each
other, so that an average with weights 1 + w and -w is the same in each view.  The learned variance is the
conditional model's.

DDPM's sampler adds the gradient to its mean instead, scaled by the step's variance (algorithm 1).  A guided
prediction therefore keeps ``unguided`` and ``guide`` = s grad log p(y | x_t) beside its views.  Thresholds
act before classifier guidance, as in the official code: what guidance adds is not clipped.

``objectives`` has the loss that trains the classifier.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.core.process import Process, cast
from diffbench.diffusion.denoisers.denoiser import Denoiser, Wrapper
from diffbench.diffusion.denoisers.network import noise_input

#: A network F(x, c_noise) that returns logits (B, K), for images x (B, C, H, W) scaled to unit size and c_noise (B,).
ClassifierNetwork = Callable[[Tensor, Tensor], Tensor]


class Classifier:
    """A classifier p(y | x_t) of noisy images, by a network that is told the noise level; ``classes`` labels.

    With x centred on the middle of the data range, h half the range's width, and c = (alpha^2 h^2 + sigma^2)^(-1/2),

        logits = alpha h c F(c x; c_noise)

    so that grad log p(y | x_t) vanishes with alpha.  So does the true one, which at high noise is
    alpha/sigma^2 (E[x_0 | y] - E[x_0]).  Otherwise a step that divides by alpha (DDIM from the cosine chain's last
    level, alpha = 5e-5) would magnify the network's smallest error without bound.
    """

    def __init__(self, process: Process, network: ClassifierNetwork, classes: int) -> None:
        self.process, self.network, self.classes = process, network, classes

    def logits(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Logits (B, K) at images x_t (B, C, H, W) and times t (shape () or (B, 1, 1, 1))."""
        process = self.process
        alpha, sigma = process.basis.on_constant(process.alpha(t)), process.sigma(t)
        signal = alpha * process.spec.half_range
        scale = (signal**2 + sigma**2).rsqrt()
        x = cast(scale, x_t) * process.centred(x_t)
        gate = (signal * scale).reshape(-1, 1).to(x_t)
        return gate * self.network(x, noise_input(process, x_t, t))

    @torch.enable_grad()
    def gradient(self, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """The gradient of log p(y | x_t) with respect to x_t, for labels y (B,)."""
        x = x_t.detach().requires_grad_()
        chosen = self.logits(x, t).log_softmax(1).gather(1, y[:, None])
        return torch.autograd.grad(chosen.sum(), x)[0]


class ClassifierFreeGuidance(Wrapper):
    """Classifier-free guidance: (1 + w) conditional - w unconditional.

    At w = 0 only the conditional model is evaluated.
    """

    def __init__(self, denoiser: Denoiser, w: float) -> None:
        super().__init__(denoiser)
        self.w = w

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        """The guided prediction, from two evaluations.

        Raises:
            ValueError: when the condition has no labels.
        """
        if condition.label is None:
            raise ValueError("classifier-free guidance needs labels y")
        conditional = self.denoiser(x_t, t, condition)
        if self.w == 0:
            return conditional
        unconditional = self.denoiser(x_t, t, replace(condition, label=None))
        return conditional.with_value(
            (1 + self.w) * conditional.value - self.w * unconditional.value
        )


class GuidedPrediction(Prediction):
    """A prediction to whose score the guide's gradient is added."""

    def __init__(self, base: Prediction, guide: Tensor) -> None:
        super().__init__(
            base.process, base.x_t, base.t, "eps", base.eps, base.fraction, base.log_variance
        )
        self.value = base.eps - self.sigma * guide
        self.base, self.guide = base, guide

    @property
    def unguided(self) -> Prediction:
        return self.base


class ClassifierGuidance(Wrapper):
    """Classifier guidance: ``scale`` times a classifier's gradient is added to the score; nothing at scale 0."""

    def __init__(self, denoiser: Denoiser, classifier: Classifier, scale: float) -> None:
        super().__init__(denoiser)
        self.classifier, self.scale = classifier, scale

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        """The guided prediction, from one evaluation of the denoiser and one of the classifier.

        The denoiser is told the labels if it knows any.

        Raises:
            ValueError: when the condition has no labels.
        """
        if condition.label is None:
            raise ValueError("classifier guidance needs labels y")
        told = condition if self.classes else replace(condition, label=None)
        prediction = self.denoiser(x_t, t, told)
        if self.scale == 0:
            return prediction
        gradient = self.classifier.gradient(x_t, t, condition.label)
        return GuidedPrediction(prediction, self.scale * gradient)


def guided(
    denoiser: Denoiser,
    w: float | None,
    threshold: Callable[[Denoiser], Denoiser],
    classifier: Classifier | None,
    scale: float | None,
) -> Denoiser:
    """The denoiser with classifier-free guidance, then the threshold, then the classifier's guidance.

    Each guidance is left out where its w or its scale is None.

    Raises:
        ValueError: when there is a scale without a classifier.
    """
    if w is not None:
        denoiser = ClassifierFreeGuidance(denoiser, w)
    denoiser = threshold(denoiser)
    if scale is None:
        return denoiser
    if classifier is None:
        raise ValueError(f"classifier_scale: {scale:g}, but there is no classifier")
    return ClassifierGuidance(denoiser, classifier, scale)
