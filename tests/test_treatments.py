"""What a comparison compares: facets of models, and what is refused or said because of them."""

from dataclasses import replace

import pytest
from commands import REPOSITORY
from layouts import configured, fill
from test_reporting import plan_of

from diffbench.plan import treatments
from diffbench.plan.loading import load_plan
from diffbench.reporting import context, tables
from diffbench.specs.errors import PlanError
from diffbench.store import paths

SKIP = {"denoiser": {"skip": "edm"}}


def of(config, **changes):
    return load_plan([REPOSITORY / "config" / f"{config}.yaml"], changes, REPOSITORY)


@pytest.fixture(scope="module")
def full():
    return of("digits-full", figures=[])


@pytest.fixture(scope="module")
def skipped():
    """The ablation as it was: EDM's skip under everything."""
    return of("digits-full", overrides={"ddpm-linear-*": SKIP}, figures=[])


def differing(plan, one, other):
    return treatments.differing(plan.variants[one], plan.variants[other])


@pytest.mark.parametrize(
    ("one", "other", "plain", "skip"),
    [
        ("eps", "x0", ["prediction", "loss"], ["loss"]),
        ("eps", "mean", ["prediction", "loss"], ["loss"]),
        ("eps", "eps-vlb", ["loss"], ["loss"]),
        ("eps-vlb", "mean-vlb", ["prediction"], []),
        ("eps-vlb", "x0-vlb", ["prediction"], []),
    ],
)
def test_ddpms_ablation_differs_in_what_it_says_without_a_skip(
    full, skipped, one, other, plain, skip
):
    pair = f"ddpm-linear-{one}", f"ddpm-linear-{other}"
    assert differing(full, *pair) == plain
    assert differing(skipped, *pair) == skip


def test_edms_parameterisations_differ_in_nothing_else():
    plan = of("digits-sde", figures=[])
    names = [f"edm-{each}" for each in ("skip", "eps", "x0", "v")]
    for one in names:
        for other in names:
            found = set(differing(plan, one, other))
            # The scale of the input comes with EDM's own.
            assert found <= {"prediction", "input"}
            assert ("prediction" in found) == (one != other)
    assert {plan.variants[name].network.fourier for name in names} == {()}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        # All of it today's: the table's rows of L are one training counted three times.
        (
            {"tables": ["ddpm-ablation"], "claims": []},
            [
                "tables.ddpm-ablation.about: prediction, loss, but ddpm-linear-eps ancestral-100 and ddpm-linear-x0 ",
                "differ in loss: with the same skip, predict eps and x0 are one function of the network",
                "denoiser.skip: none",
            ],
        ),
        (
            {"tables": [], "claims": ["ddpm-eps-simple-over-mean"]},
            [
                "claims.ddpm-eps-simple-over-mean.about: prediction, loss, but ddpm-linear-eps ancestral-100 and "
                "ddpm-linear-mean ancestral-100 differ in loss: with the same skip",
                "denoiser.skip: none",
            ],
        ),
    ],
)
def test_a_cancelled_treatment_is_refused(changes, named):
    plan = of("digits-full", overrides={"ddpm-linear-*": SKIP}, figures=[], **changes)
    with pytest.raises(PlanError) as caught:
        tables.table_params(plan)
    for words in named:
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_shipped_comparisons_are_about_what_they_say(full):
    tables.table_params(full)
    for name in ("digits", "digits-sde", "digits-blur", "digits-reflected", "patches-full"):
        tables.table_params(of(name))


def test_one_function_is_said_below_tables(full, skipped):
    """Names that differ are said to be one function, and in what the rows differ then."""
    assert treatments.remarks(full.variants) == []
    (line,) = treatments.remarks(skipped.variants)
    assert "ddpm-linear-eps (eps)" in line and "ddpm-linear-mean-vlb (mean)" in line
    assert line.endswith("they differ in loss, variance.")
    assert line in context.budget_lines(skipped)


def pair(**changes):
    """The tiny benchmark with edm and a twin of it."""
    twin = {
        "process": {"name": "edm"},
        "denoiser": {"predict": "edm"},
        "objective": {"name": "edm"},
        "dequantise": "uniform",
        "solvers": {"heun-3": {"name": "heun", "steps": 3}},
        "likelihoods": {"ode": {"name": "ode", "method": "heun", "steps": 2}},
    } | changes
    return {"methods": {"twin": twin}, "variants": ["edm", "ddpm-cosine", "twin"]}


def cell(variant, solver="heun-3"):
    return {"variant": variant, "item": solver, "metric": "fid"}


def claim(better, worse, **more):
    sides = {"better": better, "worse": worse}
    return {"one": {"claim": "One is better", "source": "Somebody 2020"} | sides | more}


def with_claim(folder, spec, **changes):
    plan = configured(folder, claims=spec, **pair(**changes))
    return replace(plan, benchmark=plan.benchmark.model_copy(update={"claims": ["one"]}))


def test_a_claim_of_two_names_of_one_thing_is_refused(tmp_path):
    plan = with_claim(tmp_path, claim(cell("edm"), cell("twin")))
    with pytest.raises(
        PlanError, match=r"claims\.one: edm heun-3 and twin heun-3 differ in nothing$"
    ):
        tables.table_params(plan)


def test_another_solver_is_a_treatment(tmp_path):
    other = {"solvers": {"heun-3": {"name": "heun", "steps": 4}}}
    tables.table_params(
        with_claim(tmp_path, claim(cell("edm"), cell("twin"), about="solver"), **other)
    )


def test_a_claim_that_is_about_less_than_what_differs_is_refused(tmp_path):
    """All else equal is held to: here noise levels in training differ beside the loss."""
    other = {"objective": {"name": "simple", "times": {"name": "uniform"}}}
    tables.table_params(
        with_claim(tmp_path, claim(cell("edm"), cell("twin"), about=["times", "loss"]), **other)
    )
    plan = with_claim(tmp_path, claim(cell("edm"), cell("twin"), about="loss"), **other)
    with pytest.raises(PlanError, match=r"about: loss, but .* differ in loss, times$"):
        tables.table_params(plan)


def test_what_a_benchmark_lacks_is_not_compared(tmp_path):
    tables.table_params(with_claim(tmp_path, claim(cell("edm"), cell("vp"), about="loss")))


def test_bits_of_two_kinds_do_not_compare(tmp_path):
    bits = {"metric": "bits_per_dim"}
    sides = (
        {"variant": "ddpm-cosine", "item": "vlb-small"} | bits,
        {"variant": "twin", "item": "ode"} | bits,
    )
    plan = with_claim(tmp_path, claim(*sides))
    wanted = (
        r"claims\.one: two kinds of bits_per_dim cannot be compared: ddpm-cosine vlb-small "
        r"\(bound on grey levels\) and twin ode \(ODE, density of dequantised levels\)"
    )
    with pytest.raises(PlanError, match=wanted):
        tables.table_params(plan)


@pytest.mark.parametrize("part", ["tables", "figures"])
def test_bits_of_two_kinds_share_no_column_and_no_axis(tmp_path, part):
    rows = [
        {"row": "a", "variant": "ddpm-cosine", "cells": {"bits": "vlb-small"}},
        {"row": "b", "variant": "twin", "cells": {"bits": "ode"}},
    ]
    points = [
        {"x": 1, "variant": "ddpm-cosine", "item": "vlb-small"},
        {"x": 2, "variant": "twin", "item": "ode"},
    ]
    made = {
        "tables": {"layout": "comparison", "columns": {"bits": "bits_per_dim"}, "rows": rows},
        "figures": {
            "layout": "curve",
            "x": "x",
            "metrics": ["bits_per_dim"],
            "series": [{"label": "all", "points": points}],
        },
    }[part] | {"title": "Side by side"}
    plan = configured(tmp_path, **{part: {"side": made}}, **pair())
    with pytest.raises(PlanError, match=rf"{part}\.side\..*two kinds of .* cannot be compared"):
        tables.table_params(plan)


def test_each_kind_of_bits_has_a_grid_of_its_own_in_the_overview(tmp_path):
    plan = plan_of(**pair(), tables=["overview"])
    fill(plan, tmp_path)
    tables.make(plan, tmp_path)
    text = paths.table(tmp_path, "overview", "md").read_text()
    parts = text.split("## Bits per dimension, ")[1:]
    assert [part.partition(";")[0] for part in parts] == [
        "bound on grey levels",
        "ODE, density of dequantised levels",
    ]
    heads = [
        next(line for line in part.splitlines() if line.startswith("| variant")) for part in parts
    ]
    assert ["vlb-small" in head for head in heads] == [True, False]
    assert ["ode" in head for head in heads] == [False, True]
    assert ["| twin " in part for part in parts] == [False, True]


def test_tables_of_one_kind_say_which(tmp_path):
    rows = [{"row": "a", "variant": "twin", "cells": {"bits": "ode"}}]
    made = {
        "layout": "comparison",
        "title": "One",
        "columns": {"bits": "bits_per_dim"},
        "rows": rows,
    }
    plan = configured(tmp_path, {"one": made}, **pair())
    fill(plan, tmp_path)
    tables.make(plan, tmp_path)
    text = paths.table(tmp_path, "one", "md").read_text()
    assert "bits: ODE, density of dequantised levels." in text
