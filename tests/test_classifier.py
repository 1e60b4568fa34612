"""The classifier of noisy images: shapes, what it depends on, what it refuses."""

import pytest
import torch
from toys import process_of

from diffbench.diffusion.core.process import float64
from diffbench.diffusion.denoisers.guidance import Classifier
from diffbench.networks.classifier import Encoder
from diffbench.specs.networks.network import EncoderSpec


def build(image_shape=(1, 8, 8), classes=10, **changes) -> Encoder:
    torch.manual_seed(0)
    return Encoder(EncoderSpec(**changes), image_shape=image_shape, classes=classes).eval()


def awake(network: Encoder) -> Encoder:
    """The network after its layers that start at zero have moved."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def batch(image_shape=(1, 8, 8), size=4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(size, *image_shape, generator=generator), torch.linspace(-1.7, 2.5, size)


@pytest.mark.parametrize("image_shape", [(1, 8, 8), (3, 8, 8), (1, 6, 10), (3, 32, 32), (1, 2, 2)])
@pytest.mark.parametrize("classes", [2, 10])
def test_one_logit_a_class(image_shape, classes):
    assert build(image_shape, classes)(*batch(image_shape)).shape == (4, classes)


@pytest.mark.parametrize("size", [(1, 7, 8), (1, 8, 5)])
def test_an_odd_size_is_refused(size):
    with pytest.raises(ValueError, match="must be even, not"):
        build(size)


def test_the_state_holds_parameters_only():
    network = build()
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}


def test_the_image_has_a_gradient_at_every_pixel():
    """With respect to each image its own: of image i's logits only image i's is not zero."""
    network, (x, c_noise) = awake(build()), batch()
    x.requires_grad_()
    for i in range(4):
        gradient = torch.autograd.grad(network(x, c_noise)[i, 3], x)[0]
        assert (gradient[i] != 0).all()
        assert gradient[torch.arange(4) != i].abs().max() == 0


def test_each_image_is_classified_alone():
    """Matrix products of other shapes sum in another order: single precision, 1e-7 of numbers of size 1
    in some ten layers."""
    network, (x, c_noise) = awake(build()), batch()
    together = network(x, c_noise)
    alone = torch.cat([network(x[[i]], c_noise[[i]]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_the_noise_level_matters():
    network, (x, c_noise) = awake(build()), batch()
    assert not torch.allclose(network(x, c_noise), network(x, c_noise + 0.5), atol=1e-3)


def test_gradient_reaches_every_parameter_after_one_step():
    network = build((3, 8, 8), dropout=0.0).train()
    x, c_noise = batch((3, 8, 8))
    y = torch.tensor([0, 2, 5, 4])
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(x, c_noise), y).backward()
        optimiser.step()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_it_drops_out_in_training_alone():
    network, (x, c_noise) = awake(build(dropout=0.5)), batch()
    assert torch.equal(network(x, c_noise), network(x, c_noise))
    network.train()
    assert not torch.equal(network(x, c_noise), network(x, c_noise))


def test_a_step_along_its_gradient_makes_the_label_likelier():
    """At the rate of its length.  A central difference over 2 h = 0.02 errs by h^2/6 = 2e-5 of the third
    derivative, and in single precision by 1e-6/0.02 = 5e-5, of slopes of size 0.1 to 1."""
    process, y = process_of("vp"), torch.tensor([0, 3, 9, 3])
    classifier = Classifier(process, awake(build()), 10)
    x, t = batch()[0], float64(0.3)
    gradient = classifier.gradient(x, t, y)
    norm = gradient.flatten(1).norm(dim=1)
    with torch.no_grad():
        before, after = (
            classifier.logits(x + step * gradient / norm[:, None, None, None], t)
            .log_softmax(1)
            .gather(1, y[:, None])[:, 0]
            for step in (-0.01, 0.01)
        )
    torch.testing.assert_close((after - before) / 0.02, norm, rtol=1e-3, atol=2e-4)
