"""Where a data set's files are looked for, and what becomes of results when they change or move."""

import hashlib
import json
import os

import pytest
from archives import noise, png
from commands import REPOSITORY, digests

from diffbench.jobs import data as data_stage
from diffbench.jobs import sample as sample_stage
from diffbench.plan import places
from diffbench.plan.findings import examine
from diffbench.plan.loading import load_plan
from diffbench.plan.remarks import remarks
from diffbench.specs.errors import PlanError
from diffbench.store import contents, paths

TEXT = """\
name: bench
data: {%s, path: %s}
network: {name: unet, channels: 8}
training: {steps: 10, lr: 1e-4}
device: cpu
samples: 100
variants: [edm]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with 40 images in `conf/pictures`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIFFBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    pictures = tmp_path / "conf" / "pictures"
    pictures.mkdir(parents=True)
    for number in range(40):
        (pictures / f"{number:02}.png").write_bytes(png(noise(number, 8, 8, 3)))
    return tmp_path


def planned(path, name="name: folder, test_fraction: 0.5", overrides=None, **kwargs):
    with open("conf/bench.yaml", "w") as file:
        file.write(TEXT % (name, path))
    return load_plan(["conf/bench.yaml"], overrides or {}, REPOSITORY, **kwargs)


def made(plan):
    """Run the plan's data stage as the workflow does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(places.VARIABLE, plan.located.told)
        data_stage.run(plan.job("data").spec, plan.root, "cpu")


def test_every_spelling_of_a_place_makes_the_same_jobs(folder):
    known = digests(planned("pictures"))
    assert planned("pictures").located.notes == ()
    spellings = ["../conf/pictures", "./pictures/", folder / "conf" / "pictures", "~/conf/pictures"]
    for spelling in spellings:
        assert digests(planned(spelling)) == known, spelling
    (folder / "conf" / "pictures").rename(folder / "moved")
    assert digests(planned("../moved")) == known
    assert "path" in planned("../moved").located.places


def test_the_old_meaning_is_taken_with_a_line(folder):
    known = digests(planned("pictures"))
    (folder / "conf" / "pictures").rename(folder / "pictures")
    plan = planned("pictures")
    assert digests(plan) == known
    (note,) = plan.located.notes
    assert note.startswith("data.path: 'pictures' is relative to the working directory")
    assert note.endswith("write '../pictures'")
    assert note in list(remarks(plan))


def test_beside_the_file_comes_first_and_a_line_says_so(folder):
    (folder / "pictures").mkdir()
    plan = planned("pictures")
    assert plan.located.places["path"] == folder / "conf" / "pictures"
    assert "beside the file that says it, and not" in plan.located.notes[0]


def test_a_path_of_the_command_line_is_relative_to_the_working_directory(folder):
    plan = planned("nowhere", overrides={"data.path": "conf/pictures"})
    assert plan.located.places["path"] == folder / "conf" / "pictures"
    assert plan.located.notes == ()


def test_a_path_of_a_base_is_relative_to_the_base(folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "bench.yaml").write_text("base: ../conf/bench.yaml\nseeds: [3]\n")
    known = planned("pictures").located.places
    found = load_plan(["deep/bench.yaml"], {}, REPOSITORY).located.places
    assert found["path"].resolve() == known["path"].resolve()


def test_what_is_nowhere_is_one_line(folder):
    with pytest.raises(PlanError, match=r"bench.yaml:2: data.path: there is no .* 'conf/nowhere'"):
        planned("nowhere")


def test_other_images_make_other_jobs_and_the_data_stage_checks_them(folder):
    plan = planned("pictures")
    picture = folder / "conf" / "pictures" / "00.png"
    before = picture.read_bytes()
    picture.write_bytes((picture.parent / "01.png").read_bytes())
    other = planned("pictures")
    assert not set(digests(plan).values()) & set(digests(other).values())
    with pytest.raises(ValueError, match="has other images than when the run was planned"):
        made(plan)
    picture.write_bytes(before)
    made(plan)
    manifest = json.loads(paths.data_manifest(plan.root).read_text())
    assert manifest["contents"] == plan.located.contents
    assert data_stage.load(plan.root, plan.benchmark.data).name == "folder"


def test_doctor_reads_the_images_again(folder, monkeypatch):
    made(plan := planned("pictures"))
    assert [each for each in examine(plan) if each.status == "stale"] == []
    picture = folder / "conf" / "pictures" / "00.png"
    picture.write_bytes((picture.parent / "01.png").read_bytes())
    # As if a disk gave other bytes for the same names, sizes and times.
    with monkeypatch.context() as patch:
        patch.setattr(contents, "contents", lambda *_: plan.located.contents)
        (found,) = [each for each in examine(planned("pictures")) if each.status == "stale"]
    assert found.path == picture.parent
    assert "its images have the contents" in found.line()


def test_results_without_their_images_keep_their_contents(folder):
    made(plan := planned("pictures"))
    os.rename("conf/pictures", "elsewhere")
    assert digests(planned("pictures", needs_files=False)) == digests(plan)


def test_results_of_an_earlier_version_keep_their_paths(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("diffbench.plan.places.identified", lambda found, root: found)
        made(old := planned("pictures"))
    assert old.job("data").spec.data.path == "pictures"
    again = planned("pictures")
    assert digests(again) == digests(old)
    assert "knows its images by their path" in again.located.notes[0]


LARGE = {
    "name: lsun": "data.mdb",
    "name: parquet": "deep/train-00000-of-00001.parquet",
    "name: imagenet, size: 32, batches: 1": "deep/train_data_batch_1.npz",
}


@pytest.mark.parametrize("name", LARGE)
def test_large_files_are_known_by_their_contents(folder, name):
    place = folder / "conf" / "large"
    file = place / LARGE[name]
    file.parent.mkdir(parents=True)
    file.write_bytes(b"large")
    known = digests(plan := planned("large", name))
    assert plan.job("data").spec.data.path is None
    assert plan.inputs(plan.job("data")) == []
    (place / "readme.md").write_text("is not read")
    os.utime(file, (1, 1))
    assert digests(planned("large", name)) == known
    place.rename(folder / "moved")
    assert digests(planned(folder / "moved", name)) == known
    (folder / "moved").rename(place)
    facts = file.stat()
    file.write_bytes(b"LARGE")
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    other = digests(planned("large", name))
    assert not set(other.values()) & set(known.values())


def test_lsuns_picture_files_are_known_by_their_contents_and_stored(folder):
    plan = planned("pictures", "name: lsun, size: 8, test_fraction: 0.5")
    assert plan.located.contents is not None
    made(plan)
    manifest = json.loads(paths.data_manifest(plan.root).read_text())
    assert manifest["contents"] == plan.located.contents
    assert data_stage.load(plan.root, plan.benchmark.data).name == "lsun"
    picture = folder / "conf" / "pictures" / "00.png"
    picture.write_bytes((picture.parent / "01.png").read_bytes())
    with pytest.raises(ValueError, match="data.path: the files are others than when the run was"):
        made(plan)


CONTROL = """\
variants: [edm, theirs]
methods: {theirs: {control: {name: images, path: %s}}}
"""


def with_control(path, **kwargs):
    text = TEXT % ("name: digits", "x")
    text = text.replace(", path: x", "").replace("variants: [edm]\n", CONTROL % path)
    with open("conf/bench.yaml", "w") as file:
        file.write(text)
    return load_plan(["conf/bench.yaml"], {}, REPOSITORY, **kwargs)


@pytest.fixture
def theirs(folder):
    """Thirty grey images of another method in `theirs`."""
    (folder / "theirs").mkdir()
    for number in range(30):
        (folder / "theirs" / f"{number:02}.png").write_bytes(png(noise(number, 8, 8, 1)))
    return folder / "theirs"


def test_a_controls_images_are_known_by_their_contents(theirs):
    known = digests(plan := with_control("theirs"))
    job = plan.job("sample", "theirs", 0, "draw")
    assert job.spec.control.path is None
    assert plan.inputs(job) == [paths.dataset(plan.root)]
    assert json.loads(plan.located.told)[job.spec.control.contents] == str(theirs)
    os.utime(theirs / "00.png", (1, 1))
    moved = theirs.rename(theirs.parent / "moved")
    for spelling in ("moved", "./moved/", moved):
        assert digests(with_control(spelling)) == known
    facts = (moved / "00.png").stat()
    (moved / "00.png").write_bytes((moved / "01.png").read_bytes())
    os.utime(moved / "00.png", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    changed = {
        key for key, digest in digests(with_control("moved")).items() if digest != known[key]
    }
    assert changed == {("sample", "theirs", "draw"), ("score", "theirs", "")}


def test_doctor_reads_a_controls_images_again(theirs):
    plan = with_control("theirs")
    assert [each for each in examine(plan) if each.status == "stale"] == []
    (theirs / "00.png").write_bytes((theirs / "01.png").read_bytes())
    (found,) = [each for each in examine(plan) if each.status == "stale"]
    assert found.path == theirs
    assert "its images have the contents" in found.line()


def drawn(plan):
    """Run the jobs of data and of the control as the workflow does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(places.VARIABLE, plan.located.told)
        data_stage.run(plan.job("data").spec, plan.root, "cpu")
        sample_stage.run(plan.job("sample", "theirs", 0, "draw").spec, plan.root, "cpu")


def test_a_control_is_drawn_from_where_it_lies_and_results_keep_what_it_held(theirs, monkeypatch):
    drawn(plan := with_control("theirs"))
    theirs.rename(theirs.parent / "gone")
    assert digests(with_control("theirs", needs_files=False)) == digests(plan)
    theirs.parent.joinpath("gone").rename(theirs)
    (theirs / "00.png").unlink()
    with pytest.raises(
        ValueError, match="control.path: the files are others than when the run was"
    ):
        drawn(plan)
    with pytest.raises(ValueError, match="nothing says where the images are"):
        sample_stage.run(plan.job("sample", "theirs", 0, "draw").spec, plan.root, "cpu")


def test_a_control_of_an_earlier_version_keeps_its_path(theirs, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(places, "with_controls", lambda found, variants, benchmark: (found, variants))
        drawn(old := with_control("theirs"))
    again = with_control("theirs")
    assert digests(again) == digests(old)
    assert "theirs: its images are known by their path" in again.located.notes[0]


def with_weights(folder, **extractor):
    text = (TEXT % ("name: digits", "x")).replace(", path: x", "")
    text += f"extractor: {json.dumps({'name': 'inception', **extractor})}\n"
    (folder / "conf" / "bench.yaml").write_text(text)
    return load_plan(["conf/bench.yaml"], {}, REPOSITORY)


def test_weights_are_known_by_their_contents_and_checked_before_a_job_runs(folder):
    file = folder / "w.pth"
    file.write_bytes(b"weights")
    known = hashlib.sha256(b"weights").hexdigest()
    made_of = digests(with_weights(folder, weights=str(file), sha256=known))
    os.utime(file, (1, 1))
    moved = file.rename(folder / "moved.pth")
    assert digests(with_weights(folder, weights="./moved.pth", sha256=known)) == made_of
    facts = moved.stat()
    moved.write_bytes(b"WEIGHTS")
    os.utime(moved, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    found = hashlib.sha256(b"WEIGHTS").hexdigest()
    line = rf"^conf/bench.yaml:8: extractor.weights: 'moved.pth' has the sha256 {found}; expected: a file .*{known}\)$"
    with pytest.raises(PlanError, match=line):
        with_weights(folder, weights="moved.pth", sha256=known)


def test_an_overwritten_reference_makes_what_uses_it_again(folder):
    file = folder / "reference.npz"
    file.write_bytes(b"one")
    known = digests(with_weights(folder, reference="reference.npz"))
    facts = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    other = digests(with_weights(folder, reference="reference.npz"))
    changed = {stage for (stage, *_), digest in other.items() if digest not in known.values()}
    assert changed == {"reference", "score"}
