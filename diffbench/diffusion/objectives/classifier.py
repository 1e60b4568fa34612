r"""Cross-entropy, the objective of a classifier of noisy images.

    loss_i = -ln p(y_i | x_t),     x_t = alpha x_0 + sigma eps

Source: Dhariwal & Nichol 2021, https://arxiv.org/abs/2105.05233, section 4.1.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.denoisers.guidance import Classifier
from diffbench.diffusion.objectives.losses import Loss
from diffbench.diffusion.objectives.times import Times


class CrossEntropy(Loss):
    """The cross-entropy loss of a classifier of noisy images."""

    def __init__(self, classifier: Classifier, times: Times) -> None:
        super().__init__(times)
        self.classifier = classifier

    def losses(self, x0: Tensor, t: Tensor, eps: Tensor, condition: Condition) -> Tensor:
        """The losses -ln p(y | x_t) (B,), for the condition's labels y (B,).

        Raises:
            ValueError: when the condition has no labels.
        """
        if condition.label is None:
            raise ValueError("a classifier needs labels y")
        logits = self.classifier.logits(self.classifier.process.diffuse(x0, t, eps), t)
        return F.cross_entropy(logits, condition.label, reduction="none")
