"""Comparisons of two results, or of two variants: the numbers of known truths, and what is not compared."""

import html
import math

import numpy as np
import pytest
from commands import REPOSITORY
from layouts import configured, fill
from scipy import stats

from diffbench import cli
from diffbench.reporting import exports, inference, layout
from diffbench.reporting.compare import Comparison, compare, spec_differences, table
from diffbench.reporting.exports import COLUMNS, typed
from diffbench.reporting.formats import to_markdown
from diffbench.reporting.numbers import plain
from diffbench.reporting.records import Records
from diffbench.reporting.tables import make
from diffbench.reporting.web.versus import versus
from diffbench.store import paths

BETTER = {"fid": "lower", "is": "higher", "nfe": None}


def frame(values, metric="fid", first_seed=0, variant="vp", **columns):
    """Rows of an export with one value a seed."""
    row = dict.fromkeys(COLUMNS, "") | {"variant": variant, "stage": "sample", "item": "heun"}
    row |= {"metric": metric, "status": "ok", "samples": "100", "protocol": "p"}
    value = columns.pop("value", None)
    rows = [
        row | {"seed": str(seed), "value": repr(float(value))} | columns
        for seed, value in enumerate(values, start=first_seed)
    ]
    made = typed(rows)
    return made if value is None else made.assign(value=value)


def one(a, b, **options):
    """The only cell of a comparison."""
    (cell,) = compare(a, b, BETTER, names=("a", "b"), **options).cells
    return cell


def test_pairs_are_of_one_seed_and_tested_by_students_t():
    a, b = [3.0, 5.0, 4.0, 8.0], [2.5, 4.2, 3.4, 7.6]
    cell = one(frame(a), frame(b))
    wanted = stats.ttest_rel(a, b)
    assert (cell.paired, cell.seeds) == (True, 4)
    assert cell.effect == pytest.approx(np.mean(a) - np.mean(b))
    assert cell.p == cell.adjusted == pytest.approx(wanted.pvalue, rel=1e-12)
    assert (cell.low, cell.high) == pytest.approx(
        tuple(wanted.confidence_interval(0.95)), rel=1e-12
    )
    assert cell.verdict == "better"
    assert one(frame(b), frame(a)).verdict == "worse"


def test_seeds_that_one_side_lacks_are_left_out():
    cell = one(frame([1.0, 2.0, 3.0, 99.0]), frame([1.5, 2.0, 3.5]))
    assert cell.seeds == 3 and cell.a == 2.0


def test_without_a_common_seed_it_is_welchs_test():
    a, b = [3.0, 5.0, 4.0, 8.0], [2.5, 1.2, 0.4]
    cell = one(frame(a), frame(b, first_seed=10))
    wanted = stats.ttest_ind(a, b, equal_var=False)
    assert (cell.paired, cell.seeds) == (False, 3)
    assert cell.p == pytest.approx(wanted.pvalue, rel=1e-12)
    interval = wanted.confidence_interval(0.95)
    assert (cell.low, cell.high) == pytest.approx((interval.low, interval.high), rel=1e-12)


def test_welch_of_sides_that_do_not_vary():
    assert inference.welch([1, 1], [1, 1]) == (0, 0, 1.0)
    assert inference.welch([1, 1], [3, 3]) == (2, 2, 0.0)


def test_higher_is_better_where_the_metric_says_so_and_else_nothing_is():
    up = [1.0, 2.0, 3.1, 4.2], [2.0, 3.1, 4.0, 5.1]
    assert one(*(frame(each, "is") for each in up)).verdict == "better"
    assert one(*(frame(each, "fid") for each in up)).verdict == "worse"
    cell = one(*(frame(each, "nfe") for each in up))
    assert cell.verdict == "different" and cell.effect > 0


@pytest.mark.parametrize("first_seed", [0, 10])
@pytest.mark.parametrize("count", [1, 2])
def test_no_p_value_below_three_pairs_and_it_says_so(count, first_seed):
    found = compare(
        frame([1.0, 2.0][:count]),
        frame([9.0, 9.5][:count], first_seed=first_seed),
        BETTER,
        names=("a", "b"),
    )
    (cell,) = found.cells
    assert (cell.p, cell.low, cell.verdict) == (None, None, "too few")
    assert "no p value below 3" in cell.note and cell.effect is not None
    assert found.status == 2


def test_a_repeated_run_is_the_same():
    found = compare(frame([1.0, 2.0]), frame([1.0, 2.0]), BETTER, names=("a", "b"))
    assert found.cells[0].verdict == "the same" and found.status == 0


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"samples": "50"}, "N differs: 100 in A, 50 in B"),
        ({"protocol": "q"}, "protocol differs: p in A, q in B"),
        ({"status": "failed", "reason": "out of memory"}, "B, seed 0: failed: out of memory"),
        ({"value": math.nan}, "B, seed 0: the value is nan"),
        ({"value": math.inf}, "B, seed 0: the value is inf"),
    ],
)
def test_what_is_not_alike_is_listed_and_not_compared(changed, why):
    found = compare(
        frame([1.0, 2.0, 3.0]), frame([1.1, 2.3, 3.2], **changed), BETTER, names=("a", "b")
    )
    (cell,) = found.cells
    assert (cell.verdict, cell.note, cell.effect) == ("not compared", why, None)
    assert why in to_markdown(table(found)) and found.status == 2


def test_a_cell_of_one_side_is_listed():
    found = compare(frame([1.0]), frame([1.0], variant="ve"), BETTER, names=("a", "b"))
    assert [each.note for each in found.cells] == ["B has no such cell", "A has no such cell"]


def test_times_are_compared_only_where_they_are_asked_for():
    sides = frame([1.0, 2.0, 3.0], "train_seconds"), frame([2.0, 3.0, 4.5], "train_seconds")
    assert compare(*sides, BETTER, names=("a", "b")).cells == []
    assert one(*sides, metrics=["train_seconds"]).verdict == "different"


def rejected(differences):
    """For each draw of differences (draws, seeds), whether its p value alone, not adjusted, is at most 5 %."""
    import pandas as pd

    names = [f"v{i}" for i in range(len(differences))]
    zeros = frame(np.zeros(differences.shape[1]))
    whole = pd.concat([zeros] * len(differences), ignore_index=True)
    whole["variant"] = np.repeat(names, differences.shape[1])
    found = compare(whole, whole.assign(value=differences.ravel()), BETTER, names=("a", "b"))
    return np.array([each.p <= 0.05 for each in found.cells])


def test_five_percent_of_true_hypotheses_are_rejected_and_four_fifths_of_false_ones():
    """Over 1,000 draws of five normal differences.

    A rate of 5 % has a standard deviation of .7 %: 2 to 7.3 % is 3.3 of them either side. At an effect of 1.8 standard
    deviations of the differences, by the noncentral t distribution, the power is 85 %.
    """
    random = np.random.RandomState(0)
    null = random.standard_normal((1000, 5))
    assert 0.02 <= rejected(null).mean() <= 0.073
    power = 1 - stats.nct.cdf(stats.t.ppf(0.975, 4), 4, 1.8 * math.sqrt(5))
    assert power == pytest.approx(0.85, abs=0.01)
    found = rejected(null + 1.8).mean()
    # Three standard deviations of a share of 1,000.
    assert found == pytest.approx(power, abs=3 * math.sqrt(power * (1 - power) / 1000))
    assert found >= 0.8


def test_many_cells_are_judged_together():
    """Twenty tests at p = .02 each are no finding: Holm's smallest is .4."""
    import pandas as pd

    a, b = [0.0] * 4, [1.0, 1.1, 0.5, 1.9]
    alone = one(frame(a), frame(b))
    assert alone.verdict == "worse" and alone.p is not None
    sides = [
        pd.concat([frame(each, variant=f"v{i}") for i in range(20)], ignore_index=True)
        for each in (a, b)
    ]
    found = compare(*sides, BETTER, names=("a", "b"))
    assert {each.p for each in found.cells} == {alone.p}
    assert [each.adjusted for each in found.cells] == pytest.approx([20 * alone.p] * 20)
    assert {each.verdict for each in found.cells} == {"no difference seen"}


def test_the_keys_in_which_specs_differ_are_named():
    a, b = (
        {"training": {"steps": 5, "lr": 1}, "x": [1]},
        {"training": {"steps": 6, "lr": 1}, "y": {"z": 2}},
    )
    assert spec_differences(a, b) == [
        "training.steps: 5 in A, 6 in B",
        "x: [1] in A, nothing in B",
        "y: nothing in A, {'z': 2} in B",
    ]


@pytest.fixture
def two_results(tmp_path):
    """Two results folders; in the second one solver of EDM is much worse, and another one seed's file is damaged."""
    folders = tmp_path / "before", tmp_path / "after"
    worse = {
        "ancestral-10": [2.0, 3.0, 4.0],
        "ddim-5": [12.0, 13.5, 14.0],
        "heun-3": [42.5, 42.0, 45.1],
    }
    for folder, fids in zip(folders, (None, worse), strict=True):
        folder.mkdir()
        plan = configured(folder)
        fill(plan, folder, fids)
        make(plan, folder)
    return folders


def test_two_folders_are_compared_by_the_command(two_results, capsys, tmp_path):
    a, b = map(str, two_results)
    assert cli.main(["compare", a, b, "--metric", "fid"]) == 0
    said = capsys.readouterr().out
    lines = {
        line.split("|")[1].strip(): line for line in said.splitlines() if line.startswith("| ")
    }
    assert "worse" in lines["edm heun-3"] and "the same" in lines["ddpm-cosine ddim-5"]
    assert cli.main(["compare", a, b, "--metric", "fid", "--fail-if-worse"]) == 1
    assert (
        cli.main(
            [
                "compare",
                a,
                a,
                "--metric",
                "fid",
                "--fail-if-worse",
                "--write",
                str(tmp_path / "c.csv"),
            ]
        )
        == 0
    )
    assert (tmp_path / "c.csv").read_text().startswith("variant,stage,item,at,metric,seeds")


def test_the_page_has_every_cell_its_interval_and_what_differs(two_results, tmp_path, capsys):
    a, b = map(str, two_results)
    path = tmp_path / "c.html"
    assert cli.main(["compare", a, b, "--metric", "fid", "--page", str(path)]) == 0
    page = path.read_text().partition("<body>")[2].partition('<script type="module">')[0]
    exported = [exports.read(each) for each in two_results]
    found = compare(*(each.frame for each in exported), BETTER, names=(a, b), metrics=["fid"])
    intervals = [each for each in found.compared if each.low is not None]
    assert len(intervals) == page.count("<svg") > 0
    for each in intervals:
        assert each.effect is not None and each.low is not None and each.high is not None
        # The text of a chart has three significant digits.
        words = f"{plain(each.effect)} ({plain(each.low)} to {plain(each.high)})"
        assert f'aria-label="{words}"' in page
    assert page.count('<td class="worse">worse</td>') == len(found.of("worse")) == 1
    rows = page.partition("<tbody>")[2].partition("</tbody>")[0].count("<tr>")
    assert rows == len(found.compared)
    for title in ("Settings and variants", "Protocol", "Environment"):
        assert f"<h3>{title}</h3>" in page
    assert "http" not in page


def test_the_page_lists_what_is_not_compared_and_escapes_it():
    hostile = "</script><script>alert(1)</script>"
    sides = frame([1.0, 2.0], variant=hostile), frame([1.5, 2.5], variant=hostile, protocol="q")
    found = compare(
        *sides, BETTER, names=(hostile, "b"), differences=[hostile, f"environment: {hostile}"]
    )
    page = versus(found)
    assert hostile not in page and "No cell could be compared" in page
    assert "protocol differs: p in A, q in B (1 cell)" in page
    # The title, the side, two differences and the cell.
    assert page.count(html.escape(hostile)) == 5


def test_words_of_a_comparison_are_no_formulas_in_its_csv():
    found = compare(
        frame([1.0], variant="=1+1"), frame([2.0], variant="=1+1"), BETTER, names=("a", "b")
    )
    assert found.cells[0].line("")["variant"] == "'=1+1"
    assert found.cells[0].line("")["effect"] == "-1"
    alone = compare(frame([1.0]), frame([2.0]), BETTER, names=("a", "b"), by_variant=False)
    assert alone.cells[0].line("")["variant"] == "-"


def test_parquet_and_csv_of_one_export_are_the_same(tmp_path, capsys):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: make test")
    plan = configured(tmp_path)
    fill(plan, tmp_path)
    records, metrics = Records(plan, tmp_path), layout.of_plan(plan).metrics
    sides = [tmp_path / "one.csv", tmp_path / "other.parquet"]
    for path in sides:
        exports.write(records, metrics, path)
    assert cli.main(["compare", *map(str, sides), "--metric", "fid", "--fail-if-worse"]) == 0
    assert "the same" in capsys.readouterr().out


def test_a_changed_export_is_refused(two_results, capsys):
    a, b = two_results
    path = paths.table(b, exports.NAME, "csv")
    path.write_text(path.read_text().replace(",42.5,", ",2.5,"))
    assert cli.main(["compare", str(a), str(b)]) == 1
    assert "the row was changed after it was exported" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        (["no-such", "neither"], "no-such: no such file, and no variant of"),
        ([".", "no-such"], "no-such: there is no such results folder or export"),
    ],
)
def test_sides_that_do_not_exist_are_named(sides, said, capsys, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    assert cli.main(["compare", *sides]) == 1
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1


def test_two_variants_of_one_benchmark(tmp_path, monkeypatch, capsys):
    plan = configured(tmp_path)
    results = tmp_path / plan.root
    fill(plan, results)
    monkeypatch.chdir(tmp_path)
    one, other = "edm", "ddpm-cosine"
    assert {one, other} <= plan.variants.keys()
    config = str(REPOSITORY / "examples" / "tiny.yaml")
    seeds = ["--set", "seeds=[0, 1, 2]"]
    assert cli.main(["compare", one, other, "--config", config, *seeds]) == 0
    said = capsys.readouterr().out
    assert "Differs: process.name: edm in A, discrete in B" in said
    assert "A has no such cell" in said


def test_nothing_in_common_is_status_2():
    assert Comparison("a", "b", []).status == 2
