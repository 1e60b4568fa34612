"""Results gathered from several folders: the same bytes as of one run, or a conflict that is named."""

import json
import os
import shutil
from pathlib import Path

import pytest
from commands import CONFIG, bench, planned, run, said
from layouts import filled

from diffbench.plan.merging import MergeError, merge, settle
from diffbench.store import files, paths
from diffbench.store.manifest import manifest


@pytest.fixture
def whole(tmp_path, monkeypatch):
    """A plan whose results, made up, lie in results/ of the working directory."""
    return filled(tmp_path, monkeypatch)


def split(plan, folders, names):
    """Move the runs of these variants of the plan's results into the second folder; the first has the others."""
    first, second = folders
    shutil.copytree(plan.root, first)
    shutil.copytree(plan.root, second)
    for folder in (first / "runs").iterdir():
        shutil.rmtree((first if folder.name in names else second) / "runs" / folder.name)
    shutil.rmtree(plan.root)


def test_a_split_benchmark_is_the_undivided_one(whole):
    before = manifest(whole.root)
    folders = Path("a"), Path("b")
    split(whole, folders, ["edm", "vp"])
    found = merge(whole, folders)
    assert manifest(whole.root) == before
    assert (found.copied, found.present, found.missing, found.left_out) == (
        len(whole.jobs),
        0,
        0,
        [],
    )
    again = merge(whole, folders)
    assert (again.copied, again.present) == (0, len(whole.jobs))
    assert manifest(whole.root) == before


def test_what_is_in_no_folder_is_counted(whole):
    folders = Path("a"), Path("b")
    split(whole, folders, ["edm"])
    lacking = [job for job in whole.jobs if job.variant == "edm"]
    assert merge(whole, folders[:1]).missing == len(lacking)


def test_other_bytes_of_one_product_are_a_conflict_and_nothing_is_written(whole):
    folders = Path("a"), Path("b")
    split(whole, folders, [])
    shutil.copytree(folders[0], folders[1], dirs_exist_ok=True)
    job = whole.job("train", "edm", 1)
    path = folders[1] / job.product.relative_to(job.root)
    path.write_bytes(b"other")
    sidecar = json.loads(paths.sidecar(path).read_bytes())
    sidecar["sha256"][path.name] = files.sha256(path)
    files.write_json(paths.sidecar(path), sidecar)
    with pytest.raises(MergeError) as error:
        merge(whole, folders)
    assert (
        "a/runs/edm/seed1/model.safetensors and b/runs/edm/seed1/model.safetensors differ"
        in str(error.value)
    )
    assert not whole.root.exists()


def test_stale_and_damaged_products_are_left_out_and_named(whole):
    folders = (Path("a"),)
    shutil.copytree(whole.root, folders[0])
    shutil.rmtree(whole.root)
    job = whole.job("train", "edm", 0)
    path = folders[0] / job.product.relative_to(job.root)
    path.write_bytes(b"damaged")
    found = merge(whole, folders)
    assert found.left_out == ["corrupt a/runs/edm/seed0/model.safetensors"] and found.missing == 1
    assert not job.product.exists()


def test_a_folder_that_does_not_exist_is_named(whole):
    with pytest.raises(MergeError, match="nowhere: there is no such results folder"):
        merge(whole, [Path("nowhere")])


def test_the_time_of_what_was_read_from_outside_stays(whole, monkeypatch):
    data, model = whole.job("data"), whole.job("train", "edm", 0)
    monkeypatch.setattr(type(data.spec), "sources", ("images",))
    for job in (data, model):
        os.utime(job.product, (1, 1))
    settle(whole, [data, model])
    assert data.product.stat().st_mtime == 1
    times = {path.stat().st_mtime for path in paths.made(whole.root, model.spec) if path.is_file()}
    assert len(times) == 1 and times != {1}


def aged(root):
    """Give each file a later time than what is made from it: a copy in the worst order."""
    found = sorted(root.rglob("*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for age, path in enumerate(path for path in found if path.is_file()):
        os.utime(path, (2e9 + age, 2e9 + age))


@pytest.mark.slow
def test_copied_results_count_once_they_are_merged(made):
    """As after `cp -r` to another machine: Snakemake's records are gone, and times are in any order."""
    shutil.rmtree(made / ".snakemake")
    aged(made / "results")
    assert planned(bench("-n", cwd=made)) > {"train edm", "sample edm heun-3"}
    before = manifest(made / "results" / "tiny")
    done = run("merge", "--config", CONFIG, cwd=made)
    assert done.returncode == 0, said(done)
    assert planned(bench("-n", cwd=made)) <= {"tables"}
    assert manifest(made / "results" / "tiny") == before
