"""Figures: the numbers in them by hand, what they say where there are none, the same bytes twice."""

import io
import subprocess
import sys
import warnings

import pytest
from layouts import FIDS, REPOSITORY, SEEDS, configured, fill, rows_of, scores
from matplotlib.figure import Figure
from PIL import Image
from test_reporting import PROTOCOL, fail, plan_of, record, remove

from diffbench.reporting import charts as charting
from diffbench.reporting import exports, layout
from diffbench.reporting.charts import COLUMNS, Chart, Line, Panel, Point, to_csv, to_png
from diffbench.reporting.frames import DPI
from diffbench.reporting.records import Records
from diffbench.reporting.results import Outcome
from diffbench.reporting.tables import charts, make, outputs
from diffbench.specs.errors import PlanError
from diffbench.store import paths
from diffbench.store.products import write_json_product

TERMS = {
    0: {"terms": [1.0, 0.5, 0.25], "times": [0, 4, 9]},
    1: {"terms": [2.0, 0.5, 0.75], "times": [0, 4, 9]},
    2: {"terms": [3.0, 0.5, 0.5], "times": [0, 4, 9]},
}


def curve(**changes):
    points = [
        {"x": 10, "variant": "ddpm-cosine", "item": "ancestral-10"},
        {"x": 5, "variant": "ddpm-cosine", "item": "ddim-5"},
        {"x": 7, "variant": "ddpm-cosine", "item": "ddim-7"},
    ]
    series = [
        {"label": "discrete", "points": points},
        {"label": "absent", "points": [{"x": 3, "variant": "vp", "item": "heun-3"}]},
    ]
    spec = {"layout": "curve", "title": "Steps", "x": "steps", "metrics": ["fid", "kid"]}
    return {"steps": spec | {"series": series} | changes}


def terms(*series):
    listed = [{"label": v, "variant": v, "item": item} for v, item in series]
    return {"terms": {"layout": "terms", "title": "Terms", "series": listed}}


def noise():
    wanted = {"variant": "ddpm-cosine", "item": "gradient-noise"}
    return {"noise": {"layout": "gradient-noise", "title": "Noise"} | wanted}


def nfe(**changes):
    series = {
        "DDIM": ["ddim-5", "ddim-7"],
        "chain": ["ancestral-10", "ddim-5"],
        "Heun": ["heun-3"],
    }
    spec = {"layout": "nfe", "title": "Evaluations", "variants": ["ddpm-cosine", "edm", "vp"]}
    return {"nfe": spec | {"series": series} | changes}


def round_trip():
    wanted = {"label": "cosine", "variant": "ddpm-cosine", "item": "latents"}
    return {"trip": {"layout": "reconstruction", "title": "Round trip", "series": [wanted]}}


def rows_with(plan, root, name, **wanted):
    make(plan, root)
    found = rows_of(paths.figure(root, name, "csv"))
    return [row for row in found if all(row[key] == value for key, value in wanted.items())]


def points_of(rows):
    return [[float(row[key]) for key in ("x", "y", "low", "high")] for row in rows]


def picture(root, name):
    return Image.open(io.BytesIO(paths.figure(root, name, "png").read_bytes()))


def test_a_curve_is_means_and_deviations_over_seeds(tmp_path):
    plan = configured(tmp_path, figures=curve())
    fill(plan, tmp_path)
    rows = rows_with(plan, tmp_path, "steps", panel="FID", series="discrete")
    assert tuple(rows[0]) == COLUMNS
    assert [row["x"] for row in rows] == ["5", "7", "10"]
    sd = (13 / 12) ** 0.5
    mean = 39.5 / 3
    assert points_of([rows[0], rows[2]]) == [
        pytest.approx([5, mean, mean - sd, mean + sd], abs=1e-4),
        [10, 3, 2, 4],
    ]
    assert (rows[2]["seeds"], rows[2]["status"], rows[2]["note"]) == ("3", "ok", "-")


def test_a_curve_is_plotted_as_it_is_shown(tmp_path):
    plan = configured(tmp_path, figures=curve())
    fill(plan, tmp_path)
    rows = rows_with(plan, tmp_path, "steps", panel="KID e3", series="discrete", x="10")
    assert points_of(rows) == [[10, 3000, 2000, 4000]]


def test_a_point_that_there_is_not_is_said(tmp_path):
    plan = configured(tmp_path, figures=curve())
    fill(plan, tmp_path)
    (lacking,) = rows_with(plan, tmp_path, "steps", panel="FID", x="7")
    assert (lacking["y"], lacking["status"]) == ("-", "missing")
    assert lacking["note"] == "ddpm-cosine: this benchmark has no such ddim-7"
    (lacking,) = rows_with(plan, tmp_path, "steps", panel="FID", series="absent")
    assert lacking["note"] == "vp: this benchmark has no such variant"


def test_one_seed_has_no_error_bar(tmp_path):
    plan = configured(tmp_path, figures=curve(), seeds=[0])
    fill(plan, tmp_path)
    (row,) = rows_with(plan, tmp_path, "steps", panel="FID", x="10")
    assert [row[key] for key in ("y", "low", "high", "seeds")] == ["2", "-", "-", "1"]


def test_nothing_on_disk_is_a_picture_that_says_so(tmp_path):
    figures = curve() | terms(("ddpm-cosine", "vlb-small"), ("vp", "vlb-small")) | noise()
    plan = configured(tmp_path, figures=figures)
    fail(plan, tmp_path, "train", "a $ and a\nnewline $x^{")
    assert make(plan, tmp_path) == outputs(plan, tmp_path)
    for name in figures:
        assert {row["y"] for row in rows_of(paths.figure(tmp_path, name, "csv"))} == {"-"}
        assert picture(tmp_path, name).size[0] > 5 * DPI
    (row,) = rows_with(plan, tmp_path, "terms", series="ddpm-cosine")
    assert (row["status"], row["note"]) == ("failed", "train: a $ and a newline $x^{")


def evaluated(plan, root, evaluations):
    """Fill a plan; each solver of a variant took the evaluations that are given for each seed."""
    fill(plan, root)
    for run in plan.of("score"):
        solvers = {
            item: scores(FIDS.get(item, SEEDS)[run.seed])
            | {"nfe": evaluations.get(item, [7] * 3)[run.seed]}
            for item in run.spec.samples
        }
        content = {"solvers": solvers, "protocol": PROTOCOL}
        write_json_product(paths.product(root, run.spec), content, run.spec)


def test_evaluations_are_what_the_results_say(tmp_path):
    plan = configured(tmp_path, figures=nfe())
    evaluated(plan, tmp_path, {"ancestral-10": [40, 44, 42], "ddim-5": [6, 6, 6]})
    rows = rows_with(plan, tmp_path, "nfe", panel="FID test, ddpm-cosine", series="chain")
    mean, sd = 39.5 / 3, (13 / 12) ** 0.5
    assert points_of(rows) == [
        pytest.approx([6, mean, mean - sd, mean + sd], abs=1e-4),
        [42, 3, 2, 4],
    ]
    assert [row["seeds"] for row in rows] == ["3", "3"]


def test_each_variant_has_a_panel_with_the_solvers_it_was_given(tmp_path):
    plan = configured(tmp_path, figures=nfe())
    evaluated(plan, tmp_path, {})
    rows = rows_with(plan, tmp_path, "nfe")
    found = [(row["panel"], row["series"], row["x"], row["note"]) for row in rows]
    # ddim-7 is not in the plan, and no DDIM was given to edm: neither is missing.
    assert found == [
        ("FID test, ddpm-cosine", "DDIM", "7", "-"),
        ("FID test, ddpm-cosine", "chain", "7", "-"),
        ("FID test, ddpm-cosine", "chain", "7", "-"),
        ("FID test, edm", "Heun", "7", "-"),
        ("FID test, vp", "vp", "-", "this benchmark has no such variant"),
    ]
    assert charts(plan, tmp_path)["nfe"].log == "xy"


def test_scores_are_also_plotted_against_the_seconds_of_the_samples(tmp_path):
    plan = configured(tmp_path, figures=nfe(against="seconds", variants=["ddpm-cosine", "edm"]))
    fill(plan, tmp_path)
    for seed, seconds in zip(SEEDS, (4.0, 8.0, 9.0), strict=True):
        record(paths.product(tmp_path, plan.job("sample", "edm", seed, "heun-3").spec), seconds)
    chart = charts(plan, tmp_path)["nfe"]
    assert [panel.name for panel in chart.panels] == ["FID test, ddpm-cosine", "FID test, edm"]
    (line,) = chart.panels[1].lines
    (point,) = line.points
    assert (line.label, point.x, point.seeds) == ("Heun", 7.0, 3)
    assert (chart.x, chart.log) == ("seconds for 64 samples", "xy")
    assert chart.note == "Wall time on: cpu."
    paths.run_record(paths.product(tmp_path, plan.job("sample", "edm", 0, "heun-3").spec)).unlink()
    (point,) = charts(plan, tmp_path)["nfe"].panels[1].lines[0].points
    assert (point.x, point.status) == (8.5, "ok")  # of the seeds that have a record


@pytest.mark.parametrize(
    ("offered", "series", "wanted"),
    [
        ({}, {"DDIM": ["ddim-7"]}, ("missing", "this benchmark has none of these solvers")),
        (
            {"solvers": {"mine": {"name": "ode", "steps": 3}}},
            {"ODE": ["mine", "ode-7"]},
            ("refused", "integer times"),
        ),
    ],
)
def test_a_variant_with_none_of_the_solvers_says_why(tmp_path, offered, series, wanted):
    figures = nfe(variants=["ddpm-cosine"], series=series)
    (row,) = rows_with(configured(tmp_path, figures=figures, **offered), tmp_path, "nfe")
    assert (row["series"], row["y"], row["status"]) == ("ddpm-cosine", "-", wanted[0])
    assert row["note"].startswith(wanted[1])


def test_a_planned_solver_without_results_is_said_after_those_that_have_some(tmp_path):
    plan = configured(tmp_path, figures=nfe(metric="kid", variants=["ddpm-cosine"]))
    evaluated(plan, tmp_path, {"ancestral-10": [0, 0, 0]})
    (row, lacking) = rows_with(plan, tmp_path, "nfe", panel="KID e3, ddpm-cosine", series="chain")
    assert float(row["y"]) == pytest.approx(39500 / 3, abs=0.1)
    assert (lacking["x"], lacking["y"], lacking["status"]) == ("-", "-", "missing")
    assert lacking["note"] == "ancestral-10: its scores have no function evaluations"
    stale = configured(tmp_path, figures=nfe(variants=["ddpm-cosine"]), training={"lr": 0.5})
    rows = rows_with(stale, tmp_path, "nfe")
    assert {(row["x"], row["y"], row["status"]) for row in rows} == {("-", "-", "stale")}
    assert all(row["note"].startswith(("ddim-5: ", "ancestral-10: ")) for row in rows)


def test_terms_are_means_over_seeds_at_their_times(tmp_path):
    plan = configured(tmp_path, figures=terms(("ddpm-cosine", "vlb-small")))
    fill(plan, tmp_path, terms=TERMS)
    rows = rows_with(plan, tmp_path, "terms")
    found = [(row["x"], row["y"], row["low"], row["seeds"]) for row in rows]
    assert found == [("1", "2", "-", "3"), ("5", "0.5", "-", "3"), ("10", "0.5", "-", "3")]


def test_terms_without_times_are_by_index(tmp_path):
    plan = configured(tmp_path, figures=terms(("ddpm-cosine", "vlb-small")))
    fill(plan, tmp_path, terms={seed: {"terms": each["terms"]} for seed, each in TERMS.items()})
    assert [row["x"] for row in rows_with(plan, tmp_path, "terms")] == ["1", "2", "3"]


def test_terms_of_some_seeds_say_which_are_not_there(tmp_path):
    plan = configured(tmp_path, figures=terms(("ddpm-cosine", "vlb-small")))
    fill(plan, tmp_path, terms=TERMS)
    remove(plan_of(seeds=[2]), tmp_path, "likelihood")
    rows = rows_with(plan, tmp_path, "terms")
    assert (rows[0]["y"], rows[0]["seeds"], rows[0]["status"]) == ("1.5", "2", "partial")
    assert rows[0]["note"] == "2 of 3 seeds: seed 2 missing"


def test_stale_terms_are_not_plotted(tmp_path):
    figures = terms(("ddpm-cosine", "vlb-small"))
    fill(configured(tmp_path, figures=figures), tmp_path, terms=TERMS)
    plan = configured(tmp_path, figures=figures, training={"lr": 0.5})
    (row,) = rows_with(plan, tmp_path, "terms")
    assert (row["y"], row["status"]) == ("-", "stale")


@pytest.mark.parametrize(
    "content", [{}, {"terms": None}, {"terms": [1, 2], "times": [1]}, {"terms": ["x"]}]
)
def test_a_file_without_terms_is_failed_and_costs_nothing_else(tmp_path, content):
    plan = configured(tmp_path, figures=terms(("ddpm-cosine", "vlb-small")) | curve())
    fill(plan, tmp_path, terms=dict.fromkeys(range(3), content))
    (row,) = rows_with(plan, tmp_path, "terms")
    assert row["status"] == "failed" and "not as expected" in row["note"]
    assert rows_with(plan, tmp_path, "steps", x="10", panel="FID")[0]["status"] == "ok"


def analysis(factor=1.0):
    return {
        "steps": [10, 20],
        "mean_square": [2.0, 4.0],
        "estimators": {
            "vlb": {"noise": [8 * factor, 16.0], "mean_square": [2.0, 4.0]},
            "hybrid": {"noise": [1 * factor, 2.0], "mean_square": [0.5, 0.0]},
        },
        "batch": 128,
        "draws": 64,
    }


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A chart of gradient noise whose seeds 0 and 1 differ by a factor of four; 2 is missing."""
    plan = configured(tmp_path, figures=noise())
    found = {0: Outcome("ok", content=analysis()), 1: Outcome("ok", content=analysis(4.0))}
    monkeypatch.setattr(
        Records,
        "outcomes_of",
        lambda self, *job: {seed: found.get(seed, Outcome("missing")) for seed in SEEDS},
    )
    return found, lambda: charts(plan, tmp_path)["noise"]


def line(chart, panel, label):
    (found,) = [each for each in chart.panels[panel].lines if each.label == label]
    return [(point.x, point.y, point.low, point.high) for point in found.points]


def test_gradient_noise_is_a_geometric_mean_with_its_range(measured):
    chart = measured[1]()
    # Left relative to L_vlb's mean gradient: 8/2 and 32/2, 16/4; right to the estimator's own.
    assert line(chart, 0, "vlb") == [(10, pytest.approx(8), 4, 16), (20, pytest.approx(4), 4, 4)]
    assert line(chart, 0, "hybrid")[0] == (10, pytest.approx(1), 0.5, 2)
    assert line(chart, 0, "hybrid")[1] == (20, pytest.approx(0.5), 0.5, 0.5)
    assert line(chart, 1, "hybrid") == [(10, pytest.approx(4), 2, 8)]
    assert chart.panels[0].lines[0].points[0].note == "2 of 3 seeds: seed 2 missing"
    assert (chart.log, chart.band) == ("y", True)
    assert to_png(chart).startswith(b"\x89PNG")


@pytest.mark.parametrize("broken", [{}, {"estimators": 3}, {"estimators": {"vlb": {}}}])
def test_a_broken_analysis_is_said(measured, broken):
    found, draw = measured
    found[0] = found[1] = Outcome("ok", content=broken)
    chart = draw()
    points = [point for panel in chart.panels for each in panel.lines for point in each.points]
    assert {point.y for point in points} == {None}
    assert to_png(chart).startswith(b"\x89PNG")


@pytest.fixture
def decoded(tmp_path, monkeypatch):
    """A chart of reconstruction errors; seeds 0 and 1 have a file, which may be changed."""
    plan = configured(tmp_path, figures=round_trip())
    contents = {
        0: {"steps": [10, 20, 40], "error": [0.2, 0.05, 0.0], "se": [0.01, 0.01, 0.0]},
        1: {"steps": [10, 20, 40], "error": [0.4, 0.05, 0.1], "se": [0.01, 0.01, 0.0]},
    }

    def read(self, stage, variant, item):
        assert (stage, variant, item) == ("analysis", "ddpm-cosine", "latents")
        there = {seed: Outcome("ok", content=content) for seed, content in contents.items()}
        return dict.fromkeys(SEEDS, Outcome("missing")) | there

    monkeypatch.setattr(Records, "outcomes_of", read)
    return contents, lambda: charts(plan, tmp_path)["trip"]


def test_reconstruction_is_a_mean_with_its_deviation(decoded):
    chart = decoded[1]()
    sd = 0.02**0.5
    assert line(chart, 0, "cosine") == [
        (10, pytest.approx(0.3), pytest.approx(0.3 - sd), pytest.approx(0.3 + sd)),
        (20, pytest.approx(0.05), pytest.approx(0.05), pytest.approx(0.05)),
    ]
    assert (chart.log, [each.name for each in chart.panels]) == (
        "xy",
        ["reconstruction error (per pixel, [0, 1])"],
    )
    assert chart.panels[0].lines[0].points[0].note == "2 of 3 seeds: seed 2 missing"


def test_reconstruction_with_one_seed_has_no_error_bar(decoded):
    del decoded[0][1]
    assert line(decoded[1](), 0, "cosine") == [(10, 0.2, None, None), (20, 0.05, None, None)]


@pytest.mark.parametrize("broken", [{}, {"steps": [1]}, {"steps": [1], "error": [1, 2]}])
def test_a_broken_reconstruction_is_said(decoded, broken):
    contents, draw = decoded
    contents |= {0: broken, 1: broken}
    ((point,),) = [each.points for each in draw().panels[0].lines]
    assert (point.y, point.status) == (None, "failed")
    assert "not as expected" in point.note


def extrapolation(**changes):
    wanted = [
        {"label": "cosine", "variant": "ddpm-cosine", "item": "ddim-5"},
        {"label": "EDM", "variant": "edm", "item": "heun-3"},
        {"label": "VP", "variant": "vp", "item": "heun-3"},
    ]
    return {"fid-n": {"layout": "extrapolation", "title": "N", "series": wanted} | changes}


def with_curves(plan, root, ends):
    """Fill a plan; the solver ddim-5 has a curve over 20 and 40 samples, to these FDs at infinite N, a seed each."""
    fill(plan, root)
    for run in plan.of("score"):
        solvers = {item: scores(FIDS.get(item, SEEDS)[run.seed]) for item in run.spec.samples}
        if "ddim-5" in solvers:
            end = ends[run.seed]
            solvers["ddim-5"]["metrics"] |= {"fd_infinity": {"value": end, "se": 0.25}}
            curve = {"images": [20, 40], "values": [end + 3, end + 1], "line": [end + 2, end + 1]}
            solvers["ddim-5"]["curves"] = {"fd_infinity": curve}
        content = {"solvers": solvers, "protocol": PROTOCOL}
        write_json_product(paths.product(root, run.spec), content, run.spec)


def test_fd_is_extrapolated_to_infinitely_many_samples(tmp_path):
    plan = configured(tmp_path, figures=extrapolation())
    with_curves(plan, tmp_path, [1.0, 3.0, 5.0])
    rows = rows_with(plan, tmp_path, "fid-n", series="cosine")
    assert points_of(rows) == [[0.025, 4, 2, 6], [0.05, 6, 4, 8]]
    end, other = rows_with(plan, tmp_path, "fid-n", series="cosine, fitted")
    assert points_of([end]) == [[0, 3, 1, 5]] and end["seeds"] == "3"
    assert (other["x"], other["y"], other["low"]) == ("0.05", "5", "-")
    (lacking,) = rows_with(plan, tmp_path, "fid-n", series="EDM")
    assert lacking["note"].startswith("its scores have no curve of FD: measures has no fd-infinity")
    (lacking,) = rows_with(plan, tmp_path, "fid-n", series="VP")
    assert lacking["note"] == "this benchmark has no such variant"
    assert picture(tmp_path, "fid-n").size[0] > 5 * DPI


def test_with_one_seed_fd_at_infinite_n_has_its_standard_error(tmp_path):
    plan = configured(tmp_path, figures=extrapolation(), seeds=[0])
    with_curves(plan, tmp_path, [1.0])
    rows = rows_with(plan, tmp_path, "fid-n", series="cosine, fitted")
    assert points_of(rows[:1]) == [[0, 1, 0.75, 1.25]]
    (row, _) = rows_with(plan, tmp_path, "fid-n", series="cosine")
    assert (row["y"], row["low"]) == ("2", "-")


def test_without_any_curve_the_figure_says_why(tmp_path):
    plan = configured(tmp_path, figures=extrapolation())
    rows = rows_with(plan, tmp_path, "fid-n")
    assert [(row["y"], row["status"]) for row in rows] == [("-", "missing")] * 3
    fill(plan, tmp_path)
    chart = charts(plan, tmp_path)["fid-n"]
    assert "no curve" in chart.panels[0].lines[0].points[0].note
    assert to_png(chart).startswith(b"\x89PNG")


def test_a_reconstruction_that_no_job_makes_is_said(tmp_path):
    (row,) = rows_with(configured(tmp_path, figures=round_trip()), tmp_path, "trip")
    assert (row["y"], row["note"]) == ("-", "this benchmark has no such latents")


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [(3, 300, ["5", "10", "20", "50", "100", "200"]), (2, 3, ["2", "2.4"])],
)
def test_a_logarithmic_axis_of_few_decades_has_plain_numbers(low, high, wanted):
    ticks = ticks_between(low, high)
    assert set(wanted) <= set(ticks) and not any("mathdefault" in each for each in ticks)


def test_a_logarithmic_axis_of_many_decades_has_powers_of_ten():
    assert any("10^{-2}" in each for each in ticks_between(1e-4, 1e2))


def ticks_between(low, high):
    axes = Figure().subplots()
    panel = Panel("y", [Line("a", [Point(1, low), Point(2, high)])])
    charting._panel(axes, Chart("T", "x", [panel], log="y"), panel, ["a"])
    axes.figure.draw_without_rendering()
    return [each.get_text() for each in axes.get_yticklabels(which="both")]


@pytest.mark.parametrize(
    "points",
    [
        [Point(1, 2.0)],
        [Point(1, 0.0)],
        [Point(1, -1.0), Point(2, 3.0)],
        [Point(1, 2.0, -1.0, 5.0), Point(2, 2.0, -1.0, 5.0)],
    ],
)
def test_what_a_logarithmic_axis_cannot_show_does_no_harm(points):
    chart = Chart("T", "x", [Panel("y", [Line("a", points)])], log="xy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert to_png(chart).startswith(b"\x89PNG")


def test_values_below_0_are_in_view():
    axes = Figure().subplots()
    panel = Panel("KID", [Line("a", [Point(1, -2.0), Point(2, 3.0)])])
    charting._panel(axes, Chart("T", "x", [panel]), panel, ["a"])
    assert axes.get_ylim()[0] < -2


def test_a_long_legend_takes_nothing_from_the_panels():
    def heights(count):
        lines = [Line(f"a long name of the line {i}", [Point(1, 2.0)]) for i in range(count)]
        chart = Chart("T", "x", [Panel(f"p{i}", lines) for i in range(2)])
        frame = charting.frame_of(chart)
        figure = Figure(frame.size)
        charting.draw(chart, figure, frame.grid(figure))
        figure.draw_without_rendering()
        boxes = [axes.get_window_extent() for axes in figure.axes]
        (legend,) = figure.legends
        assert legend.get_window_extent().y1 < min(box.y0 for box in boxes)
        return min(box.height for box in boxes)

    assert heights(14) >= heights(3)


def test_the_same_chart_gives_the_same_bytes_whatever_the_users_style(tmp_path):
    points = [Point(x, 2.0 + x, 1.5 + x, 2.5 + x, 3) for x in range(3)]
    chart = Chart("T", "x", [Panel("y", [Line("a", points)])], log="y", band=True, note="n")
    picture = to_png(chart)
    assert b"Software" not in picture and b"tIME" not in picture
    style = tmp_path / "matplotlibrc"
    style.write_text("lines.linewidth: 9\nbackend: svg\nfont.size: 30\n")
    code = (
        "import sys; from diffbench.reporting.charts import *;"
        "points = [Point(x, 2.0 + x, 1.5 + x, 2.5 + x, 3) for x in range(3)];"
        "chart = Chart('T', 'x', [Panel('y', [Line('a', points)])], log='y', band=True, note='n');"
        "sys.stdout.buffer.write(to_png(chart))"
    )
    environment = {"MATPLOTLIBRC": str(style), "MPLCONFIGDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, cwd=REPOSITORY, env=environment
    )
    assert done.stdout == picture, done.stderr.decode()


def test_the_csv_holds_what_is_plotted():
    points = [Point(1, 2.5, 2, 3, 3), Point(2, status="failed", note="why")]
    text = to_csv("f", Chart("T", "x", [Panel("p", [Line("a", points)])]))
    assert text.splitlines() == [
        "figure,panel,series,x,y,low,high,seeds,status,note",
        "f,p,a,1,2.5,2,3,3,ok,-",
        "f,p,a,2,-,-,-,0,failed,why",
    ]


@pytest.mark.parametrize("panels", [1, 2, 3, 4, 5])
def test_any_number_of_panels_and_lines_can_be_drawn(panels):
    lines = [Line(f"a long name of the line {i}", [Point(1, 2.0), Point(2, 3.0)]) for i in range(9)]
    picture = to_png(Chart("T", "x", [Panel(f"p{i}", lines) for i in range(panels)]))
    assert Image.open(io.BytesIO(picture)).size[0] > 5 * DPI


@pytest.mark.parametrize(
    ("figures", "named"),
    [
        (curve(metrics=["fidd"]), "figure steps names the metric 'fidd'; did you mean 'fid'?"),
        (curve(layout="curv"), "'curv' is not a known figure; did you mean 'curve'?"),
        (curve(serie=[]), "did you mean 'series'"),
        (curve(metrics=[]), "figures.steps.metrics"),
        (nfe(metric="fidd"), "figure nfe names the metric 'fidd'; did you mean 'fid'?"),
        (nfe(series={"DDIM": []}), "figures.nfe.series.DDIM"),
        (nfe(variants=[]), "figures.nfe.variants"),
    ],
)
def test_a_wrong_figure_is_one_line_and_writes_nothing(tmp_path, figures, named):
    plan = configured(tmp_path, figures=figures)
    with pytest.raises(PlanError, match=r"^[^\n]*$") as error:
        make(plan, tmp_path / "results")
    assert named in str(error.value)
    assert not (tmp_path / "results").exists()


def test_an_unknown_figure_is_refused(tmp_path):
    plan = configured(tmp_path, figures=curve())
    configured(tmp_path, figures={"other": curve()["steps"]})
    with pytest.raises(PlanError, match=r"figures: no figure 'steps' in .*; known: other"):
        make(plan, tmp_path / "results")


def test_the_shipped_figures_can_be_made_of_nothing(tmp_path):
    known = layout.read_tables(REPOSITORY)
    plan = plan_of(figures=list(known.figures), tables=[])
    made = [
        path.suffix for path in make(plan, tmp_path) if path.stem not in (exports.NAME, "index")
    ]
    assert made == [".png", ".csv"] * len(known.figures)


def test_figures_load_matplotlib_only_to_draw():
    code = (
        "import sys, diffbench.reporting.tables, diffbench.reporting.figures; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert not {"torch", "pandas", "matplotlib", "scipy"} & set(done.stdout.split())


def analysed(folder, **benchmark):
    """A benchmark of one variant with an analysis; its results hold a file of it for seeds 0, 1."""
    solvers = dict.fromkeys(["ancestral-100", "ancestral-25", "ddim-25"], "none")
    variant = {
        "process": {"steps": 20},
        "solvers": solvers,
        "analyses": {"gradient-noise": {"name": "gradient-noise"}},
    }
    figure = noise()
    figure["noise"]["variant"] = "iddpm-hybrid"
    wanted = {"variants": ["iddpm-hybrid"], "overrides": {"iddpm-hybrid": variant}}
    return configured(folder, figures=figure, **wanted | benchmark)


def write_analysis(plan, root, seed):
    run = plan.job("analysis", "iddpm-hybrid", seed, "gradient-noise")
    write_json_product(paths.product(root, run.spec), analysis(4.0**seed), run.spec)


def test_an_analysis_is_read_from_its_file(tmp_path):
    plan = analysed(tmp_path)
    write_analysis(plan, tmp_path, 0)
    write_analysis(plan, tmp_path, 1)
    rows = rows_with(plan, tmp_path, "noise", series="vlb", x="10")
    assert points_of(rows) == [[10, 8, 4, 16], [10, 8, 4, 16]]
    assert rows[0]["note"] == "2 of 3 seeds: seed 2 missing"


def test_a_stale_or_altered_analysis_is_said(tmp_path):
    write_analysis(analysed(tmp_path), tmp_path, 0)
    plan = analysed(tmp_path, training={"lr": 0.5}, seeds=[0])
    assert {row["status"] for row in rows_with(plan, tmp_path, "noise")} == {"stale"}
    plan = analysed(tmp_path, seeds=[0])
    path = paths.product(tmp_path, plan.job("analysis", "iddpm-hybrid", 0, "gradient-noise").spec)
    path.write_text(path.read_text().replace("16", "17"))
    (first, *_) = rows_with(plan, tmp_path, "noise")
    assert first["status"] == "failed" and "sha256" in first["note"]
