"""Where a data set's files are looked for, and what becomes of results when they change or move."""

import json
import os

import pytest
from archives import noise, png
from commands import REPOSITORY, digests

from diffbench.jobs import data as data_stage
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
        patch.setenv(data_stage.PLACES, plan.located.told)
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
        patch.setattr(contents, "contents", lambda _: plan.located.contents)
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


@pytest.mark.parametrize("name", ["lsun", "parquet"])
def test_other_sets_keep_what_was_written_and_are_read_where_it_is(folder, name):
    plan = planned("pictures", f"name: {name}")
    assert plan.job("data").spec.data.path == "pictures"
    assert plan.located.contents is None
    assert [str(path) for path in plan.inputs(plan.job("data"))] == ["conf/pictures"]
    assert plan.located.places["path"] == folder / "conf" / "pictures"
