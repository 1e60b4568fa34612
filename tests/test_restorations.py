"""The table and the figure of restorations, from made-up results and pictures."""

import csv
import io
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from test_reporting import PROTOCOL, plan_of

from diffbench.reporting import context, galleries
from diffbench.reporting.frames import DPI
from diffbench.reporting.galleries import Gallery, ImageRow, Pane, mosaic
from diffbench.reporting.listing import planned_rows
from diffbench.reporting.records import Records
from diffbench.reporting.tables import charts, make
from diffbench.store import files, paths, status
from diffbench.store.products import write_json_product, write_product

RESTORED = {
    "tables": ["restorations", "overview"],
    "figures": ["restorations"],
    "variants": ["edm", "exact", "baselines"],
    "methods": {"exact": {"process": {"name": "ve"}, "denoiser": {"name": "gaussian"}}},
    "restorations": {
        "images": 12,
        "draws": 2,
        "tasks": {
            "jpeg": {"operator": {"name": "jpeg", "quality": 20}},
            "box": {"operator": {"name": "box-mask", "height": 4, "width": 3}, "noise": 0.1},
        },
        "variants": ["edm", "exact"],
        "restorers": {"ddrm-20": {"name": "ddrm", "steps": 20}, "snips": {"name": "snips"}},
    },
}
METRICS = {
    "psnr": 20.0,
    "ssim": 0.8,
    "residual": 0.1,
    "spread": 0.05,
    "psnr_mean": 22.0,
    "fid": 3.0,
}
SEED = np.random.default_rng(0)


@pytest.fixture
def plan():
    return plan_of(**RESTORED)


def content(run, **more):
    values = METRICS | {"psnr": 20.0 + 2 * run.seed} | more
    metrics = {name: {"value": value, "se": 0.5} for name, value in values.items()}
    counts = {"images": 12, "draws": 2}
    return {
        "metrics": metrics,
        "floors": {"fid": {"mean": 1.5, "sd": 0.25, "value": 2.0}},
        "truth": {"fid": {"value": 1.0, "se": 0.5}},
        "nfe": 20,
        "samples": 24,
        "protocol": PROTOCOL | counts | {"floors": {"redraws": 20, "seed": 0}},
    }


def pictures():
    truth = np.random.default_rng(0).integers(0, 17, (10, 8, 8, 1), dtype=np.uint8)
    half = truth.copy()
    half[:, 4:] = 8
    drawn = np.stack([truth, half], 1)
    return {"truth": truth, "measurement": half, "restorations": drawn, "mean": truth}


def write(run, root, **more):
    path, archive = paths.products(root, run.spec)
    write_json_product(path, content(run, **more), run.spec)
    write_product(archive, lambda file: np.savez(file, **pictures()), run.spec)
    files.write_json(paths.run_record(path), {"seconds": 4.0, "device": "cpu"})


def fill(plan, root):
    """Write every restoration; those of the exact denoiser know the posterior."""
    for run in plan.of("restore"):
        write(run, root, **({"bias": 0.01, "sd_ratio": 0.9} if run.variant == "exact" else {}))


def lines(plan, root):
    make(plan, root)
    return list(csv.DictReader(io.StringIO(paths.table(root, "restorations", "csv").read_text())))


def table(plan, root):
    """The Markdown, and its rows: (task, variant, method) -> cells."""
    make(plan, root)
    text = paths.table(root, "restorations", "md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return text, {tuple(row[:3]): row[3:] for row in rows if len(row) > 4}


def test_rows_are_in_the_order_of_tasks_and_variants_refusals_last(plan):
    found = planned_rows(plan, "restore")
    assert list(found) == [
        ("edm", "jpeg/ddrm-20"),
        ("edm", "jpeg/snips"),
        ("exact", "jpeg/ddrm-20"),
        ("exact", "jpeg/snips"),
        ("baselines", "jpeg/pseudo-inverse"),
        ("baselines", "jpeg/posterior-mean"),
        ("edm", "box/ddrm-20"),
        ("edm", "box/snips"),
        ("exact", "box/ddrm-20"),
        ("exact", "box/snips"),
        ("baselines", "box/pseudo-inverse"),
        ("baselines", "box/posterior-mean"),
    ]
    assert [place for place, reason in found.items() if reason] == [
        ("edm", "jpeg/snips"),
        ("exact", "jpeg/snips"),
        ("baselines", "jpeg/posterior-mean"),
    ]


def test_a_whole_table(plan, tmp_path):
    fill(plan, tmp_path)
    text, rows = table(plan, tmp_path)
    heads = ["NFE", "PSNR", "SSIM", "residual", "spread", "PSNR mean", "FID", "bias", "sd ratio"]
    assert rows["task", "variant", "method"] == [*heads, "seconds"]
    common = ["20", "20.0 (0.5)", "0.800", "0.10", "0.050", "22.0", "3.0 (0.5)"]
    # Of the trained models of the task the best is marked, by each metric that ranks.
    best = ["20", "20.0 (0.5)*", "0.800*", "0.10", "0.050", "22.0*", "3.0 (0.5)"]
    assert rows["box", "edm", "ddrm-20"] == [*best, "–", "–", "4.00"]
    assert rows["box", "edm", "snips"] == [*common, "–", "–", "4.00"]
    assert "- * the best of its column and task among trained models" in text
    assert rows["box", "exact", "snips"] == [*common, "0.010", "0.900", "4.00"]
    refused = rows["jpeg", "edm", "snips"]
    assert refused == ["–", "– [1]", *["–"] * 8]
    assert "- [1] snips needs a linear operator, and jpeg is not linear" in text
    assert "- box: box-mask (height 4, width 3), noise 0.1." in text
    assert "the first 12 test images, 2 restorations of each, N = 24; seed 0." in text
    assert "the standard error over the test images (FID: bootstrap)" in text
    assert "- baselines: H^+ y" in text and "classifier sha256 01234567" in text
    assert max(len(line) for line in text.splitlines() if line.startswith("|")) <= 160


def test_the_csv_has_a_row_a_number(plan, tmp_path):
    fill(plan, tmp_path)
    found = lines(plan, tmp_path)
    of_row = [row for row in found if (row["variant"], row["solver"]) == ("exact", "box/snips")]
    assert [row["metric"] for row in of_row] == [*METRICS, "bias", "sd_ratio", "restore_seconds"]
    assert {row["status"] for row in of_row} == {"ok"}
    assert (of_row[0]["ours_mean"], of_row[0]["unit"], of_row[0]["samples"]) == ("20", "dB", "24")
    assert of_row[0]["protocol"].startswith("12 test images, 2 draws each, extractor classifier")
    refused = {row["solver"] for row in found if row["status"] == "refused"}
    assert refused == {"jpeg/snips", "jpeg/posterior-mean"}


def test_the_truth_is_a_row_and_what_is_at_its_floor_is_marked(plan, tmp_path):
    fill(plan, tmp_path)
    text, rows = table(plan, tmp_path)
    assert rows["–", "truth", "–"] == ["–", *["–"] * 5, "1.0 (0.5)†", *["–"] * 3]
    assert next(iter(rows)) == ("task", "variant", "method") and list(rows)[2] == (
        "–",
        "truth",
        "–",
    )
    first = lines(plan, tmp_path)[0]
    assert (first["row"], first["metric"], first["ours_mean"]) == ("truth", "fid", "1")
    assert (first["floor"], first["at_floor"]) == ("2", "yes")
    assert "FID 2.00 (N = 24, 20 redraws)" in text
    # 3 - 1.96 0.5 is 2.02.
    assert {row["at_floor"] for row in lines(plan, tmp_path) if row["metric"] == "psnr"} == {"-"}
    assert rows["box", "edm", "ddrm-20"][6] == "3.0 (0.5)"


def test_without_a_known_posterior_there_is_no_column_for_it(plan, tmp_path):
    for run in plan.of("restore"):
        write(run, tmp_path)
    text, rows = table(plan, tmp_path)
    assert "sd ratio" not in rows["task", "variant", "method"]
    assert {len(row) for row in rows.values()} == {8}


def test_several_seeds_are_a_mean_and_a_deviation(tmp_path):
    plan = plan_of(**RESTORED, seeds=[0, 1])
    fill(plan, tmp_path)
    assert table(plan, tmp_path)[1]["box", "edm", "ddrm-20"][1] == "21.0 ± 1.4*"


def test_what_failed_is_stale_or_is_not_there_says_so(plan, tmp_path):
    fill(plan, tmp_path)
    failed = plan.job("restore", "edm", 0, "box/snips")
    for path in paths.products(tmp_path, failed.spec):
        path.unlink()
    status.record_failure(paths.state(tmp_path, failed.spec), "restore", "the restorer broke")
    paths.products(tmp_path, plan.job("restore", "exact", 0, "box/snips").spec)[1].unlink()
    other = plan_of(
        **{**RESTORED, "overrides": {"baselines": {"restorers": {"posterior-mean": "none"}}}}
    )
    stale = plan.job("restore", "baselines", 0, "box/pseudo-inverse").spec
    write_json_product(paths.product(tmp_path, stale), {}, stale.model_copy(update={"draws": 9}))
    found = {
        (row["variant"], row["solver"]): (row["status"], row["note"])
        for row in lines(other, tmp_path)
        if row["metric"] == "psnr"
    }
    assert found["edm", "box/snips"] == ("failed", "restore: the restorer broke")
    assert found["exact", "box/snips"][0] == "missing"
    assert found["baselines", "box/pseudo-inverse"][0] == "stale"
    assert found["edm", "box/ddrm-20"] == ("ok", "-")
    assert ("baselines", "box/posterior-mean") not in found
    panes = charts(other, tmp_path)["restorations"].panes
    shown = {row.label: row.status for row in panes[1].rows}
    assert shown["edm snips"] == "failed" and shown["baselines pseudo-inverse"] == "stale"


def test_comparisons_and_claims_find_a_restoration_by_its_item(plan, tmp_path):
    fill(plan, tmp_path)
    results = Records(plan, tmp_path)
    assert results.number("edm", "box/snips", "psnr").mean == 20
    assert results.number("edm", "jpeg/snips", "psnr").status == "refused"
    assert results.number("edm", "box/snip", "psnr").status == "missing"


def test_other_tables_know_nothing_of_restorations(plan, tmp_path):
    fill(plan, tmp_path)
    make(plan, tmp_path)
    text = paths.table(tmp_path, "overview", "md").read_text()
    assert "snips" not in text and "baselines" not in text


def test_the_figure_shows_what_was_kept(plan, tmp_path):
    fill(plan, tmp_path)
    gallery = charts(plan, tmp_path)["restorations"]
    jpeg, box = gallery.panes
    methods = ["edm ddrm-20", "exact ddrm-20", "baselines pseudo-inverse"]
    assert [row.label for row in jpeg.rows] == ["truth", "pseudo-inverse", *methods]
    kept = pictures()
    assert np.array_equal(box.rows[0].images, kept["truth"][:6])
    assert np.array_equal(box.rows[1].images, kept["measurement"][:6])
    assert np.array_equal(box.rows[2].images, kept["restorations"][:6, 0])
    make(plan, tmp_path)
    text = paths.figure(tmp_path, "restorations", "csv").read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    error = ((kept["measurement"][3] / 16 - kept["truth"][3] / 16) ** 2).mean()
    chosen = [
        row
        for row in rows
        if (row["panel"], row["series"], row["x"]) == ("box", "pseudo-inverse", "3")
    ]
    assert float(chosen[0]["y"]) == pytest.approx(-10 * np.log10(error), rel=1e-5)
    drawn = [row for row in rows if row["series"] == "edm ddrm-20"]
    assert {row["y"] for row in drawn} == {"100"} and len(drawn) == 12
    picture = paths.figure(tmp_path, "restorations", "png").read_bytes()
    assert Image.open(io.BytesIO(picture)).size[0] > 5 * DPI
    assert charts(plan, tmp_path)["restorations"].png() == picture


@pytest.mark.parametrize("tasks", [{}, RESTORED["restorations"]["tasks"]])
def test_nothing_on_disk_is_a_table_and_a_picture_that_say_so(tmp_path, tasks):
    plan = plan_of(**RESTORED)
    restorations = plan.benchmark.restorations.model_copy(update={"tasks": {}})
    if not tasks:
        jobs = tuple(job for job in plan.jobs if job.stage != "restore")
        benchmark = plan.benchmark.model_copy(update={"restorations": restorations})
        plan = replace(plan, benchmark=benchmark, jobs=jobs, refusals=())
    made = lines(plan, tmp_path)
    assert {row["status"] for row in made} == ({"missing", "refused"} if tasks else set())
    assert paths.figure(tmp_path, "restorations", "png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_stands_in_its_place(channels):
    images = SEED.integers(0, 17, (2, 3, 5, 4, channels), dtype=np.uint8)
    pane = Pane(
        "t", [ImageRow("a", images[0]), ImageRow("lost", None, "failed"), ImageRow("b", images[1])]
    )
    whole = mosaic(pane, 17).reshape(3 * 6 + 1, 3 * 5 + 1, channels)
    for down, row in ((0, images[0]), (2, images[1])):
        for across, image in enumerate(row):
            top, left = down * 6 + 1, across * 5 + 1
            part = whole[top : top + 5, left : left + 4]
            assert np.array_equal(part, np.round(image * (255 / 16)))
    assert (whole[7:12, 1:-1] == galleries.LACKING).all()


def test_pictures_that_differ_in_nothing_have_a_finite_psnr():
    images = SEED.integers(0, 17, (2, 4, 4, 1), dtype=np.uint8)
    gallery = Gallery("g", [Pane("t", [ImageRow("truth", images), ImageRow("a", images)])], 17)
    rows = list(csv.DictReader(io.StringIO(gallery.csv("g"))))
    assert [row["y"] for row in rows] == ["100", "100"]


def test_matplotlib_is_loaded_only_to_draw():
    code = "import sys, diffbench.reporting.restorations; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "pandas", "matplotlib", "numpy"} & set(done.stdout.split())


def test_what_is_counted_is_what_is_shown(plan):
    sampled = next((run.variant, run.item) for run in plan.of("sample"))
    restored = ("edm", "box/snips")
    samples = f"N = {plan.benchmark.samples} samples"
    images = f"test images, {plan.benchmark.restorations.draws} restorations of each"
    for items, wanted in (
        ((), (True, False)),
        ([sampled], (True, False)),
        ([restored], (False, True)),
    ):
        line = context.data_line(plan, items)
        assert (samples in line, images in line) == wanted
    both = context.data_line(plan, [sampled, restored])
    assert samples in both and images in both
