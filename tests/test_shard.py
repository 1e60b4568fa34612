"""Samples drawn in shards are those drawn at once, bit for bit, however often a shard was stopped."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import bench, plan_of, planned, said, write_config
from toys import chosen_process, exact_denoiser
from toys import made as process_made

from diffbench import cli
from diffbench.diffusion.core.streams import stream
from diffbench.diffusion.solvers.loop import sample as sampled
from diffbench.jobs import classifier, data, sample, shard, train
from diffbench.plan.findings import examine, unneeded
from diffbench.plan.matrix import example
from diffbench.specs.errors import PlanError
from diffbench.specs.jobs import ShardSpec
from diffbench.specs.processes import ProcessSpec
from diffbench.specs.registry import build
from diffbench.specs.solvers import SolverSpec
from diffbench.store import chunks, paths, status
from diffbench.store.chunks import Chunk, ChunkStore
from diffbench.store.products import StoreError, write_product

#: Five chunks, the last of six images.
SETTINGS = {"samples": 70, "chunk": 16, "training": {"steps": 2}}
#: With labels and both guidances; with numbers of evaluations that depend on the images; with walls; with a corrector.
JOBS = [
    ("iddpm-hybrid", "ancestral-5-w1-c2"),
    ("ve", "ode-adaptive"),
    ("reflected", "reflect-3"),
    ("ve", "pc-3"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A results folder with data and models, but no extractor, and the job's specs."""
    folder = tmp_path_factory.mktemp("trained")
    write_config(folder, SETTINGS)
    plan = plan_of(folder)
    root = folder / plan.root
    spec = plan.job("data").spec
    write_product(paths.dataset(root), lambda file: data.save(build(spec.data).load(), file), spec)
    for variant in dict.fromkeys(variant for variant, _ in JOBS):
        train.run(plan.job("train", variant).spec, root, "cpu")
    for each in plan.of("classifier"):
        classifier.run(each.spec, root, "cpu")
    return root, {job: plan.job("sample", job[0], 0, job[1]).spec for job in JOBS}


@pytest.fixture
def root(trained, tmp_path):
    return Path(shutil.copytree(trained[0], tmp_path / "results" / "tiny"))


def made(root, spec, shards):
    """The samples that so many shards make: the product's bytes and its sidecar's."""
    parts = [ShardSpec(sample=spec, shard=i + 1, shards=shards) for i in range(shards)]
    if shards > 1:
        for part in reversed(parts):
            shard.run(part, root, "cpu")
    sample.run(spec, root, "cpu", shards=shards)
    product = paths.product(root, spec)
    return product.read_bytes(), paths.sidecar(product).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS, ids=lambda job: "/".join(job))
def test_samples_do_not_depend_on_the_number_of_shards(trained, root, job):
    spec = trained[1][job]
    whole = made(root, spec, 1)
    with np.load(paths.product(root, spec)) as archive:
        assert len(archive["levels"]) == 70
        assert ("labels" in archive, "moved" in archive) == (
            job[0] == "iddpm-hybrid",
            job[0] == "reflected",
        )
        assert archive["nfe"] > 0
    for shards in (2, 3, 5):
        assert made(root, spec, shards) == whole
    record = json.loads(paths.run_record(paths.product(root, spec)).read_text())
    parts = root.glob(f"runs/{job[0]}/seed0/samples/{job[1]}/*of5/*.run.json")
    seconds = [json.loads(part.read_text())["seconds"] for part in parts]
    assert len(seconds) == 5
    assert record["seconds"] >= round(sum(seconds), 3)
    assert record["notes"] == {"shards": 5}


def test_every_chunk_is_in_one_shard():
    for samples, chunk, shards in [(70, 16, 3), (64, 16, 4), (7, 1, 2), (5, 500, 1)]:
        count = -(-samples // chunk)
        parts = [chunks.share(samples, chunk, k, shards) for k in range(1, shards + 1)]
        assert [index for part in parts for index in part] == list(range(count))
        assert {len(part) for part in parts} <= {count // shards, -(-count // shards)}


@pytest.mark.parametrize("name", sorted(SolverSpec.known))
def test_a_chunk_does_not_depend_on_those_before_it(name):
    """What shards rest on: a solver that has drawn one chunk draws the next as if it were the first."""
    solver = example(SolverSpec.known[name], 4)
    process = next(
        p for p in sorted(ProcessSpec.known) if solver.refusal(chosen_process(p)) is None
    )
    denoiser = exact_denoiser(process_made(chosen_process(process)))
    used, fresh = build(solver, denoiser), build(solver, denoiser)
    shape, draw = (3, 1, 2, 2), {"dtype": torch.float64}
    sampled(used, shape, stream("first"), **draw)
    second = sampled(used, shape, stream("second"), **draw)
    assert torch.equal(second, sampled(fresh, shape, stream("second"), **draw))


@pytest.mark.parametrize("shards", [1, 2])
def test_what_was_stopped_goes_on_from_its_finished_chunks(trained, root, monkeypatch, shards):
    spec = trained[1]["reflected", "reflect-3"]
    whole = made(root, spec, 1)
    monkeypatch.setattr(sample, "KEEP_AFTER", -1.0)
    drawn, state = [], paths.state(root, spec)
    stops = {2, 4}

    def interrupted(solver, shape, generator, *others, **more):
        drawn.append(generator.initial_seed())
        if len(drawn) in stops:
            raise KeyboardInterrupt
        return sampled(solver, shape, generator, *others, **more)

    monkeypatch.setattr(sample, "sample", interrupted)
    attempts = 0
    while attempts < 3:
        try:
            assert made(root, spec, shards) == whole
            break
        except KeyboardInterrupt:
            attempts += 1
            assert any(state.iterdir())
    assert attempts == 2
    # Five chunks, two of which were begun twice.
    assert len(drawn) == 5 + 2
    assert len(set(drawn)) == 5
    assert not state.exists()


def test_quick_chunks_are_not_written_twice(trained, root, monkeypatch):
    monkeypatch.setattr(ChunkStore, "save", None)
    made(root, trained[1]["reflected", "reflect-3"], 1)


def test_a_torn_chunk_is_drawn_again(tmp_path):
    store = ChunkStore(tmp_path / "state")
    assert store.load([0]) == {}
    chunk = Chunk(np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3), 7, 0.25, 1.5)
    store.save(3, chunk)
    found = store.load([2, 3])
    assert list(found) == [3]
    assert np.array_equal(found[3].images, chunk.images)
    assert (found[3].calls, found[3].moved, found[3].seconds) == (7, 0.25, 1.5)
    (path,) = store.folder.iterdir()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="torn"):
        assert store.load([3]) == {}
    store.remove([3])
    assert not store.folder.exists()


def test_a_missing_or_altered_shard_is_one_line(trained, root, capsys):
    spec = trained[1]["reflected", "reflect-3"]
    shard.run(ShardSpec(sample=spec, shard=1, shards=2), root, "cpu")
    command = ["sample", "--root", str(root), "--spec", spec.canonical(), "--shards", "2"]
    capsys.readouterr()
    assert cli.main([*command, "--device", "cpu"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "reflect-3/2of2/chunks.npz does not exist: run the job that makes it" in line
    assert not paths.product(root, spec).exists()
    part = ShardSpec(sample=spec, shard=2, shards=2)
    shard.run(part, root, "cpu")
    path = paths.product(root, part)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match=re.escape("2of2/chunks.npz has sha256")):
        sample.run(spec, root, "cpu", shards=2)
    # A shard of as many parts, but of another solver's samples.
    other = spec.model_copy(update={"samples": 71})
    write_product(path, b"other", ShardSpec(sample=other, shard=2, shards=2))
    with pytest.raises(StoreError, match="stale, made with sample.samples = 71"):
        sample.run(spec, root, "cpu", shards=2)


def test_a_failed_shard_is_the_reason_of_its_samples(tmp_path, trained):
    spec = trained[1]["ve", "pc-3"]
    part = ShardSpec(sample=spec, shard=2, shards=3)
    status.record_failure(paths.state(tmp_path, part), "shard", "it broke")
    assert status.read_status(paths.state(tmp_path, spec))["reason"] == "it broke"
    with status.started(paths.state(tmp_path, spec), "sample"):
        pass
    assert not paths.state(tmp_path, spec).exists()


# The plan and the workflow.


def test_shards_are_jobs_beside_the_plan(tmp_path):
    write_config(tmp_path, SETTINGS)
    one = plan_of(tmp_path)
    write_config(tmp_path, SETTINGS | {"shards": 3})
    plan = plan_of(tmp_path)
    assert one.of("shard") == []
    assert (one.jobs, one.digest()) == (plan.jobs, plan.digest())
    job = plan.job("sample", "iddpm-hybrid", 0, "ancestral-5-w1-c2")
    parts = plan.shards(job)
    assert [part.item for part in parts] == [f"{job.item}/{k}of3" for k in (1, 2, 3)]
    folder = plan.root / f"runs/{job.variant}/seed0/samples/{job.item}"
    files = [folder / f"{k}of3" / "chunks.npz" for k in (1, 2, 3)]
    assert [part.product for part in parts] == files
    read = [read(path) for path in files for read in (Path, paths.sidecar, paths.run_record)]
    assert plan.inputs(job) == [*one.inputs(job), *read]
    for part in parts:
        assert plan.inputs(part) == one.inputs(job)
        assert plan.job("shard", part.variant, 0, part.item) == part
        assert paths.state(plan.root, part.spec).parent == paths.state(plan.root, job.spec)
    # A control has one draw of all its images.
    control = plan.job("sample", "control-test", 0, "draw")
    assert plan.shards(control) == []
    assert plan.inputs(control) == one.inputs(control)
    assert len(plan.of("shard")) == 3 * (len(plan.of("sample")) - 1)
    # The doctor misses no shard that was gathered.
    assert not [finding for finding in examine(plan) if "of3" in str(finding.path)]


def test_the_state_of_a_shard_is_needed(tmp_path, monkeypatch):
    write_config(tmp_path, SETTINGS | {"shards": 3})
    monkeypatch.chdir(tmp_path)
    plan = plan_of(tmp_path)
    status.record_failure(paths.state(plan.root, plan.of("shard")[0].spec), "shard", "stopped")
    assert unneeded(plan) == []


def test_more_shards_than_chunks_are_refused(tmp_path):
    write_config(tmp_path, SETTINGS | {"shards": 6})
    with pytest.raises(PlanError) as error:
        plan_of(tmp_path)
    assert re.fullmatch(
        r"\S+bench.yaml:\d+: shards: 6, but 70 samples in chunks of 16 are 5 chunks, and each shard needs one; "
        r"lower shards or chunk",
        str(error.value),
    )


@pytest.mark.slow
def test_a_dry_run_plans_shards(tmp_path):
    write_config(tmp_path, {"shards": 2, "only": ["edm", "control-test"]})
    jobs = planned(bench("-n", cwd=tmp_path))
    assert {job for job in jobs if job.startswith(("shard", "sample"))} == {
        "shard edm heun-3 1of2",
        "shard edm heun-3 2of2",
        "sample edm heun-3",
        "sample control-test draw",
    }
    write_config(tmp_path, {"only": ["edm", "control-test"]})
    assert planned(bench("-n", cwd=tmp_path)) == {job for job in jobs if "shard" not in job}


@pytest.mark.slow
def test_the_workflow_gathers_shards_and_leaves_none(made, first):
    """Of the tiny benchmark's results: samples are deleted and drawn anew in shards, to the same bytes."""
    folder = made
    plan = plan_of(folder)
    job = plan.job("sample", "ve", 0, "ode-adaptive")
    before = (folder / job.product).read_bytes()
    write_config(folder, {"shards": 2})
    shutil.rmtree((folder / job.product).parent)
    wanted = str(job.product)
    done = bench("-c2", wanted, cwd=folder)
    assert done.returncode == 0, said(done)
    assert said(done).count("jobs done: shard/ve/seed0/") == 2
    assert (folder / job.product).read_bytes() == before
    assert sorted(path.name for path in (folder / job.product).parent.iterdir()) == [
        "grid.png",
        "samples.npz",
        "samples.run.json",
        "spec.json",
    ]
    # To another number of shards, samples are of other files; who says so keeps them.
    assert "Nothing to be done" in said(bench("-n", wanted, cwd=folder))
    write_config(folder, {"shards": 1})
    assert "rule sample:" in said(bench("-n", wanted, cwd=folder))
    triggers = ("--rerun-triggers", "code", "mtime", "params")
    assert "Nothing to be done" in said(bench("-n", wanted, *triggers, cwd=folder))
    write_config(folder, {"shards": 2})
    assert "Nothing to be done" in said(bench("-n", wanted, *triggers, cwd=folder))
