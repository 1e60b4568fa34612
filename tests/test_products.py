import json
import os

import pytest

from diffbench.specs.data import DigitsSpec
from diffbench.specs.extractors import TrainedExtractorSpec
from diffbench.specs.jobs import ReferenceSpec
from diffbench.specs.processes import VPSpec
from diffbench.store import files, paths, products, status
from diffbench.store.products import StoreError
from diffbench.store.run_record import RunRecord

SPEC = VPSpec(beta_max=20)


@pytest.fixture(params=["samples.npz", "scores.json"])
def product(tmp_path, request):
    path = tmp_path / "run" / request.param
    products.write_product(path, b'{"fid": 1.25, "is": 9.5}', SPEC)
    return path


def test_a_product_is_read_back(product):
    assert products.read_product(product, SPEC) == product
    assert products.read_bytes(product) == b'{"fid": 1.25, "is": 9.5}'
    assert products.status_of(product, SPEC) == "ok"
    assert products.read_sidecar(product)["spec"] == {
        "name": "vp",
        "beta_min": 0.1,
        "beta_max": 20,
    }


def test_products_and_sidecars_depend_on_spec_and_content_alone(tmp_path):
    written = []
    for folder in ("here", "there"):
        path = tmp_path / folder / "scores.json"
        products.write_json_product(path, {"b": 1, "a": 2}, SPEC)
        written.append((path.read_bytes(), paths.sidecar(path).read_bytes()))
    assert written[0] == written[1]


def test_one_flipped_bit_is_found(product):
    content = bytearray(product.read_bytes())
    content[5] ^= 1
    expected = files.sha256(product)
    product.write_bytes(content)
    with pytest.raises(StoreError) as error:
        products.read_product(product)
    for part in (str(product), expected, files.sha256(product), "remove it"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert products.status_of(product, SPEC) == "corrupt"


@pytest.mark.parametrize("length", [0, 10, 23])
def test_truncation_is_found(product, length):
    os.truncate(product, length)
    for read in (products.read_product, products.read_bytes):
        with pytest.raises(StoreError, match="sha256"):
            read(product)
    assert products.status_of(product, SPEC) == "corrupt"


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"spec": {}}', b'{"sha256": 1}'])
def test_a_product_without_a_whole_sidecar_is_not_read(product, content):
    sidecar = paths.sidecar(product)
    sidecar.unlink()
    if content is not None:
        sidecar.write_bytes(content)
    with pytest.raises(StoreError, match="sidecar"):
        products.read_product(product)
    assert products.status_of(product, SPEC) == "corrupt"


def test_another_spec_is_stale_and_the_key_is_named(product):
    wanted = VPSpec(beta_max=10)
    assert products.status_of(product, wanted) == "stale"
    with pytest.raises(StoreError, match=r"stale.*beta_max = 20.*10\.0 is expected"):
        products.read_product(product, wanted)


def test_missing(product):
    products.remove_product(product)
    assert products.status_of(product, SPEC) == "missing"
    assert not any(product.parent.iterdir())
    with pytest.raises(StoreError, match="does not exist"):
        products.read_product(product)


def test_a_failing_writer_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "model.safetensors"
    products.write_product(path, b"old", SPEC)

    def fill(file):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        products.write_product(path, fill, SPEC)
    assert products.read_bytes(path, SPEC) == b"old"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model.safetensors", "spec.json"]


def test_a_writer_killed_between_product_and_sidecar_is_noticed(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    products.write_product(path, b"old", SPEC)
    monkeypatch.setattr(files, "write_json", lambda *_: (_ for _ in ()).throw(SystemExit(9)))
    with pytest.raises(SystemExit):
        products.write_product(path, b"new", SPEC)
    assert products.status_of(path, SPEC) == "corrupt"


def test_the_temporary_name_keeps_the_suffix(tmp_path):
    with files.temporary(tmp_path / "samples.npz") as unfinished:
        assert unfinished.suffix == ".npz"
        assert unfinished.parent == tmp_path


@pytest.mark.parametrize(
    ("found", "wanted", "named"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, "a.c = 2, and 3"),
        ({"a": 1}, {}, "a = 1, and None"),
        ({"a": [1]}, {"a": [2]}, r"a = \[1\], and \[2\]"),
    ],
)
def test_difference_names_the_key(found, wanted, named):
    with pytest.raises(StoreError, match=named):
        raise StoreError(products.difference(found, wanted))


def test_specs_that_agree_have_no_difference():
    assert products.difference({"a": {"b": [1, 2]}}, {"a": {"b": [1, 2]}}) is None


def test_a_reference_with_an_extractor_has_two_products_with_sidecars_of_their_own(tmp_path):
    spec = ReferenceSpec(
        data=DigitsSpec(), extractor=TrainedExtractorSpec(), library="some", conversion="none"
    )
    made = paths.products(tmp_path, spec)
    assert [path.relative_to(tmp_path).as_posix() for path in made] == [
        "data/reference/statistics.npz",
        "data/extractor/model.safetensors",
    ]
    assert len({paths.sidecar(path) for path in made}) == 2


def test_a_run_record_measures_and_names_versions(tmp_path):
    path = tmp_path / "samples.npz"
    with RunRecord(path, "cpu", earlier=100.0) as record:
        sum(range(200_000))
        record.note(nfe=35)
    content = json.loads((tmp_path / "samples.run.json").read_text())
    assert 100 < content["seconds"] < 130
    assert content["cpu_seconds"] > 0
    assert content["peak_memory_mib"] > 5
    assert content["notes"] == {"nfe": 35}
    assert content["start"] <= content["end"]
    assert {"python", "torch", "numpy", "torch-fidelity", "diffbench"} <= set(content["versions"])


def test_a_run_that_fails_leaves_no_record(tmp_path):
    with pytest.raises(RuntimeError), RunRecord(tmp_path / "samples.npz"):
        raise RuntimeError("stop")
    assert not any(tmp_path.iterdir())


def test_failures_are_recorded_on_one_line_and_forgotten(tmp_path):
    folder = tmp_path / ".state" / "abc"
    assert status.read_status(folder) is None
    status.record_failure(folder, "sample", "not a number\n  at step 3")
    assert status.read_status(folder)["reason"] == "not a number at step 3"
    assert status.read_status(folder)["stage"] == "sample"
    with status.started(folder, "sample"):
        assert status.read_status(folder) is None
    assert not folder.exists()


def test_a_number_that_is_not_finite_is_named(tmp_path):
    path = tmp_path / "analysis.json"
    value = {"items": {"mine": [{"mean": 1.0}, {"mean": float("nan")}]}}
    with pytest.raises(ValueError, match=r"^items\.mine\.1\.mean is nan: results must be finite"):
        products.write_json_product(path, value, SPEC)
    assert not path.exists()


class SlowFileSystem:
    """A network file system that shows each of some files at the second look after the one that missed it."""

    def __init__(self, monkeypatch, *paths):
        self.hidden = {path: path.with_name(f"hidden.{path.name}") for path in paths}
        for path, hidden in self.hidden.items():
            path.rename(hidden)
        self.now, self.looks = 0.0, 0
        monkeypatch.setenv(files.LATENCY, "60")
        monkeypatch.setattr(files.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(files.time, "sleep", self.sleep)

    def sleep(self, seconds):
        self.now, self.looks = self.now + seconds, self.looks + 1
        if self.looks % 2 == 0 and self.hidden:
            path = next(iter(self.hidden))
            self.hidden.pop(path).rename(path)


def test_a_job_waits_for_files_that_another_machine_has_just_written(product, monkeypatch):
    slow = SlowFileSystem(monkeypatch, product, paths.sidecar(product))
    assert products.read_product(product, SPEC) == product
    assert slow.looks == 4


def test_a_job_waits_no_longer_than_it_is_told(product, monkeypatch):
    paths.sidecar(product).unlink()
    slow = SlowFileSystem(monkeypatch)
    with pytest.raises(StoreError, match="has no sidecar"):
        products.read_product(product)
    assert 60 <= slow.now < 60 + 2 * files.PAUSE
    monkeypatch.delenv(files.LATENCY)
    with pytest.raises(StoreError, match="has no sidecar"):
        products.read_product(product)
    assert slow.now < 60 + 2 * files.PAUSE
