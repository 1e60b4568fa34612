"""Claims: effects and intervals against numbers made by hand, and each verdict."""

from dataclasses import replace

import pytest
from layouts import FIDS, REPOSITORY, configured, fill, grid_row, rows_of
from scipy.stats import ttest_rel
from test_reporting import fail, plan_of, remove

from diffbench.plan.reading import PlanError
from diffbench.reporting import layout
from diffbench.reporting.claims import CLAIMS, chosen, read_claims
from diffbench.reporting.tables import make, outputs, table_params
from diffbench.reporting.verdicts import COLUMNS, interval
from diffbench.store import paths

ANCESTRAL = {"variant": "ddpm-cosine", "solver": "ancestral-10", "metric": "fid"}
DDIM = {"variant": "ddpm-cosine", "solver": "ddim-5", "metric": "fid"}
HEUN = {"variant": "edm", "solver": "heun-3", "metric": "fid"}
BITS = {"variant": "ddpm-cosine", "likelihood": "vlb-small", "metric": "bits_per_dim"}


def claim(better=ANCESTRAL, worse=DDIM, direction="lower", **more):
    return {
        "claim": "Many steps are better than few",
        "source": "Somebody 2020, table 1",
        "better": better,
        "worse": worse,
        "direction": direction,
    } | more


def plan_with(folder, one=None, **benchmark):
    plan = configured(folder, claims={"one": one or claim()}, **benchmark)
    return replace(plan, benchmark=plan.benchmark.model_copy(update={"claims": ["one"]}))


def verdict(plan, root):
    make(plan, root)
    (row,) = rows_of(paths.table(root, "claims", "csv"))
    return row


def numbers(row):
    return [float(row[key]) for key in ("better_mean", "worse_mean", "effect", "low", "high")]


@pytest.mark.parametrize(
    ("effects", "t"),
    [([1.0, 2.0, 3.0], 4.303), ([0.0, 1.0, 2.0, 3.0, 4.0], 2.776), ([0.0, 1.0], 12.706)],
)
def test_the_interval_is_students(effects, t):
    """The quantiles t are a printed table's."""
    n = len(effects)
    mean = sum(effects) / n
    sd = (sum((each - mean) ** 2 for each in effects) / (n - 1)) ** 0.5
    low, high = interval(effects)
    assert (low + high) / 2 == pytest.approx(mean)
    assert (high - low) / 2 == pytest.approx(t * sd / n**0.5, rel=2e-4)


def test_the_interval_agrees_with_scipys_paired_test(tmp_path):
    fill(plan_with(tmp_path), tmp_path)
    found = numbers(verdict(plan_with(tmp_path), tmp_path))
    whole = ttest_rel(FIDS["ddim-5"], FIDS["ancestral-10"]).confidence_interval(0.95)
    assert found[3:] == pytest.approx(list(whole), rel=1e-5)


def test_a_claim_that_holds(tmp_path):
    plan = plan_with(tmp_path)
    fill(plan, tmp_path)
    row = verdict(plan, tmp_path)
    assert tuple(row) == COLUMNS
    # Differences 10, 10.5, 10: sd 0.2887, half width 4.3027 * 0.2887 / sqrt(3) = 0.7171.
    assert numbers(row) == pytest.approx([3, 13.1667, 10.1667, 9.4496, 10.8838], abs=1e-4)
    assert (row["verdict"], row["seeds"], row["note"]) == ("holds", "3", "-")
    assert (row["better"], row["worse"]) == ("ddpm-cosine ancestral-10", "ddpm-cosine ddim-5")
    text = paths.table(tmp_path, "claims", "md").read_text()
    assert "## Somebody 2020" in text and "9.45 to 10.88" in text
    assert "Verdicts: holds 1." in text and "A finding" not in text
    assert "[1] one (Somebody 2020, table 1): better ddpm-cosine ancestral-10, worse" in text


def test_a_claim_that_does_not_hold_is_a_finding(tmp_path):
    plan = plan_with(tmp_path, claim(better=DDIM, worse=ANCESTRAL))
    fill(plan, tmp_path)
    row = verdict(plan, tmp_path)
    assert numbers(row)[2:] == pytest.approx([-10.1667, -10.8838, -9.4496], abs=1e-4)
    assert row["verdict"] == "contradicted"
    text = paths.table(tmp_path, "claims", "md").read_text()
    finding = "it does not hold that many steps are better than few (Somebody 2020, table 1)."
    assert f"A finding, at this scale: {finding}" in text


def test_higher_may_be_better(tmp_path):
    plan = plan_with(tmp_path, claim(better=DDIM, worse=ANCESTRAL, direction="higher"))
    fill(plan, tmp_path)
    assert verdict(plan, tmp_path)["verdict"] == "holds"


def test_an_interval_about_nothing_is_undecided(tmp_path):
    # Differences 0.5, -1, 1.
    plan = plan_with(tmp_path, claim(worse=HEUN))
    fill(plan, tmp_path)
    row = verdict(plan, tmp_path)
    assert row["verdict"] == "undecided"
    assert float(row["low"]) < 0 < float(row["high"])


@pytest.mark.parametrize(
    ("margin", "wanted"), [(9.4, "holds"), (9.5, "undecided"), (11, "contradicted")]
)
def test_a_margin_is_the_least_effect(tmp_path, margin, wanted):
    plan = plan_with(tmp_path, claim(margin=margin))
    fill(plan, tmp_path)
    assert verdict(plan, tmp_path)["verdict"] == wanted


def test_several_cells_are_averaged_with_each_seed(tmp_path):
    plan = plan_with(tmp_path, claim(better=[ANCESTRAL, HEUN]))
    fill(plan, tmp_path)
    row = verdict(plan, tmp_path)
    # Averages 2.25, 2.5, 4.5; differences 9.75, 11, 9.5.
    assert numbers(row)[:3] == pytest.approx([3.08333, 13.1667, 10.0833], abs=1e-4)
    assert row["better"] == "mean of ddpm-cosine ancestral-10 and edm heun-3"


def test_too_few_seeds_leave_it_undecided(tmp_path):
    plan = plan_with(tmp_path, claim(seeds=4))
    fill(plan, tmp_path)
    row = verdict(plan, tmp_path)
    assert (row["verdict"], row["note"]) == ("undecided", "3 of at least 4 seeds")
    assert numbers(row)[3:] == pytest.approx([9.4496, 10.8838], abs=1e-4)


def test_one_seed_has_an_effect_and_no_interval(tmp_path):
    plan = plan_with(tmp_path, seeds=[1])
    fill(plan, tmp_path)
    row = verdict(plan, tmp_path)
    assert (row["effect"], row["low"], row["high"]) == ("10.5", "-", "-")
    assert (row["verdict"], row["note"]) == ("undecided", "1 of at least 3 seeds")


def test_only_seeds_that_both_have_count(tmp_path):
    plan = plan_with(tmp_path, claim(worse=HEUN, seeds=2))
    fill(plan, tmp_path)
    remove(plan_of(seeds=[2]), tmp_path, "score", "sample", variant="edm")
    row = verdict(plan, tmp_path)
    assert (row["seeds"], row["effect"]) == ("2", "-0.25")
    assert row["note"] == "edm heun-3: 2 of 3 seeds: seed 2 missing"


def test_a_cell_without_a_value_is_missing_with_its_reason(tmp_path):
    plan = plan_with(tmp_path, claim(worse=HEUN), seeds=[0])
    fill(plan, tmp_path)
    remove(plan, tmp_path, "train", "sample", "score", variant="edm")
    fail(plan, tmp_path, "train", "diverged", variant="edm")
    row = verdict(plan, tmp_path)
    assert (row["verdict"], row["effect"], row["seeds"]) == ("missing", "-", "0")
    assert row["note"] == "edm heun-3: failed: train: diverged"
    text = paths.table(tmp_path, "claims", "md").read_text()
    assert grid_row(text, "Many")[-1] == "– [2]"


def test_stale_cells_do_not_count(tmp_path):
    fill(plan_with(tmp_path), tmp_path)
    row = verdict(plan_with(tmp_path, training={"lr": 0.5}), tmp_path)
    assert row["verdict"] == "missing"
    assert row["note"].startswith("ddpm-cosine ancestral-10: stale: ")


def test_what_the_benchmark_lacks_is_missing(tmp_path):
    plan = plan_with(tmp_path, claim(worse=HEUN | {"variant": "vp"}))
    fill(plan, tmp_path)
    assert verdict(plan, tmp_path)["note"] == "vp heun-3: no such variant in this benchmark"


def test_bits_belong_to_likelihoods(tmp_path):
    plan = plan_with(tmp_path, claim(better=BITS, worse=BITS | {"likelihood": "vlb-large"}))
    fill(plan, tmp_path)
    row = verdict(plan, tmp_path)
    assert row["note"] == "ddpm-cosine vlb-large: no such vlb-large in this benchmark"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (claim(better=BITS | {"solver": "ddim-5"}), "bits_per_dim belongs to a likelihood"),
        (claim(better={"variant": "edm", "metric": "fid"}), "fid belongs to a solver"),
        (claim(worse=HEUN | {"metric": "is"}), "about one metric, not about fid and is"),
        (claim(direction="up"), "'up' is none of lower, higher"),
        (claim(direktion="up"), "did you mean 'direction'"),
        (claim(better=[]), "one.better"),
        (claim(seeds=1), "one.seeds"),
        (
            claim(better=HEUN | {"metric": "fids"}, worse=DDIM | {"metric": "fids"}),
            "no metric 'fids'; did you mean 'fid'?",
        ),
    ],
)
def test_a_wrong_claim_is_one_line_and_writes_nothing(tmp_path, wrong, named):
    plan = plan_with(tmp_path, wrong)
    with pytest.raises(PlanError, match=r"^[^\n]*$") as error:
        make(plan, tmp_path / "results")
    assert named in str(error.value) and "claims.yaml:" in str(error.value)
    assert not (tmp_path / "results").exists()


def test_patterns_choose_claims_and_unknown_ones_are_refused(tmp_path):
    claims = {name: claim() for name in ("ddpm-a", "ddpm-b", "cfg-a")}
    configured(tmp_path, claims=claims)
    known = read_claims(tmp_path, {"fid"})
    assert list(chosen(known, ["cfg-a", "ddpm-*"])) == ["cfg-a", "ddpm-a", "ddpm-b"]
    with pytest.raises(PlanError, match=r"no claim 'dppm-a' in .*; did you mean 'ddpm-a'\?"):
        chosen(known, ["dppm-a"])


def test_claims_are_read_only_where_they_are_asked_for(tmp_path):
    plan = configured(tmp_path)
    assert "claims" not in table_params(plan)
    assert outputs(plan, tmp_path) == []
    plan = plan_with(tmp_path)
    assert [path.name for path in outputs(plan, tmp_path)] == [
        f"claims.{suffix}" for suffix in ("csv", "md", "tex")
    ]
    before = table_params(plan)
    (tmp_path / CLAIMS).write_text((tmp_path / CLAIMS).read_text() + "# a remark\n")
    assert table_params(plan) == before
    assert table_params(plan_with(tmp_path, claim(margin=1))) != before


def test_no_table_is_called_claims(tmp_path):
    table = {"name": "overview", "title": "x", "metrics": ["fid"]}
    plan = configured(tmp_path, {"claims": table})
    with pytest.raises(PlanError, match="no table can be called 'claims'"):
        make(plan, tmp_path / "results")


def test_the_shipped_claims_are_valid():
    known = layout.read_tables(REPOSITORY)
    claims = read_claims(REPOSITORY, known.metrics)
    assert claims
    for each in claims.values():
        assert each.claim[0].isupper() and not each.claim.endswith(".")
        assert {cell.item for cell in each.better + each.worse}
