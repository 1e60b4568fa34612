"""Claims: effects and intervals against numbers made by hand, and each verdict."""

from dataclasses import replace

import pytest
from layouts import FIDS, REPOSITORY, configured, fill, grid_row, rows_of
from scipy.stats import ttest_1samp, ttest_rel
from test_reporting import fail, plan_of, remove

from diffbench.reporting import layout
from diffbench.reporting.claims import CLAIMS, chosen, read_claims
from diffbench.reporting.claims_table import COLUMNS
from diffbench.reporting.inference import holm, interval, p_value
from diffbench.reporting.layout import MetricSpec
from diffbench.reporting.tables import make, outputs, table_params
from diffbench.specs.errors import PlanError
from diffbench.store import files, paths

ANCESTRAL = {"variant": "ddpm-cosine", "item": "ancestral-10", "metric": "fid"}
DDIM = {"variant": "ddpm-cosine", "item": "ddim-5", "metric": "fid"}
HEUN = {"variant": "edm", "item": "heun-3", "metric": "fid"}
BITS = {"variant": "ddpm-cosine", "item": "vlb-small", "metric": "bits_per_dim"}


def claim(better=ANCESTRAL, worse=DDIM, **more):
    return {
        "claim": "Many steps are better than few",
        "source": "Somebody 2020, table 1",
        "better": better,
        "worse": worse,
    } | more


def plan_with(folder, one=None, **benchmark):
    plan = configured(folder, claims={"one": one or claim()}, **benchmark)
    return replace(plan, benchmark=plan.benchmark.model_copy(update={"claims": ["one"]}))


def family(folder, claims, **benchmark):
    """A benchmark that tests these claims."""
    plan = configured(folder, claims=claims, **benchmark)
    return replace(plan, benchmark=plan.benchmark.model_copy(update={"claims": list(claims)}))


def verdicts(plan, root):
    make(plan, root)
    return {row["id"]: row for row in rows_of(paths.table(root, "claims", "csv"))}


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


def test_the_p_value_is_scipys_of_the_paired_test(tmp_path):
    fill(plan_with(tmp_path), tmp_path)
    row = verdict(plan_with(tmp_path), tmp_path)
    expected = ttest_rel(FIDS["ddim-5"], FIDS["ancestral-10"]).pvalue
    assert float(row["p"]) == pytest.approx(expected, rel=1e-5)
    # Of a family of one the adjusted p value is the p value.
    assert row["p_adjusted"] == row["p"]
    margin = verdict(plan_with(tmp_path, claim(margin=9)), tmp_path)
    effects = [w - b - 9 for w, b in zip(FIDS["ddim-5"], FIDS["ancestral-10"], strict=True)]
    assert float(margin["p"]) == pytest.approx(ttest_1samp(effects, 0).pvalue, rel=1e-5)


@pytest.mark.parametrize(("effects", "p"), [([1.0, 1.0], 0.0), ([0.5, 0.5, 0.5], 1.0)])
def test_effects_that_are_one_number(effects, p):
    assert p_value(effects, 0.5) == p


def test_holm_is_as_in_the_textbook():
    """Worked by hand: 4 x .01, 3 x .02, then 2 x .022 and .09 are raised to no less than those before them."""
    found = holm({"d": 0.09, "b": 0.02, "a": 0.01, "c": 0.022})
    assert found == pytest.approx({"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.09})
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


#: p values of claims of their own margins: .0003, .0136 and .026; the third's is .16.
FAMILY = {
    "clear": claim(),
    "less": claim(margin=9.1),
    "hardly": claim(margin=9.3),
    "open": claim(margin=9.9),
}


def test_verdicts_are_adjusted_over_the_claims_of_a_file(tmp_path):
    """With claims beside it one that would hold by its own p value is undecided."""
    plan = family(tmp_path, FAMILY)
    fill(plan, tmp_path)
    found = verdicts(plan, tmp_path)
    p = {name: float(row["p"]) for name, row in found.items()}
    adjusted = {name: float(row["p_adjusted"]) for name, row in found.items()}
    assert p["clear"] < 0.001 and p["less"] < p["hardly"] < 0.05 < p["open"]
    assert adjusted["clear"] == pytest.approx(4 * p["clear"], rel=1e-4)
    assert adjusted["less"] == pytest.approx(3 * p["less"], rel=1e-4)
    assert {name: row["verdict"] for name, row in found.items()} == {
        "clear": "holds",
        "less": "undecided",
        "hardly": "undecided",
        "open": "undecided",
    }
    alone = verdict(plan_with(tmp_path, FAMILY["less"]), tmp_path)
    assert alone["verdict"] == "holds"
    text = paths.table(tmp_path, "claims", "md").read_text()
    assert "adjusted over the 1 claims that could be tested" in text


def test_exploratory_claims_are_a_group_and_no_part_of_the_family(tmp_path):
    claims = {"clear": FAMILY["clear"], "less": FAMILY["less"] | {"exploratory": True}}
    plan = family(tmp_path, claims)
    fill(plan, tmp_path)
    found = verdicts(plan, tmp_path)
    assert found["clear"]["p_adjusted"] == found["clear"]["p"]
    assert (found["less"]["p_adjusted"], found["less"]["verdict"]) == ("-", "holds")
    assert [row["exploratory"] for row in found.values()] == ["no", "yes"]
    text = paths.table(tmp_path, "claims", "md").read_text()
    assert text.index("## Somebody 2020") < text.index("## Exploratory")


SATURATED = {"needs": [{"data": "saturated", "below": 0.2}]}


@pytest.mark.parametrize(
    ("share", "wanted", "note"),
    [
        (0.1, "holds", "-"),
        (
            0.2,
            "untestable",
            "0.2 of the data's pixels are saturated, and the claim needs below 0.2",
        ),
        (
            0.58,
            "untestable",
            "0.58 of the data's pixels are saturated, and the claim needs below 0.2",
        ),
        (
            None,
            "untestable",
            "the manifest of the data set does not say how many pixels are saturated",
        ),
    ],
)
def test_data_that_cannot_tell_make_a_claim_untestable(tmp_path, share, wanted, note):
    """Whatever the numbers are: the condition is the claim's, the measure the data set's."""
    plan = plan_with(tmp_path, claim(**SATURATED))
    fill(plan, tmp_path)
    manifest = {} if share is None else {"saturated": {"train": share, "test": 0.9}}
    files.write_json(paths.data_manifest(tmp_path), manifest)
    row = verdict(plan, tmp_path)
    assert (row["verdict"], row["note"]) == (wanted, note)
    # The effect is shown, and is no part of the family.
    assert row["effect"] == "10.1667"
    assert (row["p_adjusted"] == "-") is (wanted == "untestable")


def test_a_need_may_be_of_more(tmp_path):
    plan = plan_with(tmp_path, claim(needs=[{"data": "saturated", "above": 0.5}]))
    fill(plan, tmp_path)
    files.write_json(paths.data_manifest(tmp_path), {"saturated": {"train": 0.4}})
    assert verdict(plan, tmp_path)["verdict"] == "untestable"


def test_a_cell_at_its_floor_makes_a_claim_untestable(tmp_path):
    """Ancestral sampling has 2, 3, 4: the interval's lower end is 3 - 4.303/sqrt(3), .516."""
    plan = plan_with(tmp_path)
    for floor, wanted in ((0.51, "holds"), (0.52, "untestable")):
        fill(plan, tmp_path, floor=floor)
        row = verdict(plan, tmp_path)
        assert row["verdict"] == wanted
    assert row["note"] == "ddpm-cosine ancestral-10 is at its floor (3.00, real images 0.520)"
    assert (row["effect"], row["p_adjusted"]) == ("10.1667", "-")
    text = paths.table(tmp_path, "claims", "md").read_text()
    assert "Verdicts: untestable 1." in text and grid_row(text, "Many")[-1] == "untestable [2]"
    plan = plan_with(tmp_path, claim(floor="any"))
    assert verdict(plan, tmp_path)["verdict"] == "holds"


TUNED = {
    "snr": {
        "what": "the corrector's snr",
        "seeds": [7, 8],
        "by": "FID test",
        "file": "config/tune.yaml",
    }
}


def test_claims_are_refused_on_seeds_that_something_was_tuned_on():
    refused = {"claims": ["iddpm-*"], "tuned": TUNED, "seeds": [6, 7]}
    with pytest.raises(PlanError, match=r"^[^\n]*seeds: tuned.snr was chosen on seed 7") as error:
        plan_of(**refused)
    assert "claims: []" in str(error.value)
    assert plan_of(**refused | {"seeds": [6]}).benchmark.tuned["snr"].seeds == [7, 8]
    assert plan_of(**refused | {"claims": []}).benchmark.seeds == [6, 7]


def test_what_was_tuned_is_said(tmp_path):
    plan = plan_with(tmp_path, tuned=TUNED)
    fill(plan, tmp_path)
    verdict(plan, tmp_path)
    said = "Tuned on other seeds than these: the corrector's snr, by FID test, on seeds 7, 8 (config/tune.yaml)."
    assert said in paths.table(tmp_path, "claims", "md").read_text()
    assert table_params(plan) != table_params(plan_with(tmp_path))


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
    score = {"metric": "is"}
    plan = plan_with(tmp_path, claim(better=DDIM | score, worse=ANCESTRAL | score))
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
    assert (row["verdict"], row["note"]) == ("undecided", "it needs at least 4 seeds, and has 3")
    assert numbers(row)[3:] == pytest.approx([9.4496, 10.8838], abs=1e-4)


def test_one_seed_has_an_effect_and_no_interval(tmp_path):
    plan = plan_with(tmp_path, seeds=[1])
    fill(plan, tmp_path)
    row = verdict(plan, tmp_path)
    assert (row["effect"], row["low"], row["high"]) == ("10.5", "-", "-")
    assert (row["verdict"], row["note"]) == ("undecided", "it needs at least 3 seeds, and has 1")


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
    assert verdict(plan, tmp_path)["note"] == "vp heun-3: this benchmark has no such variant"


def test_bits_belong_to_likelihoods(tmp_path):
    plan = plan_with(tmp_path, claim(better=BITS, worse=BITS | {"item": "vlb-large"}))
    fill(plan, tmp_path)
    row = verdict(plan, tmp_path)
    assert row["note"] == "ddpm-cosine vlb-large: this benchmark has no such vlb-large"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (claim(better={"variant": "edm", "metric": "fid"}), "item: this key is missing"),
        (
            claim(better={"variant": "edm", "solver": "heun-3", "metric": "fid"}),
            "one.better.solver: 'solver' is now 'item': `diffbench migrate config/claims.yaml`",
        ),
        (claim(worse=HEUN | {"metric": "is"}), "about one metric, not about fid and is"),
        (claim(direction="up"), "'direction' is now the metric's `better`: `diffbench migrate"),
        (claim(marign=1), "did you mean 'margin'"),
        (
            claim(better=HEUN | {"metric": "spread"}, worse=DDIM | {"metric": "spread"}),
            "the metric 'spread' does not say which of its values are better",
        ),
        (claim(better=[]), "one.better"),
        (claim(seeds=1), "one.seeds"),
        (claim(needs=[{"data": "saturated"}]), "give exactly one of below and above"),
        (claim(needs=[{"data": "bright", "below": 0.2}]), "'bright' is not one of saturated"),
        (claim(floor="below"), "'below' is not one of above, any"),
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
    known = read_claims(tmp_path, {"fid": MetricSpec(head="FID", better="lower")})
    assert list(chosen(known, ["cfg-a", "ddpm-*"])) == ["cfg-a", "ddpm-a", "ddpm-b"]
    with pytest.raises(PlanError, match=r"no claim 'dppm-a' in .*; did you mean 'ddpm-a'\?"):
        chosen(known, ["dppm-a"])


def test_claims_are_read_only_where_they_are_asked_for(tmp_path):
    plan = configured(tmp_path)
    assert "claims" not in table_params(plan)
    always = ["records.csv", "records.json", "index.html"]
    assert [path.name for path in outputs(plan, tmp_path)] == always
    plan = plan_with(tmp_path)
    claimed = [f"claims.{suffix}" for suffix in ("csv", "md", "tex")]
    assert [path.name for path in outputs(plan, tmp_path)] == claimed + always
    before = table_params(plan)
    (tmp_path / CLAIMS).write_text((tmp_path / CLAIMS).read_text() + "# a remark\n")
    assert table_params(plan) == before
    assert table_params(plan_with(tmp_path, claim(margin=1))) != before


def test_no_table_is_called_claims(tmp_path):
    table = {"layout": "listing", "title": "x", "stage": "sample", "columns": ["fid"]}
    plan = configured(tmp_path, {"claims": table})
    with pytest.raises(PlanError, match="a table cannot be called 'claims'"):
        make(plan, tmp_path / "results")


def test_shipped_claims_rank_by_fid_to_the_test_split_and_say_which_are_exploratory():
    claims = read_claims(REPOSITORY, layout.read_tables(REPOSITORY).metrics)
    assert "fid" not in {each.metric for each in claims.values()}
    for each in claims.values():
        assert each.exploratory is each.source.startswith("not in the paper")
        if each.metric == "saturated":
            assert each.needs


def test_the_shipped_claims_are_valid():
    known = layout.read_tables(REPOSITORY)
    claims = read_claims(REPOSITORY, known.metrics)
    assert claims
    for each in claims.values():
        assert each.claim[0].isupper() and not each.claim.endswith(".")
        assert all(cell.item for cell in each.cells)
