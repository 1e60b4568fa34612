"""Tables from fabricated result folders: every status, every format."""

import csv
import io
import subprocess
import sys
from dataclasses import replace

import fast_yaml
import pytest
from commands import REPOSITORY, TINY

from diffbench.plan.jobs import Refusal
from diffbench.plan.loading import load_plan
from diffbench.reporting import exports, layout
from diffbench.reporting.cells import COLUMNS, Cell
from diffbench.reporting.context import budget_lines
from diffbench.reporting.formats import Grid, Table, escaped, to_latex, to_markdown
from diffbench.reporting.numbers import plain, with_error
from diffbench.reporting.paper import disagreements
from diffbench.reporting.published import PublishedValue, PublishedValues
from diffbench.reporting.tables import make, table_params, tables
from diffbench.specs.errors import PlanError
from diffbench.store import files, paths, status
from diffbench.store.products import write_json_product, write_product
from diffbench.store.seals import sealed

METRICS = ["fid", "fid_test", "is", "kid", "precision", "recall", "nearest_ratio", "confidence"]
PROTOCOL = {
    "extractor": "classifier",
    "extractor_sha256": "0123456789abcdef",
    "reference_split": "train",
    "reference_counts": {"train": 1500, "test": 297},
    "torch_fidelity": "0.4.0",
}
#: A number that was published with a solver of ten evaluations, of a network in float32.
PRINTED = PublishedValue("2", "source", "10", trained_in="fp32", sampled_in="fp32")

#: A part of the tiny benchmark, without claims and figures.
PART = {"variants": ["ddpm-cosine", "edm", "control-test"], "claims": [], "figures": []}


def plan_of(**overrides):
    return load_plan([TINY], PART | overrides, REPOSITORY)


@pytest.fixture
def plan():
    return plan_of(tables=["overview", "ddpm-table1"])


def scores(value=2.0, nfe=10, samples=64):
    metrics = {name: {"value": value, "se": 0.1 * value} for name in METRICS}
    metrics |= {"kid": {"value": 0.002, "se": 0.0003}, "recall": {"value": 0.5, "se": None}}
    return {
        "metrics": metrics,
        "nfe": nfe,
        "samples": samples,
    }


def score_content(spec, value=2.0):
    return {"solvers": {name: scores(value) for name in spec.samples}, "protocol": PROTOCOL}


def bits_content(spec, value=2.5):
    return {
        "kind": spec.likelihood.column,
        "bits_per_dim": {"value": value, "se": 0.01},
        "images": 297,
        "nfe": 20,
        "protocol": {"split": "test", "levels": 17},
    }


def record(path, seconds=1.5, device="cpu"):
    files.write_json(paths.run_record(path), {"seconds": seconds, "device": device})


def fabricate(plan, root, value=lambda run: 2.0 + run.seed):
    """Write every product that the plan wants."""
    for run in plan.jobs:
        for path in paths.products(root, run.spec):
            if run.stage == "score":
                write_json_product(path, score_content(run.spec, value(run)), run.spec)
            elif run.stage == "likelihood":
                write_json_product(path, bits_content(run.spec), run.spec)
            else:
                write_product(path, b"whole", run.spec)
            record(path)


def remove(plan, root, *stages, variant="ddpm-cosine", item=None):
    for run in plan.jobs:
        if run.stage in stages and run.variant == variant and item in (None, run.item):
            paths.product(root, run.spec).unlink()


def product(plan, root, stage, item="", variant="ddpm-cosine"):
    return paths.product(root, plan.job(stage, variant, 0, item).spec)


def fail(plan, root, stage, reason, variant="ddpm-cosine", item=""):
    spec = plan.job(stage, variant, 0, item).spec
    status.record_failure(paths.state(root, spec), stage, reason)


def rows(plan, root, table="overview"):
    make(plan, root)
    text = paths.table(root, table, "csv").read_text()
    return list(csv.DictReader(io.StringIO(text)))


def row(plan, root, solver="ancestral-10", metric="fid", variant="ddpm-cosine"):
    found = [
        each
        for each in rows(plan, root)
        if (each["variant"], each["solver"], each["metric"]) == (variant, solver, metric)
    ]
    assert len(found) == 1
    return found[0]


def markdown(plan, root, table="overview"):
    make(plan, root)
    return paths.table(root, table, "md").read_text()


def test_a_whole_result_folder(plan, tmp_path):
    fabricate(plan, tmp_path)
    found = row(plan, tmp_path)
    assert (found["status"], found["ours_mean"], found["ours_se"]) == ("ok", "2", "0.2")
    assert (found["ours_sd"], found["seeds"], found["samples"]) == ("-", "1", "64")
    assert (found["seconds"], found["gpu_hours"]) == ("3", "0")
    assert found["nfe"] == "10"
    assert {each["status"] for each in rows(plan, tmp_path)} == {"ok"}
    text = markdown(plan, tmp_path)
    # FID with its error; 1000 KID without.
    assert "2.0 (0.2)" in text and " 2.00 |" in text
    assert "classifier sha256 01234567" in text and "torch-fidelity 0.4.0" in text
    assert max(len(line) for line in text.splitlines() if line.startswith("|")) <= 150


def test_files_and_columns(plan, tmp_path):
    fabricate(plan, tmp_path)
    written = make(plan, tmp_path)
    assert written == [
        tmp_path / "tables" / f"{name}.{suffix}"
        for name in ("overview", "ddpm-table1")
        for suffix in ("csv", "md", "tex")
    ] + [tmp_path / each for each in ("tables/records.csv", "tables/records.json", "index.html")]
    header = written[0].read_text().splitlines()[0]
    assert header == (
        "table,row,paper,variant,solver,nfe,metric,unit,ours_mean,ours_sd,ours_se,seeds,samples,"
        "protocol,published,published_source,difference,seconds,gpu_hours,status,note,floor,at_floor"
    )
    for table in ("overview", "ddpm-table1"):
        assert all(value for each in rows(plan, tmp_path, table) for value in each.values())
    assert not list(tmp_path.rglob(f"{files.TEMPORARY}*"))


def test_nothing_on_disk_is_dashes(plan, tmp_path):
    found = rows(plan, tmp_path)
    assert {each["status"] for each in found} == {"missing"}
    assert {each["ours_mean"] for each in found} == {"-"}
    assert "failed" not in markdown(plan, tmp_path)


def test_controls_come_last(plan, tmp_path):
    variants = [each["variant"] for each in rows(plan, tmp_path) if each["metric"] == "fid"]
    assert variants == ["ddpm-cosine", "ddpm-cosine", "edm", "control-test"]


def test_two_seeds_have_mean_and_deviation(tmp_path):
    plan = plan_of(seeds=[0, 1])
    fabricate(plan, tmp_path)
    found = row(plan, tmp_path)
    assert (found["ours_mean"], found["ours_sd"], found["ours_se"]) == ("2.5", "0.707107", "0.5")
    assert found["seeds"] == "2"
    assert "2.5 ± 0.7" in markdown(plan, tmp_path)


def test_a_seed_that_failed_is_said(tmp_path):
    plan = plan_of(seeds=[0, 1])
    fabricate(plan, tmp_path)
    remove(plan_of(seeds=[0]), tmp_path, "train", "sample", "score")
    fail(plan, tmp_path, "train", "diverged")
    found = row(plan, tmp_path)
    assert (found["status"], found["ours_mean"], found["seeds"]) == ("partial", "3", "1")
    assert found["note"] == "1 of 2 seeds: seed 0 failed (train: diverged)"


def test_a_failed_job_gives_its_reason_and_costs_its_siblings_nothing(plan, tmp_path):
    fabricate(plan, tmp_path)
    remove(plan, tmp_path, "sample", item="ddim-5")
    remove(plan, tmp_path, "score")
    spec = plan.job("score", "ddpm-cosine", 0).spec
    content = score_content(spec, 4.0) | {"spec": spec.model_dump(mode="json")}
    del content["solvers"]["ddim-5"]
    files.write_json(paths.partial_scores(tmp_path, "ddpm-cosine", 0), sealed(content))
    fail(plan, tmp_path, "sample", "not a\nnumber", item="ddim-5")
    failed = row(plan, tmp_path, "ddim-5")
    assert (failed["status"], failed["note"]) == ("failed", "sample: not a number")
    assert failed["ours_mean"] == "-"
    assert row(plan, tmp_path)["ours_mean"] == "4"
    assert row(plan, tmp_path, "heun-3", variant="edm")["status"] == "ok"
    text = markdown(plan, tmp_path)
    assert "failed [1]" in text and "[1] sample: not a number" in text


def test_partial_scores_of_another_spec_do_not_count(plan, tmp_path):
    fabricate(plan, tmp_path)
    remove(plan, tmp_path, "score")
    spec = plan_of(training={"lr": 0.5}).job("score", "ddpm-cosine", 0).spec
    content = score_content(spec) | {"spec": spec.model_dump(mode="json")}
    files.write_json(paths.partial_scores(tmp_path, "ddpm-cosine", 0), sealed(content))
    assert row(plan, tmp_path)["status"] == "missing"


@pytest.mark.parametrize("stage", ["data", "train"])
def test_an_upstream_failure_is_quoted(plan, tmp_path, stage):
    variant = {"data": "", "train": "ddpm-cosine"}[stage]
    fail(plan, tmp_path, stage, "disk full", variant=variant)
    for item, metric in [("ancestral-10", "fid"), ("ddim-5", "is"), ("vlb-small", "bits_per_dim")]:
        found = row(plan, tmp_path, item, metric)
        assert (found["status"], found["note"]) == ("failed", f"{stage}: disk full")
    assert row(plan, tmp_path, "heun-3", variant="edm")["status"] == (
        "failed" if stage == "data" else "missing"
    )


def test_a_failed_score_is_quoted(plan, tmp_path):
    fabricate(plan, tmp_path)
    remove(plan, tmp_path, "score")
    fail(plan, tmp_path, "score", "kid has value nan")
    assert row(plan, tmp_path)["note"] == "score: kid has value nan"


def test_results_of_another_spec_are_stale(tmp_path):
    fabricate(plan_of(), tmp_path)
    plan = plan_of(training={"lr": 0.5})
    for solver, metric in [("ancestral-10", "fid"), ("vlb-small", "bits_per_dim")]:
        found = row(plan, tmp_path, solver, metric)
        assert (found["status"], found["ours_mean"]) == ("stale", "-")
        assert "lr = 0.001, and 0.5 is expected" in found["note"]
    assert row(plan, tmp_path, "draw", variant="control-test")["status"] == "ok"
    assert "stale [1]" in markdown(plan, tmp_path)


def test_a_failure_of_the_new_spec_outranks_the_old_results(tmp_path):
    fabricate(plan_of(), tmp_path)
    plan = plan_of(training={"lr": 0.5})
    fail(plan, tmp_path, "train", "diverged")
    assert row(plan, tmp_path)["note"] == "train: diverged"


def test_scores_whose_model_was_made_anew_are_stale(plan, tmp_path):
    fabricate(plan, tmp_path)
    other = plan_of(training={"lr": 0.5}).job("train", "ddpm-cosine", 0).spec
    write_product(product(plan, tmp_path, "train"), b"other", other)
    for item, metric in [("ancestral-10", "fid"), ("vlb-small", "bits_per_dim")]:
        found = row(plan, tmp_path, item, metric)
        assert found["status"] == "stale"
        assert found["note"].startswith("train: model.safetensors was made with")


def test_a_changed_extractor_concerns_scores_alone(tmp_path):
    fabricate(plan_of(), tmp_path)
    plan = plan_of(extractor={"epochs": 2})
    assert row(plan, tmp_path)["status"] == "stale"
    assert row(plan, tmp_path, "vlb-small", "bits_per_dim")["status"] == "ok"


def test_scores_survive_a_solver_that_is_added(tmp_path):
    fabricate(plan_of(), tmp_path)
    more = {"ddpm-cosine": {"solvers": {"ddim-3": {"name": "ddim", "steps": 3}}}}
    plan = plan_of(overrides=more)
    assert row(plan, tmp_path)["status"] == "ok"
    assert row(plan, tmp_path, "ddim-3")["status"] == "missing"


@pytest.mark.parametrize(
    ("stage", "item", "metric"),
    [("score", "ancestral-10", "fid"), ("likelihood", "vlb-small", "bits_per_dim")],
)
def test_an_altered_file_is_failed(plan, tmp_path, stage, item, metric):
    fabricate(plan, tmp_path)
    path = product(plan, tmp_path, stage, item if stage == "likelihood" else "")
    path.write_text(path.read_text().replace("2", "3"))
    found = row(plan, tmp_path, item, metric)
    assert (found["status"], found["ours_mean"]) == ("failed", "-")
    assert "sha256" in found["note"] and str(tmp_path) not in found["note"]


def test_samples_that_were_altered_before_scoring_are_failed(plan, tmp_path):
    fabricate(plan, tmp_path)
    remove(plan, tmp_path, "score")
    product(plan, tmp_path, "sample", "ddim-5").write_bytes(b"torn")
    assert row(plan, tmp_path, "ddim-5")["note"].startswith("sample: samples.npz has sha256")
    assert row(plan, tmp_path)["status"] == "missing"


def test_a_score_file_without_sidecar_is_failed(plan, tmp_path):
    fabricate(plan, tmp_path)
    paths.sidecar(product(plan, tmp_path, "score")).unlink()
    assert "no sidecar" in row(plan, tmp_path)["note"]


def test_gpu_hours_count_gpu_time_alone(plan, tmp_path):
    fabricate(plan, tmp_path)
    record(product(plan, tmp_path, "train"), 7200, "cuda: NVIDIA H200")
    found = row(plan, tmp_path)
    assert (found["seconds"], found["gpu_hours"]) == ("7201.5", "2")
    assert row(plan, tmp_path, metric="train_seconds")["ours_mean"] == "7200"


def test_a_lost_run_record_costs_the_seconds_alone(plan, tmp_path):
    fabricate(plan, tmp_path)
    paths.run_record(product(plan, tmp_path, "train")).unlink()
    found = row(plan, tmp_path)
    assert (found["status"], found["seconds"], found["gpu_hours"]) == ("ok", "-", "-")
    assert row(plan, tmp_path, metric="train_seconds")["status"] == "missing"


def test_refusals_are_in_footnotes_and_in_the_csv(plan, tmp_path):
    reason = "integer times have no SDE"
    plan = replace(plan, refusals=(Refusal("ddpm-cosine", "sample", "em-100", reason),))
    fabricate(plan, tmp_path)
    assert f"ddpm-cosine with em-100: {reason}" in markdown(plan, tmp_path)
    found = row(plan, tmp_path, "em-100")
    assert (found["status"], found["note"]) == ("refused", reason)


def test_a_refused_likelihood_has_its_reason_in_its_cell(tmp_path):
    plan = plan_of(likelihoods={"vlb-small": {"name": "vlb"}})
    fabricate(plan, tmp_path)
    text = markdown(plan, tmp_path)
    line = next(line for line in text.splitlines() if line.startswith("| edm ") and "[" in line)
    assert line.split("|")[2].strip() == "– [1]"
    assert (
        "[1] steps: must be at least 2 in continuous time, where the bound is a sum over that many steps"
        in text
    )


def test_published_values_are_context_and_never_subtracted(plan, tmp_path):
    fabricate(plan, tmp_path)
    found = rows(plan, tmp_path, "ddpm-table1")
    assert {each["difference"] for each in found} == {"-"}
    by_cell = {(each["row"], each["metric"]): each for each in found}
    theirs = by_cell["eps-prediction, L_simple", "fid"]
    assert (theirs["published"], theirs["status"]) == ("3.17", "missing")
    assert theirs["note"] == "this benchmark has no such variant"
    assert theirs["published_source"] == "arXiv:2006.11239, Table 1, CIFAR-10 (paper)"
    assert by_cell["eps-prediction, L_simple", "bits_per_dim"]["published"] == "3.75"
    assert "published, CIFAR-10, 50k samples" in markdown(plan, tmp_path, "ddpm-table1")


def test_each_number_of_a_papers_row_has_its_source(plan, tmp_path):
    fabricate(plan, tmp_path)
    (grid,) = tables(plan, tmp_path)["ddpm-table1"].grids
    row = next(i for i, cells in enumerate(grid.rows) if cells[0] == "eps-prediction, L_simple")
    ours = grid.heads.index("ours")
    assert grid.cells[row, ours].jobs == [tuple(grid.rows[row][1:3])]
    theirs = grid.cells[row, ours + 1].published
    assert (theirs["table"], theirs["value"]) == ("Table 1", grid.rows[row][ours + 1])
    assert theirs["address"] == "https://arxiv.org/abs/2006.11239"
    # No difference is taken, so none has a source.
    assert (row, ours + 2) not in grid.cells


def test_what_differs_from_the_published_protocol_is_said(tmp_path):
    plan = plan_of(
        tables=["ddpm-table1"],
        overrides={
            "ddpm-cosine": {"solvers": {"ancestral-100": {"name": "ancestral", "steps": 20}}}
        },
    )
    fabricate(plan, tmp_path)
    found = [
        each for each in rows(plan, tmp_path, "ddpm-table1") if each["variant"] == "ddpm-cosine"
    ]
    assert (found[0]["status"], found[0]["ours_mean"]) == ("ok", "2")
    for part in ("data set digits, not cifar10", "samples 64, not 50000", "NFE 10, not 4000"):
        assert part in found[0]["note"]
    assert found[0]["difference"] == "-"


def test_a_difference_needs_the_same_protocol(plan, tmp_path):
    fabricate(plan, tmp_path)
    cell = tables(plan, tmp_path)["overview"].records[0].cell
    same = layout.ProtocolSpec(
        data="digits", samples=64, images=297, extractor="classifier", steps=4, batch=16
    )
    ask = [plan, "ddpm-cosine", "fid", cell]
    assert disagreements(*ask, same, PRINTED) == []
    for key, value in {"data": "cifar10", "samples": 50000, "steps": 5, "batch": None}.items():
        other = same.model_copy(update={key: value})
        assert len(disagreements(*ask, other, PRINTED)) == 1
    for printed, said in {
        replace(PRINTED, nfe="1000"): "NFE 10, not 1000",
        replace(PRINTED, nfe=""): "NFE 10, not unknown",
        replace(PRINTED, trained_in="fp16"): "training precision fp32, not fp16",
        replace(PRINTED, sampled_in="fp16"): "sampling precision fp32, not fp16",
        replace(PRINTED, sampled_in=""): "sampling precision fp32, not unknown",
        replace(PRINTED, version="resized"): "version of the data set unknown, not resized",
    }.items():
        assert disagreements(*ask, same, printed) == [said]


def test_precision_and_recall_are_compared_by_their_reference_images(plan, tmp_path):
    fabricate(plan, tmp_path)
    cell = tables(plan, tmp_path)["overview"].records[0].cell
    same = layout.ProtocolSpec(
        data="digits", samples=64, images=297, extractor="classifier", steps=4, batch=16
    )
    few = replace(cell, protocol={**cell.protocol, "reference_neighbours": 1500})
    ask = [plan, "ddpm-cosine", "recall", few]
    agreeing = same.model_copy(update={"neighbours": 1500})
    assert disagreements(*ask, agreeing, PRINTED) == []
    other = same.model_copy(update={"neighbours": 10000})
    assert disagreements(*ask, other, PRINTED) == ["reference images 1500, not 10000"]
    assert disagreements(plan, "ddpm-cosine", "fid", few, other, PRINTED) == []


def test_a_network_that_was_asked_in_another_precision_is_said(tmp_path):
    plan = plan_of(sampling={"precision": "bf16"}, tables=["overview"])
    fabricate(plan, tmp_path)
    record = tables(plan, tmp_path)["overview"].records[0]
    same = layout.ProtocolSpec(
        data="digits", samples=64, images=297, extractor="classifier", steps=4, batch=16
    )
    found = disagreements(plan, "ddpm-cosine", "fid", record.cell, same, PRINTED)
    assert found == ["sampling precision bf16, not fp32"]
    assert record.protocol.endswith(", network in bf16")
    assert "Precision: training fp32, sampling bf16 (all models)." in markdown(plan, tmp_path)


def test_two_versions_of_a_data_set_are_two_data_sets(tmp_path):
    """The bits of van den Oord's ImageNet-32 are not those of the batches of 2017."""
    printed = replace(PRINTED, version="van den Oord 2016")
    protocol = layout.ProtocolSpec(
        data="imagenet32", samples=64, images=50, extractor="inception-v3", steps=4, batch=16
    )
    ours = Cell("ok", mean=3.8, nfe=10, images=50, protocol={"precision": "fp32"})
    (tmp_path / "images").mkdir()
    path = str(tmp_path / "images")
    older = {"name": "folder", "path": path, "size": 32, "channels": 3, "called": "imagenet32"}
    for data, said in (
        (
            {"name": "imagenet", "size": 32, "path": path},
            ["version of the data set Chrabaszcz 2017, not van den Oord 2016"],
        ),
        (older, ["version of the data set bicubic, not van den Oord 2016"]),
        (older | {"version": "van den Oord 2016"}, []),
        (
            older | {"version": "van den Oord 2016", "called": "imagenet64"},
            ["data set imagenet64, not imagenet32"],
        ),
    ):
        plan = plan_of(data=data)
        ask = [plan, "ddpm-cosine", layout.BITS, ours, protocol]
        assert disagreements(*ask, printed) == said
        title = plan.benchmark.data.title
        assert f"Data: {title}, read by {data['name']} (" in markdown(plan, tmp_path / "none")


def test_an_analysis_is_compared_by_its_images(plan):
    protocol = layout.ProtocolSpec(
        data="digits", samples=64, images=297, extractor="classifier", steps=4, batch=16
    )
    ask = [plan, "ddpm-cosine", "rate"]
    ours = Cell("ok", mean=1.0, images=297)
    assert disagreements(*ask, ours, protocol, PRINTED) == []
    fewer = Cell("ok", mean=1.0, images=100, protocol={})
    assert disagreements(*ask, fewer, protocol, PRINTED) == ["images 100, not 297"]


def test_every_table_of_lossy_images_says_so(tmp_path):
    (tmp_path / "images").mkdir()
    data = {"name": "folder", "path": str(tmp_path / "images"), "size": 8, "channels": 1}
    whole = {"tables": ["overview", "ddpm-table1"], "claims": ["ddpm-*"]}
    exact, lossy = (plan_of(data=data | more, **whole) for more in ({}, {"lossy": True}))
    fabricate(lossy, tmp_path)
    made = [file for file in make(lossy, tmp_path) if file.parent.name == "tables"]
    found = [file for file in made if file.stem != exports.NAME]
    assert exports.read(tmp_path).about["remark"] == lossy.benchmark.data.remark
    assert len(found) == 9
    for file in found:
        lines = file.read_text().splitlines()
        marked = lines[1:] if file.suffix == ".csv" else [" ".join(lines)]
        assert all("lossy images: their artefacts are learnt and scored" in line for line in marked)
        assert file.suffix == ".csv" or "folder (lossy)" in marked[0].split("variant")[0]
    assert not any(
        "lossy images" in to_markdown(table) for table in tables(exact, tmp_path / "none").values()
    )


def test_lossy_images_are_never_the_published_data_set(tmp_path):
    plan = plan_of(data={"name": "parquet", "path": str(tmp_path), "lossy": True})
    variant = plan.variants["ddpm-cosine"]
    protocol = layout.ProtocolSpec(
        data="parquet",
        samples=64,
        images=1,
        extractor="classifier",
        steps=variant.training.steps,
        batch=variant.training.batch,
    )
    ours = Cell("ok", mean=1.0, nfe=10, images=64, protocol=PROTOCOL)
    found = disagreements(plan, "ddpm-cosine", "fid", ours, protocol, PRINTED)
    assert found == ["data set parquet (lossy), not parquet"]


@pytest.fixture
def repository(tmp_path):
    """A copy of the configuration that a test may change."""
    for name in (layout.TABLES, layout.PUBLISHED):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((REPOSITORY / name).read_bytes())
    return tmp_path


def edit(repository, change):
    path = repository / layout.TABLES
    content = fast_yaml.load(path.read_text())
    change(content)
    path.write_text(fast_yaml.dump(content))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c["tables"]["overview"].update(metric=["fid"]), "unknown key 'metric'"),
        (lambda c: c["tables"]["overview"].update(layout="lsiting"), "did you mean 'listing'"),
        (lambda c: c["tables"]["overview"]["columns"].append("fidd"), "did you mean 'fid'"),
        (lambda c: c["metrics"]["fid"].update(digits=0), "metrics.fid.digits"),
        (
            lambda c: c["tables"]["overview"].update(where_known=["x"]),
            "where_known: 'x' is not one",
        ),
        (lambda c: c["tables"].pop("overview"), "no table 'overview'"),
        (
            lambda c: c["tables"]["ddpm-table1"]["rows"][0]["published"].update(tabel="1"),
            "no column 'tabel'; did you mean 'table'",
        ),
        (lambda c: c["tables"]["ddpm-table1"].update(about=["loss"]), "unknown key 'about'"),
        (
            lambda c: c["tables"]["ddpm-table1"]["rows"][0].update(protocol={"step": 1}),
            "did you mean 'steps'",
        ),
        (
            lambda c: c["tables"]["ddpm-table1"]["rows"][0].update(published="x"),
            "ddpm-table1.rows.0.published",
        ),
        (
            lambda c: c["tables"]["ddpm-table1"]["rows"][0]["published"].update(setting="x"),
            "0 published values",
        ),
    ],
)
def test_a_wrong_layout_is_one_line_and_writes_nothing(plan, repository, change, named):
    edit(repository, change)
    with pytest.raises(PlanError, match=r"^[^\n]*$") as error:
        make(replace(plan, repository=repository), repository / "results")
    assert named in str(error.value)
    assert not (repository / "results").exists()


def test_params_change_with_content_and_not_with_comments(repository):
    plan = replace(plan_of(tables=["overview"]), repository=repository)
    before = table_params(plan)
    path = repository / layout.TABLES
    path.write_text(path.read_text() + "\n# a comment\n")
    assert table_params(plan) == before
    edit(repository, lambda content: content["metrics"]["fid"].update(head="Frechet"))
    assert table_params(plan) != before


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a_b & 50%", r"a\_b \& 50\%"),
        (r"C:\x", r"C:\textbackslash{}x"),
        ("2.0 ± 0.1 [1] – {x}", r"2.0 \ensuremath{\pm} 0.1 {[}1{]} -- \{x\}"),
    ],
)
def test_latex_is_escaped(text, wanted):
    assert escaped(text) == wanted


def test_latex_is_booktabs(plan, tmp_path):
    fabricate(plan, tmp_path)
    make(plan, tmp_path)
    text = paths.table(tmp_path, "overview", "tex").read_text()
    for word in (r"\toprule", r"\midrule", r"\bottomrule", r"2.0 (0.2)", r"nearest"):
        assert word in text
    widths = {line.count(" & ") for line in text.splitlines() if line.endswith(r"\\")}
    assert widths == {13, 1}  # the overview and bits/dim


def test_markdown_pipes_are_escaped():
    table = Table("t", [], [Grid(["a", "b"], [["x|y", "1"]])])
    assert r"x\|y" in to_markdown(table)
    assert r"x\ensuremath{|}y" in to_latex("t", table)


@pytest.mark.parametrize(
    ("value", "error", "seeds", "wanted"),
    [
        (2.3149, 0.123, True, "2.31 ± 0.12"),
        (2.3149, 0.0996, False, "2.31 (0.10)"),
        (123.456, 4.2, False, "123 (4)"),
        (1234.5, 25.0, True, "1234 ± 25"),
        (0.5, None, False, "0.500"),
        (0.0, 0.0, True, "0"),
    ],
)
def test_errors_decide_the_digits(value, error, seeds, wanted):
    assert with_error(value, error, seeds) == wanted


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (12345.6, "12346"),
        (0.00123456, "0.00123"),
        (9.999, "10.0"),
        (-2.5, "-2.50"),
        (6e-11, "0"),
    ],
)
def test_plain_numbers_have_three_digits(value, wanted):
    assert plain(value) == wanted


def test_notes_say_what_each_denoiser_predicts():
    benchmark = REPOSITORY / "config" / "digits-reflected.yaml"
    only = {"only": "vp-cond,reflected,reflected-mixture"}
    lines = budget_lines(load_plan([benchmark], only, REPOSITORY))
    (said,) = [line for line in lines if line.startswith("Predicted")]
    assert "eps with skip edm, class-conditional, label dropout 0.1 (vp-cond)" in said
    assert (
        "score, gated (reflected)" in said and "score, kernel-mixture (reflected-mixture)" in said
    )


def test_tables_are_aligned_and_fit_a_terminal(plan, tmp_path):
    fabricate(plan, tmp_path)
    make(plan, tmp_path)
    text = paths.table(tmp_path, "overview", "md").read_text()
    assert text.startswith("# Overview: tiny\n")
    assert max(len(line) for line in text.splitlines() if line.startswith("|")) <= 150
    for block in text.split("\n\n"):
        grid = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(line) for line in grid}) <= 1


def test_every_row_of_the_shipped_tables_chooses_one_published_value():
    known = layout.read_tables(REPOSITORY)
    published = PublishedValues(REPOSITORY / layout.PUBLISHED)
    papers = [each for each in known.tables.values() if isinstance(each, layout.PaperTableSpec)]
    assert papers
    for table in papers:
        for each in table.rows:
            for cell in each.cells.values():
                assert published.choose(cell.published).value


def test_tables_load_no_torch_and_import_no_pandas():
    code = "import sys, diffbench.reporting.tables; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert not {"torch", "pandas", "tabulate"} & set(done.stdout.split())


def test_columns_are_named_once():
    assert len(set(COLUMNS)) == len(COLUMNS) == 23
