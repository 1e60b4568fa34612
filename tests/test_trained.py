"""The digits classifier: reproducible, accurate, and sensitive to the damage FID has to see."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffbench.data.datasets import DIGITS_LIMITS, Dataset
from diffbench.data.grey_levels import GreyLevels
from diffbench.metrics.extractor import features_and_logits, weights_sha256
from diffbench.metrics.trained import (
    ClassifierTraining,
    FeatureNetwork,
    Task,
    Trained,
    build_extractor,
    total_variance,
    train_extractor,
)
from diffbench.metrics.validation import NOISES, check_limits, gaussian_blur, validate_extractor
from diffbench.specs.extractors import TrainedExtractorSpec

pytestmark = pytest.mark.usefixtures("one_thread")

BRIEF = TrainedExtractorSpec(epochs=2)


@pytest.fixture(scope="session")
def module(digits: Dataset) -> FeatureNetwork:
    return train_extractor(TrainedExtractorSpec(), digits)


@pytest.fixture(scope="session")
def report(module: FeatureNetwork, digits: Dataset) -> dict[str, float]:
    return validate_extractor(module, digits)


def small(shape: tuple[int, int, int], classes: int, count: int = 40) -> Dataset:
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (count, *shape)).astype(np.uint8)
    labels = np.arange(count) % classes
    names = tuple(str(i) for i in range(classes))
    return Dataset(images[8:], images[:8], labels[8:], labels[:8], 256, names, name="small")


@pytest.mark.slow
def test_the_extractor_tells_digits_apart(report: dict[str, float]) -> None:
    assert report["accuracy"] >= 0.985


@pytest.mark.slow
def test_the_floor_is_in_its_range(report: dict[str, float]) -> None:
    assert 0.8 <= report["floor"] <= 1.6


@pytest.mark.slow
def test_damage_costs_more_than_chance(report: dict[str, float]) -> None:
    assert report["dropped_class"] >= 8 and report["dropped_class_least"] >= 8
    assert report["blur"] >= 15
    assert report["noise_0.2"] >= 2


@pytest.mark.slow
def test_fid_grows_with_noise(report: dict[str, float]) -> None:
    noises = [report[f"noise_{sigma}"] for sigma in NOISES]
    assert noises == sorted(noises) and noises[-1] > 10


@pytest.mark.slow
def test_features_have_the_total_variance_of_the_spec(
    module: FeatureNetwork, digits: Dataset
) -> None:
    features, logits = features_and_logits(module, digits.train)
    assert features.shape == (1500, 32) and logits.shape == (1500, 10)
    assert features.dtype == logits.dtype == np.float32
    assert features.astype(np.float64).var(axis=0).sum() == pytest.approx(
        TrainedExtractorSpec().variance, rel=1e-5
    )


def test_training_is_a_function_of_the_spec(digits: Dataset) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = weights_sha256(train_extractor(BRIEF, digits))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert weights_sha256(train_extractor(BRIEF, digits)) == first
    assert weights_sha256(train_extractor(BRIEF.model_copy(update={"seed": 1}), digits)) != first


@pytest.mark.slow
def test_stored_weights_give_the_same_features(module: FeatureNetwork, digits: Dataset) -> None:
    again = build_extractor(TrainedExtractorSpec(), digits)
    again.load_state_dict(module.state_dict())
    again.eval()
    assert weights_sha256(again) == weights_sha256(module) and again.name == "digits-classifier"
    for a, b in zip(*(features_and_logits(m, digits.test) for m in (again, module)), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.slow
def test_batches_do_not_matter(module: FeatureNetwork, digits: Dataset) -> None:
    whole, _ = features_and_logits(module, digits.test)
    parts, _ = features_and_logits(module, digits.test, batch=64)
    assert np.allclose(whole, parts, atol=1e-3)


@pytest.mark.parametrize(("shape", "classes"), [((12, 9, 3), 3), ((16, 16, 1), 1), ((9, 12, 3), 1)])
def test_other_images_can_be_learnt(shape: tuple[int, int, int], classes: int) -> None:
    dataset = small(shape, classes)
    module = train_extractor(BRIEF, dataset)
    _, logits = features_and_logits(module, dataset.test)
    assert logits.shape[1] == {3: 3, 1: 4 if shape[0] == shape[1] else 2}[classes]
    assert module.name == ("small-classifier" if classes > 1 else "small-classifier-turns")
    assert set(validate_extractor(module, dataset)) == {"floor"} | (
        {"accuracy"} if classes > 1 else set()
    )


def test_blur_is_of_half_a_pixel(digits: Dataset) -> None:
    dot = np.zeros((1, 9, 9, 1), np.uint8)
    dot[0, 4, 4, 0] = 16
    blurred = gaussian_blur(replace(digits, train=dot), 0.5)[0, :, :, 0].astype(float)
    weights = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 0.5**2))
    weights /= weights.sum()
    assert np.allclose(blurred[2:7, 2:7], 16 * np.outer(weights, weights), atol=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", DIGITS_LIMITS)
def test_a_number_outside_its_limits_is_named(report: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0.5, outside"):
        check_limits(report | {name: 0.5}, DIGITS_LIMITS)


def test_an_untrained_extractor_fails_validation(digits: Dataset) -> None:
    with pytest.raises(ValueError, match="accuracy"):
        validate_extractor(build_extractor(TrainedExtractorSpec(), digits).eval(), digits)


@pytest.mark.slow
def test_noise_that_lowers_fid_is_refused(report: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="does not grow with noise"):
        check_limits(report | {"noise_0.05": 5.0}, DIGITS_LIMITS)


@pytest.mark.slow
def test_non_finite_features_are_refused(module: FeatureNetwork, digits: Dataset) -> None:
    broken = build_extractor(TrainedExtractorSpec(), digits).eval()
    torch.nn.init.constant_(broken.features.bias, torch.nan)
    with pytest.raises(ValueError, match="NaN"):
        features_and_logits(broken, digits.test)
    with pytest.raises(ValueError, match="uint8"):
        features_and_logits(module, digits.test.astype(np.float32))


@pytest.mark.parametrize(("side", "channels"), [(8, 7), (48, 3), (64, 2)])
def test_sfid_has_the_pixels_of_which_a_feature_is_the_mean(side: int, channels: int) -> None:
    """Of a map half as wide as the image, as many channels as make at most 2,048 numbers, and at most 7."""
    dataset = small((side, side, 3), classes=4, count=12)
    spec = TrainedExtractorSpec(opinions=("sfid",))
    network = build_extractor(spec, dataset).eval()
    ((name, opinion),) = Trained(spec).opinions(network).items()
    z, logits = features_and_logits(opinion, dataset.test)
    pixels = (side // 2) ** 2
    assert (name, z.shape, logits.shape) == ("sfid", (8, pixels * channels), (8, 0))
    with torch.no_grad():
        x = network.grey.to_model(dataset.test)
        pooled = network.body(x)[:, :channels].numpy()
    # Sums of at most 1,024 float32 numbers.
    assert np.allclose(z.reshape(8, pixels, channels).mean(1), pooled, rtol=1e-4, atol=1e-6)
    assert Trained(TrainedExtractorSpec()).opinions(network) == {}


@pytest.mark.parametrize("stopped", [1, 3, 4, 5, 8])
def test_a_training_goes_on_from_its_state_to_the_same_bits(stopped: int) -> None:
    """In an epoch of four steps, between epochs, and after the last step."""
    dataset, spec = small((12, 9, 3), 3), TrainedExtractorSpec(epochs=2, batch=8)
    whole, first, again = (ClassifierTraining(spec, dataset, torch.device("cpu")) for _ in range(3))
    assert (whole.steps, whole.batch) == (8, 8)
    for _ in range(stopped):
        first.advance()
    saved = {name: each.clone() for name, each in first.state().items()}
    # What is saved does not depend on what is done later, nor on the global generator.
    if stopped < first.steps:
        first.advance()
    torch.manual_seed(stopped)
    again.restore(saved | {"step": torch.tensor(stopped)})
    for training in (whole, again):
        while training.step < training.steps:
            training.advance()
    states = [training.state() for training in (whole, again)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(each, states[1][name]) for name, each in states[0].items())
    assert weights_sha256(whole.finished()) == weights_sha256(again.finished())


@pytest.mark.parametrize("shape", [(6, 6, 2), (6, 4, 1)])
def test_the_images_of_a_set_without_classes_are_turned_as_they_are_asked_for(
    shape: tuple[int, int, int],
) -> None:
    dataset = small(shape, 1, count=13)
    grey = GreyLevels(256)
    task = Task(dataset, grey, torch.device("cpu"))
    turns = 4 if shape[0] == shape[1] else 2
    turned = [np.rot90(dataset.train, k * 4 // turns, axes=(1, 2)) for k in range(turns)]
    assert len(task) == 5 * turns
    rows = torch.randperm(len(task), generator=torch.Generator().manual_seed(0))
    x, y = task[rows]
    assert torch.equal(x, grey.to_model(np.concatenate(turned)[rows.numpy()]))
    assert torch.equal(y, rows // 5)


def test_images_are_read_a_batch_at_a_time() -> None:
    """Whatever their number: they may be mapped into memory, and more than fit into it."""
    dataset = small((8, 8, 1), 1, count=408)
    asked = read_of(dataset.train)
    features_and_logits(build_extractor(BRIEF, dataset).eval(), asked, batch=50)
    assert len(asked.most) == 8 and max(asked.most) == 50
    training = ClassifierTraining(BRIEF, dataset, torch.device("cpu"))
    asked = training.task.images.stored = Rows(training.task.images.stored)
    for _ in range(training.batches):
        training.advance()
    assert sum(asked.most) == 4 * 400 and max(asked.most) <= BRIEF.batch


class Read(np.ndarray):
    """Images that note how many of them each reader takes."""

    most: list[int]

    def __getitem__(self, rows):
        found = np.asarray(super().__getitem__(rows))
        self.most.append(len(found))
        return found


def read_of(images: np.ndarray) -> Read:
    noted = images.view(Read)
    noted.most = []
    return noted


class Rows:
    """A tensor that notes how many rows each reader takes."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor, self.device, self.most = tensor, tensor.device, []

    def __len__(self) -> int:
        return len(self.tensor)

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        self.most.append(len(rows))
        return self.tensor[rows]


@pytest.mark.parametrize("cuts", [[], [1], [7, 8], [50]])
def test_the_total_variance_of_parts_is_that_of_the_whole(cuts: list[int]) -> None:
    z = np.random.RandomState(0).standard_normal((100, 5)) * [1, 2, 3, 4, 5] + 10
    found = total_variance(iter(np.split(z, cuts)))
    if cuts:
        # A few sums of a hundred numbers: 100 roundings of 1e-16.
        assert found == pytest.approx(z.var(axis=0).sum(), rel=1e-13)
    else:
        assert found == z.var(axis=0).sum()


@pytest.mark.parametrize(
    ("images", "epochs"),
    [(1500, 40), (4928, 40), (5000, 40), (50_000, 4), (1_281_167, 1), (None, 40)],
)
def test_the_passes_fit_the_number_of_images(images: int | None, epochs: int) -> None:
    spec = TrainedExtractorSpec().suited(images)
    assert spec.epochs == epochs
    if epochs == 40:
        assert spec.digest() == TrainedExtractorSpec().digest()
    assert TrainedExtractorSpec(epochs=40).suited(images).epochs == 40
