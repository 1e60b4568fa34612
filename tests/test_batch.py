"""Published references: what is read of them, what they stand for, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import REPOSITORY
from test_fidelity import Projection, images

from diffbench.data.datasets import Dataset
from diffbench.data.grey_levels import Images
from diffbench.metrics import reference_statistics
from diffbench.metrics.batch import read_batch
from diffbench.metrics.distances import FrechetTo, fid_statistics, fitted
from diffbench.metrics.extractor import features_and_logits
from diffbench.metrics.fidelity import Fidelity
from diffbench.metrics.inception import PublishedInception
from diffbench.metrics.neighbours import precision_recall
from diffbench.plan.jobs import Plan
from diffbench.plan.loading import load_plan
from diffbench.reporting.context import score_protocol
from diffbench.specs.errors import PlanError
from diffbench.specs.extractors import InceptionSpec
from diffbench.specs.jobs import ReferenceSpec
from diffbench.store import files
from diffbench.store.products import StoreError

SPLITS = {"train": images(300, seed=1), "test": images(100, seed=2)}
SHAPE, FEATURES = (4, 4, 1), 8
#: Images of another set than the splits', as a paper's training set is.
THEIRS = images(120, seed=7)


def statistics(levels: Images) -> dict[str, np.ndarray]:
    return fid_statistics(features_and_logits(Projection(), levels)[0])


def write(path: Path, **arrays: object) -> Path:
    np.savez(path, **(statistics(THEIRS) | arrays))
    return path


def measured(file: Path) -> Fidelity:
    found = reference_statistics.measure(
        Projection(), SPLITS, published=read_batch(file, FEATURES, SHAPE)
    )
    return Fidelity(Projection(), found, SPLITS["train"], published=files.sha256(file), resamples=0)


def test_adms_batch_stands_for_the_training_images(tmp_path: Path) -> None:
    """FID is to its statistics, which are of more images than it holds; precision and recall are to its images."""
    held = THEIRS[:40]
    scorer = measured(write(tmp_path / "adm.npz", arr_0=held))
    found = scorer.score(SPLITS["test"])
    z = features_and_logits(Projection(), SPLITS["test"])[0]
    neighbours = features_and_logits(Projection(), held)[0]
    assert found["fid"]["value"] == FrechetTo(statistics(THEIRS))(fitted(z))
    both = found["precision"]["value"], found["recall"]["value"]
    assert both == precision_recall(z, neighbours)
    assert scorer.protocol["reference_neighbours"] == 40
    assert scorer.protocol["reference_sha256"] == files.sha256(tmp_path / "adm.npz")
    # FID to test is ours.
    assert found["fid_test"]["value"] == pytest.approx(0, abs=1e-6)


def test_adms_batch_has_the_statistics_of_sfid_too(tmp_path: Path) -> None:
    """They are read where sFID is asked for, and take the place of ours; EDM's file has none."""
    spatial = {"mu_s": np.arange(3.0), "sigma_s": np.eye(3)}
    adm, edm = write(tmp_path / "adm.npz", **spatial), write(tmp_path / "edm.npz")
    assert read_batch(adm, FEATURES, SHAPE).opinions == {}
    assert read_batch(edm, FEATURES, SHAPE, 3).opinions == {}
    with pytest.raises(ValueError, match=r"\(3,\) mu_s, but must have an array of \(4,\)"):
        read_batch(adm, FEATURES, SHAPE, 4)
    found, ours = (
        reference_statistics.measure(
            Projection(),
            SPLITS,
            opinions={"sfid": Projection()},
            published=read_batch(file, FEATURES, SHAPE, 3),
        )
        for file in (adm, edm)
    )
    assert np.array_equal(found.opinions["sfid"]["mu"], np.arange(3.0))
    assert np.array_equal(ours.opinions["sfid"]["mu"], statistics(SPLITS["train"])["mu"])


def test_edms_file_has_no_images(tmp_path: Path) -> None:
    scorer = measured(write(tmp_path / "edm.npz"))
    plain = reference_statistics.measure(Projection(), SPLITS)
    assert np.array_equal(scorer.reference.features, plain.features)
    assert np.array_equal(scorer.reference.statistics["train"]["mu"], statistics(THEIRS)["mu"])
    assert np.array_equal(scorer.reference.statistics["test"]["mu"], plain.statistics["test"]["mu"])


def test_tables_say_what_was_measured_against(tmp_path: Path) -> None:
    file = write(tmp_path / "adm.npz", arr_0=THEIRS[:40])
    text = score_protocol(measured(file).protocol)
    assert f"by a published file (sha256 {files.sha256(file)[:8]}; 40 images for" in text


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(7)}, r"float64 \(7,\) mu, but must have an array of \(8,\)"),
        ({"sigma": np.zeros((8, 8), np.int64)}, r"int64 \(8, 8\) sigma"),
        ({"mu": np.full(8, np.nan)}, "numbers in mu that are not finite"),
        ({"arr_0": THEIRS.astype(np.float32)}, "images arr_0 of float32"),
        (
            {"arr_0": images(5, seed=1)[:, :3]},
            r"uint8 \(3, 4, 1\), but those of the data set are uint8 \(4, 4, 1\)",
        ),
        ({"mu": np.array([{}], dtype=object)}, "not a complete npz file"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, arrays: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_batch(write(tmp_path / "x.npz", **arrays), FEATURES, SHAPE)


def test_a_file_without_statistics_or_torn_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "samples.npz", arr_0=THEIRS)
    with pytest.raises(ValueError, match="no array mu"):
        read_batch(tmp_path / "samples.npz", FEATURES, SHAPE)
    whole = write(tmp_path / "torn.npz").read_bytes()
    for kept in (0, 10, len(whole) - 10):
        (tmp_path / "torn.npz").write_bytes(whole[:kept])
        with pytest.raises(ValueError, match="torn.npz is not a complete npz file"):
            read_batch(tmp_path / "torn.npz", FEATURES, SHAPE)


def wide(path: Path) -> Path:
    """A file of Inception's width."""
    np.savez(path, mu=np.zeros(2048), sigma=np.eye(2048), arr_0=np.zeros((3, 8, 8, 1), np.uint8))
    return path


def bench(reference: str, needs_files: bool = True) -> Plan:
    Path("bench.yaml").write_text(
        "name: bench\ndata: {name: digits}\nsamples: 64\nvariants: [control-test]\n"
        f"extractor: {{name: inception, reference: {reference}}}\n"
    )
    return load_plan(["bench.yaml"], {}, REPOSITORY, needs_files=needs_files)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_plan_knows_the_file_by_its_content(here: Path) -> None:
    wide(here / "ref.npz")
    digest = files.sha256(here / "ref.npz")
    spec = bench("ref.npz").job("reference").spec
    assert digest in spec.canonical() and "ref.npz" not in spec.canonical()
    (here / "ref.npz").rename(here / "moved.npz")
    assert bench("moved.npz").job("reference").spec.digest() == spec.digest()
    # Tables are made without the file where its SHA-256 is given.
    given = bench(f"{{path: gone.npz, sha256: {digest}}}", needs_files=False)
    assert given.job("reference").spec.digest() == spec.digest()
    with pytest.raises(
        PlanError, match=r"extractor\.reference: there is no file 'gone.npz'; expected:"
    ):
        bench("gone.npz")


def test_the_job_finds_it_where_the_environment_says(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide(here / "ref.npz")
    spec = ReferenceSpec.read(bench("ref.npz").job("reference").spec.canonical())
    extractor = PublishedInception(spec.extractor)
    levels = np.zeros((4, 8, 8, 1), np.uint8)
    dataset = Dataset(levels, levels, np.zeros(4), np.zeros(4), 17, ("all",))
    with pytest.raises(StoreError, match="the reference: it is not in the cache; expected: a file"):
        extractor.reference(dataset)
    monkeypatch.setenv("DIFFBENCH_REFERENCE", str(here / "ref.npz"))
    assert len(extractor.reference(dataset).images) == 3
    np.savez(here / "ref.npz", mu=np.ones(2048), sigma=np.eye(2048))
    with pytest.raises(
        StoreError, match=r"has sha256 .*`extractor.reference` can name a local copy"
    ):
        extractor.reference(dataset)
    assert PublishedInception(InceptionSpec()).reference(dataset) is None
