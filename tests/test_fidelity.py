"""Fidelity against closed forms, brute force, and torch-fidelity's own front door."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import linalg
from torch import Tensor, nn

from diffbench.data.grey_levels import Images
from diffbench.metrics import reference_statistics
from diffbench.metrics.distances import (
    IS_OPTIONS,
    KID_OPTIONS,
    Fitted,
    FrechetTo,
    Statistics,
    bootstrap_rows,
    fid_statistics,
    fitted,
    inception_score,
    kernel_distance,
    kernel_distance_se,
    kid_subset_size,
)
from diffbench.metrics.extractor import features_and_logits
from diffbench.metrics.fidelity import Fidelity
from diffbench.metrics.measures import Measured
from diffbench.metrics.neighbours import NEIGHBOURHOOD
from diffbench.metrics.torchvision_operators import torch_fidelity

pytestmark = pytest.mark.usefixtures("one_thread")

KEYS = {
    "fid",
    "fid_test",
    "is",
    "kid",
    "precision",
    "recall",
    "nearest_ratio",
    "confidence",
    "saturated",
}


class Projection(nn.Module):
    """Eight fixed random projections of a 4x4 image, and five logits of them."""

    name = "projection"

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.features = nn.Linear(16, 8)
            self.head = nn.Linear(8, 5)
        self.requires_grad_(False)

    def forward(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        z = 4 * self.features(levels.flatten(1).float() / 16 - 0.5)
        return z, self.head(z)


@pytest.fixture(scope="module")
def fidelity() -> Fidelity:
    return measured(SPLITS)


def measured(
    splits: dict[str, Images], module: nn.Module | None = None, **options: object
) -> Fidelity:
    module = module or Projection()
    return Fidelity(
        module, reference_statistics.measure(module, splits), splits["train"], **options
    )  # type: ignore[arg-type]


def images(count: int, seed: int, most: int = 17) -> Images:
    return np.random.RandomState(seed).randint(0, most, (count, 4, 4, 1)).astype(np.uint8)


SPLITS = {"train": images(300, seed=1), "test": images(100, seed=2)}


def normal(count: int, seed: int, shift: float = 0.0) -> NDArray[np.float64]:
    return np.random.RandomState(seed).standard_normal((count, 4)) + shift


def gaussian(seed: int, d: int = 6) -> dict[str, NDArray[np.float64]]:
    random = np.random.RandomState(seed)
    root = random.standard_normal((d, d))
    return {"mu": random.standard_normal(d), "sigma": root @ root.T + 0.1 * np.eye(d)}


def fid(one: Statistics, other: Statistics) -> float:
    """Frechet distance of two Gaussians."""
    return FrechetTo(other)(Fitted(one["mu"], one["sigma"], None))


def published_fid(one: Statistics, other: Statistics) -> float:
    """The same by torch-fidelity."""
    torch_fidelity()
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    return float(fid_statistics_to_metric(one, other, verbose=False)[KEY_METRIC_FID])


def test_fid_of_commuting_gaussians_is_the_closed_form() -> None:
    s, r = np.array([1.0, 4.0, 9.0]), np.array([0.25, 16.0, 9.0])
    a = {"mu": np.zeros(3), "sigma": np.diag(s)}
    b = {"mu": np.array([1.0, 2.0, 0.0]), "sigma": np.diag(r)}
    assert fid(a, b) == pytest.approx(5 + ((s**0.5 - r**0.5) ** 2).sum(), rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_fid_of_any_gaussians_is_the_closed_form(seed: int) -> None:
    a, b = gaussian(seed), gaussian(seed + 10)
    root = linalg.sqrtm(a["sigma"])
    cross = np.trace(linalg.sqrtm(root @ b["sigma"] @ root)).real
    expected = ((a["mu"] - b["mu"]) ** 2).sum() + np.trace(a["sigma"] + b["sigma"]) - 2 * cross
    assert fid(a, b) == pytest.approx(expected, rel=1e-9)
    assert fid(b, a) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_fid_is_torch_fidelitys(seed: int) -> None:
    """Both are exact but for rounding: 1e-15 of traces of order 10, and roots of eigenvalues no less than 0.01."""
    known = gaussian(seed)
    for other in [known, *(gaussian(seed + 10 + i) for i in range(3))]:
        assert fid(other, known) == pytest.approx(published_fid(other, known), rel=1e-9, abs=1e-9)


def test_fid_to_a_singular_covariance_is_torch_fidelitys() -> None:
    """It has no Cholesky factor; 20 roots of eigenvalues that are 0 up to 1e-15 come out as at most 3e-7."""
    flat = gaussian(0, 30)
    flat["sigma"][10:], flat["sigma"][:, 10:] = 0, 0
    assert FrechetTo(flat).triangle is None and FrechetTo(gaussian(1)).triangle is not None
    assert fid(gaussian(2, 30), flat) == pytest.approx(
        published_fid(gaussian(2, 30), flat), abs=1e-5
    )


@pytest.mark.parametrize("count", [10, 23, 24, 25])
def test_fid_of_few_images_is_that_of_their_covariance(count: int) -> None:
    """To torch-fidelity's rounding: the root of an eigenvalue 0 may come out as 3e-7, and FID has twice 15 of them.

    The eigenvalue itself comes out as 1e-15 of the largest, which is about 100.
    """
    random = np.random.RandomState(count)
    z, reference = random.standard_normal((count, 24)), random.standard_normal((60, 24)) + 0.5
    statistics = fid_statistics(reference)
    found = FrechetTo(statistics)(fitted(z))
    assert found == pytest.approx(published_fid(fid_statistics(z), statistics), abs=1e-5)
    assert found == pytest.approx(fid(fid_statistics(z), statistics), abs=1e-5)
    with pytest.raises(ValueError, match="3 images"):
        fitted(z[:3])


def test_statistics_are_mean_and_unbiased_covariance() -> None:
    z = normal(50, 0)
    statistics = fid_statistics(z)
    centred = z - z.mean(0)
    assert np.allclose(statistics["mu"], z.mean(0), atol=1e-14)
    assert np.allclose(statistics["sigma"], centred.T @ centred / 49, atol=1e-14)
    with pytest.raises(ValueError, match="3 images"):
        fid_statistics(z[:3])


def test_whoever_waits_for_features_is_told_of_each_pass() -> None:
    told: list[int] = []
    found = reference_statistics.measure(Projection(), SPLITS, part=128, batch=50, seen=told.append)
    assert sum(told) == sum(map(len, SPLITS.values())) and max(told) == 50
    assert found.counts == {name: len(each) for name, each in SPLITS.items()}


def test_fid_of_identical_sets_is_zero(fidelity: Fidelity) -> None:
    assert fidelity.score(SPLITS["train"])["fid"]["value"] == pytest.approx(0, abs=1e-9)
    assert fidelity.score(SPLITS["test"])["fid_test"]["value"] == pytest.approx(0, abs=1e-9)


def test_fid_alone_is_that_of_all_scores_and_neighbours_are_drawn_together(
    fidelity: Fidelity,
) -> None:
    """Five copies of each image are as many images, not five times as many: the error says so."""
    levels = images(60, seed=3)
    assert fidelity.frechet(levels) == fidelity.score(levels)["fid"]
    repeated = fidelity.frechet(levels.repeat(5, axis=0), together=5)
    apart = fidelity.frechet(levels.repeat(5, axis=0))
    alone = fidelity.frechet(levels)
    assert repeated["se"] is not None and alone["se"] is not None and apart["se"] is not None
    assert abs(repeated["se"] / alone["se"] - 1) < 0.1
    assert apart["se"] < 0.75 * repeated["se"]
    with pytest.raises(ValueError, match="too few"):
        fidelity.frechet(levels[:19])


def test_rounding_never_makes_an_fid_negative_nor_hides_a_nan() -> None:
    sets = [np.random.RandomState(seed).randn(50, 32) * 1000 for seed in range(10)]
    assert min(FrechetTo(fid_statistics(z))(fitted(z)) for z in sets) >= 0
    assert min(FrechetTo(fid_statistics(z))(fitted(z[:20])) for z in sets) >= 0
    for rows in (50, 20):
        assert np.isnan(FrechetTo(fid_statistics(sets[0]))(fitted(sets[0][:rows] * np.nan)))


def test_inception_score_of_certain_and_of_equal_predictions() -> None:
    assert inception_score(np.zeros((200, 7))) == pytest.approx(1)
    certain = 200 * np.eye(2)[np.arange(4000) % 2]
    assert inception_score(certain) == pytest.approx(2, rel=1e-2)


def cubic_kernel_mean(a: float, b: float, d: int, gamma: float) -> float:
    """E (gamma u + 1)^3 for u = x.y, x ~ N(a 1, I) and y ~ N(b 1, I) in d dimensions.

    u is a sum of d independent products, whose cumulants add.
    """
    first, second = a * b, (1 + a**2) * (1 + b**2)
    third = (a**3 + 3 * a) * (b**3 + 3 * b)
    k1, k2, k3 = d * first, d * (second - first**2), d * (third - 3 * second * first + 2 * first**3)
    return 1 + 3 * gamma * k1 + 3 * gamma**2 * (k2 + k1**2) + gamma**3 * (k3 + 3 * k2 * k1 + k1**3)


def test_kid_of_a_shift_is_the_expected_mmd() -> None:
    pairs = ((0, 0, 1), (0, 0.5, -2), (0.5, 0.5, 1))
    mmd = sum(sign * cubic_kernel_mean(a, b, 4, 0.25) for a, b, sign in pairs)
    measured = [kernel_distance(normal(1000, i), normal(1000, i + 50, 0.5), 0.25) for i in range(4)]
    assert np.mean(measured) == pytest.approx(mmd, rel=0.1)


def test_standard_error_of_kid_is_its_spread_over_draws() -> None:
    reference = normal(400, 1000, 0.5)
    values, errors = [], []
    for seed in range(40):
        z = normal(400, seed)
        within, across = (0.25 * z @ z.T + 1) ** 3, (0.25 * z @ reference.T + 1) ** 3
        values.append((within.sum() - np.trace(within)) / (400 * 399) - 2 * across.mean())
        errors.append(kernel_distance_se(z, reference, 0.25))
    assert 0.7 < np.mean(errors) / np.std(values, ddof=1) < 1.4


def test_bootstrap_error_of_fid_is_its_spread_over_draws() -> None:
    distance = FrechetTo(fid_statistics(normal(2000, 1000, 0.5)))
    draws = [normal(400, seed) for seed in range(40)]
    values = [distance(fitted(z)) for z in draws]
    rows = bootstrap_rows(400, 20, 0)
    errors = [np.std([distance(fitted(z[i])) for i in rows], ddof=1) for z in draws[:8]]
    assert 0.7 < np.mean(errors) / np.std(values, ddof=1) < 1.4


def test_kid_subsets_are_half_of_the_smaller_set_at_most() -> None:
    assert kid_subset_size(50000, 10000) == 1000
    assert kid_subset_size(2000, 1500) == 750 and kid_subset_size(297, 1500) == 148


def test_nearest_ratio_is_in_units_of_the_test_images() -> None:
    train, test = np.zeros((8, 4, 4, 1), np.uint8), images(8, 0)
    test[:] = 0
    test[:, 0, 0, 0] = 4
    samples = np.zeros((20, 4, 4, 1), np.uint8)
    samples[:10, 1, 1, 0] = 2
    score = measured({"train": train, "test": test}).score(samples)["nearest_ratio"]
    assert score["value"] == pytest.approx(0.25)
    assert score["se"] == pytest.approx(np.std([0.5, 0] * 10, ddof=1) / 20**0.5)


def test_scores_have_every_metric_with_its_error(fidelity: Fidelity) -> None:
    scores = fidelity.score(images(200, seed=3))
    assert set(scores) == KEYS
    assert all(set(score) == {"value", "se"} for score in scores.values())
    assert all(
        score["se"] is not None and score["se"] >= 0 for k, score in scores.items() if k != "recall"
    )
    assert scores["recall"]["se"] is None
    assert scores == fidelity.score(images(200, seed=3))


def test_a_copy_of_the_training_set_has_nearest_ratio_zero(fidelity: Fidelity) -> None:
    copied = fidelity.score(SPLITS["train"][:100])
    assert copied["nearest_ratio"] == {"value": 0, "se": 0} and copied["precision"]["value"] == 1
    assert fidelity.score(SPLITS["test"])["nearest_ratio"]["value"] == pytest.approx(1)


def test_confidence_is_the_mean_largest_probability(fidelity: Fidelity) -> None:
    samples = images(50, seed=4)
    _, logits = features_and_logits(fidelity.module, samples)
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert fidelity.score(samples)["confidence"]["value"] == pytest.approx(
        probability.max(1).mean()
    )


def test_agrees_with_calculate_metrics_on_the_registered_extractor(fidelity: Fidelity) -> None:
    """torch-fidelity's own front door, the same extractor registered by name, its cache off."""
    package = torch_fidelity()

    class Registered(package.FeatureExtractorBase):  # type: ignore[name-defined, misc]
        def __init__(self, name: str, features_list: list[str], **_: object) -> None:
            super().__init__(name, features_list)
            self.module = Projection()

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return "features", "logits"

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return {"isc": "logits"}.get(metric, "features")

        def forward(self, levels: Tensor) -> tuple[Tensor, ...]:
            outputs = dict(zip(("features", "logits"), self.module(levels), strict=True))
            return tuple(outputs[name].double() for name in self.features_list)

    package.register_feature_extractor("projection-for-test", Registered)
    samples = images(250, seed=5, most=15)
    as_input = lambda levels: torch.from_numpy(levels).permute(0, 3, 1, 2)  # noqa: E731

    class Levels(torch.utils.data.Dataset[Tensor]):
        def __init__(self, levels: Images) -> None:
            self.images = as_input(levels)

        def __len__(self) -> int:
            return len(self.images)

        def __getitem__(self, index: int) -> Tensor:
            return self.images[index]

    theirs = package.calculate_metrics(
        input1=Levels(samples),
        input2=Levels(SPLITS["train"]),
        feature_extractor="projection-for-test",
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        isc_splits=IS_OPTIONS["splits"],
        samples_shuffle=IS_OPTIONS["shuffle"],
        kid_kernel_poly_gamma=fidelity.kid_gamma,
        kid_subset_size=kid_subset_size(250, 300),
        **KID_OPTIONS,
        prc_neighborhood=NEIGHBOURHOOD,
        batch_size=1000,
        cuda=False,
        cache=False,
        verbose=False,
    )
    ours = {name: score["value"] for name, score in fidelity.score(samples).items()}
    assert ours["fid"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-9)
    assert ours["is"] == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    assert ours["kid"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    assert ours["precision"] == theirs["precision"] and ours["recall"] == theirs["recall"]


def test_the_protocol_names_what_a_comparison_needs(fidelity: Fidelity) -> None:
    protocol = fidelity.protocol
    assert protocol["extractor"] == "projection" and len(protocol["extractor_sha256"]) == 64
    assert protocol["torch_fidelity"] == "0.4.0" and protocol["reference_split"] == "train"
    assert protocol["reference_counts"] == {"train": 300, "test": 100}
    assert protocol["kid_gamma"] == 1 / 8 and protocol["is_splits"] == 10


def test_without_resamples_there_are_no_bootstrap_errors() -> None:
    splits = {"train": images(40, seed=1), "test": images(40, seed=2)}
    scores = measured(splits, resamples=0).score(images(40, seed=3))
    assert (
        scores["fid"]["se"] is None
        and scores["is"]["se"] is None
        and scores["kid"]["se"] is not None
    )


def test_nan_weights_are_refused() -> None:
    broken = Projection()
    broken.head.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="NaN"):
        measured(SPLITS, broken)


def test_a_metric_that_is_not_defined_leaves_the_others_alone() -> None:
    copied = {"train": SPLITS["train"], "test": SPLITS["train"][:40]}
    scores = measured(copied).score(images(40, seed=3))
    reason = "every test image is a copy of a training image"
    assert scores.pop("nearest_ratio") == {"value": None, "se": None, "reason": reason}
    others = measured(SPLITS).score(images(40, seed=3))
    same = scores.keys() - {"fid_test"}
    assert {name: scores[name] for name in same} == {name: others[name] for name in same}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_measure_that_is_not_finite_leaves_the_others_alone(value: float) -> None:
    fidelity = measured(SPLITS)

    class Odd:
        def of(self, z: object, rows: object) -> Measured:
            return Measured(
                {"odd": {"value": value, "se": 0.1}, "even": {"value": 1.0, "se": value}}
            )

    fidelity.measures = {None: Odd()}  # type: ignore[assignment, dict-item]
    scores = fidelity.score(images(40, seed=3))
    reason = f"it is {value} for these images"
    assert scores["odd"] == {"value": None, "se": None, "reason": reason}
    assert scores["even"] == {"value": 1.0, "se": None} and scores["fid"]["value"] > 0


def test_samples_of_another_shape_or_too_few_are_refused(fidelity: Fidelity) -> None:
    with pytest.raises(ValueError, match="reference images"):
        fidelity.score(np.zeros((40, 8, 8, 1), np.uint8))
    with pytest.raises(ValueError, match="19 samples are too few"):
        fidelity.score(images(19, seed=0))


def test_saturated_pixels_are_those_at_either_end_of_the_levels() -> None:
    """One of four pixels of each image at 0, one at 16."""
    splits = {"train": images(60, seed=1), "test": images(40, seed=2)}
    samples = np.tile(np.array([[0, 3], [16, 15]], np.uint8), (30, 2, 2))[..., None]
    found = measured(splits, grey_levels=17, resamples=0).score(samples)
    assert found["saturated"] == {"value": 0.5, "se": 0.0}


def test_an_inception_score_without_meaning_is_left_out() -> None:
    splits = {"train": images(60, seed=1), "test": images(40, seed=2)}
    found = measured(splits, inception_score=False).score(images(40, seed=3))
    assert set(found) == KEYS - {"is"}
