"""The reference job and scores of a set of any size: resumed, on which device, what is done once, by blocks."""

import os
import signal

import numpy as np
import pytest
import torch
from test_fidelity import Projection, images

from diffbench.data.datasets import Dataset
from diffbench.jobs import data, reference
from diffbench.metrics import distances, reference_statistics
from diffbench.metrics.distances import (
    IS_OPTIONS,
    KID_OPTIONS,
    fitted,
    inception_score,
    kernel_distance,
    kid_subset_size,
)
from diffbench.metrics.fidelity import Fidelity
from diffbench.metrics.torchvision_operators import torch_fidelity
from diffbench.metrics.trained import ClassifierTraining
from diffbench.plan.expansion import reference_of
from diffbench.specs.benchmark import BenchmarkSpec
from diffbench.specs.data import CIFAR10Spec, DigitsSpec, FolderSpec
from diffbench.specs.errors import Stopped
from diffbench.specs.extractors import TrainedExtractorSpec
from diffbench.specs.jobs import DataStageSpec, ReferenceSpec
from diffbench.store import paths, stopping
from diffbench.store.products import write_product
from diffbench.store.state import StateStore

STEPS = 12


def spec_of(dataset=None, **extractor):
    """The reference of a small set that stands for CIFAR-10: three epochs of four steps."""
    given = TrainedExtractorSpec(**({"epochs": 3, "batch": 10, "channels": (4, 6)} | extractor))
    library = f"torch-fidelity {torch_fidelity().__version__}"
    return ReferenceSpec(
        data=dataset or CIFAR10Spec(),
        extractor=given,
        library=library,
        conversion=given.conversion,
    )


def stored(root):
    """The results' folder, with the data set stored in it."""
    train, test = images(40, seed=1), images(24, seed=2)
    labels = [np.arange(len(each)) % 4 for each in (train, test)]
    dataset = Dataset(train, test, *labels, 256, tuple("abcd"), "cifar10")
    spec = DataStageSpec(data=CIFAR10Spec())
    write_product(paths.dataset(root), lambda file: data.save(dataset, file), spec)
    return root


def products(root, spec):
    return [path.read_bytes() for path in paths.products(root, spec)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The products of a reference job that nothing stopped."""
    root = stored(tmp_path_factory.mktemp("whole"))
    reference.run(spec_of(), root, "cpu")
    return products(root, spec_of())


@pytest.mark.parametrize(
    ("step", "number"), [(1, signal.SIGTERM), (7, signal.SIGUSR1), (STEPS, signal.SIGTERM)]
)
def test_a_reference_that_is_asked_to_stop_goes_on_to_the_same_bytes(
    tmp_path, monkeypatch, capsys, whole, step, number
):
    root, spec, advance = stored(tmp_path), spec_of(), ClassifierTraining.advance

    def asked(training):
        loss = advance(training)
        if training.step == step:
            os.kill(os.getpid(), number)
        return loss

    with monkeypatch.context() as patched:
        patched.setattr(ClassifierTraining, "advance", asked)
        # Requests of one second are one request, and the tests before this one took less.
        patched.setattr(stopping._requests, "heeded", float("-inf"))
        with pytest.raises(Stopped) as stopped:
            reference.run(spec, root, "cpu")
    assert "state saved: run " in stopped.value.line
    assert not paths.product(root, spec).exists()
    counted: list[int] = []
    monkeypatch.setattr(
        ClassifierTraining, "advance", lambda each: counted.append(1) or advance(each)
    )
    reference.run(spec, root, "cpu")
    assert len(counted) == STEPS - step
    assert products(root, spec) == whole
    told = capsys.readouterr().err
    assert f"extractor: training: step 0/{STEPS}" in told
    assert f"extractor: resume at step {step}" in told
    events = StateStore(paths.state(root, spec), spec).events()
    assert [each["step"] for each in events if each["event"] == "resume"] == [step]
    saved = [each for each in events if each["event"] == "saved"]
    assert saved and all(each["images_per_second"] > 0 and each["loss"] > 0 for each in saved)


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path):
    with pytest.raises(RuntimeError, match="the loss is nan at step .*: try a lower lr"):
        reference.run(spec_of(lr=1e30), stored(tmp_path), "cpu")


def test_the_reference_of_large_sets_alone_asks_for_a_gpu():
    """A GPU would give the digits other scores than a CPU."""
    assert spec_of(CIFAR10Spec()).uses_gpu
    assert spec_of(FolderSpec(path="anywhere")).uses_gpu
    assert not spec_of(DigitsSpec()).uses_gpu


def test_the_plan_fits_epochs_to_the_images_and_leaves_what_was_written():
    def epochs(**given):
        benchmark = BenchmarkSpec(name="x", variants=["vp"], samples=100, **given)
        return reference_of(benchmark).extractor.epochs

    cifar10 = {"data": CIFAR10Spec()}
    assert epochs(data=DigitsSpec()) == 40 and epochs(**cifar10) == 4
    assert epochs(**cifar10, extractor={"name": "classifier", "epochs": 40}) == 40
    assert epochs(data=FolderSpec(path="anywhere")) == 40


def test_the_radii_of_the_reference_are_its_own(tmp_path, monkeypatch):
    """Scores do not look for the neighbours of the reference's features again, and are the same as if they did."""
    splits = {"train": images(60, seed=1), "test": images(30, seed=2)}
    reference_statistics.measure(Projection(), splits).save(tmp_path / "statistics.npz")
    samples = images(40, seed=3)

    def score(found):
        return Fidelity(Projection(), found, splits["train"], resamples=2).score(samples)

    found = reference_statistics.load(tmp_path / "statistics.npz")
    again = reference_statistics.load(tmp_path / "statistics.npz")
    assert score(found) == score(
        reference_statistics.Reference(**{**vars(again), "near": None, "known": {}})
    )
    monkeypatch.setattr(reference_statistics, "radii", lambda *_: pytest.fail("computed again"))
    again = reference_statistics.load(tmp_path / "statistics.npz")
    assert all(torch.equal(again.radii(k), found.radii(k)) for k in (1, 3, 5))


@pytest.mark.parametrize("drawn", [False, True])
def test_statistics_of_many_rows_are_taken_in_blocks(monkeypatch, drawn):
    z = np.random.RandomState(0).standard_normal((1000, 6)).astype(np.float32) + 5
    rows = np.random.RandomState(1).randint(0, 1000, 900) if drawn else None
    taken = z if rows is None else z[rows]
    whole = fitted(taken)
    sizes: list[int] = []
    once = distances.fid_statistics
    monkeypatch.setattr(distances, "fid_statistics", lambda x: sizes.append(len(x)) or once(x))
    monkeypatch.setattr(distances, "PART", 100)
    monkeypatch.setattr(distances, "NUMBERS", 6 * 64)
    found = fitted(z, rows)
    assert sizes == [64]
    # Sums of a thousand numbers of size 5, in other orders: 1000 roundings of 1e-16, and 25/1 between S and squares.
    assert np.allclose(found.mu, whole.mu, rtol=1e-13)
    assert np.allclose(found.sigma, np.cov(taken.T.astype(np.float64)), rtol=0, atol=1e-11)


@pytest.mark.parametrize("rows", [None, np.random.RandomState(3).randint(0, 333, 333)])
def test_the_inception_score_by_splits_is_torch_fidelitys(rows):
    torch_fidelity()
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

    logits = np.random.RandomState(0).standard_normal((333, 7)).astype(np.float32) * 3
    taken = torch.from_numpy(logits if rows is None else logits[rows])
    wanted = isc_features_to_metric(taken, **IS_OPTIONS)[KEY_METRIC_ISC_MEAN]
    # Means of 33 numbers near 1, in another order: a few roundings of 1e-16.
    assert inception_score(logits, rows) == pytest.approx(wanted, rel=1e-14)


def test_kid_by_subsets_is_torch_fidelitys():
    torch_fidelity()
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    z, other = (
        np.random.RandomState(i).standard_normal((n, 9)).astype(np.float32)
        for i, n in enumerate((70, 90))
    )
    wanted = kid_features_to_metric(
        *(torch.from_numpy(each).double() for each in (z, other)),
        kid_kernel_poly_gamma=0.1,
        kid_subset_size=kid_subset_size(70, 90),
        verbose=False,
        **KID_OPTIONS,
    )[KEY_METRIC_KID_MEAN]
    # Three means near 1, of 35 x 35 kernels, whose difference is 0.03: at most a thousand roundings of 1e-16 each.
    assert kernel_distance(z, other, 0.1) == pytest.approx(wanted, abs=1e-13)
