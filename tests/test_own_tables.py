"""A benchmark file may bring tables, figures, claims and metrics of its own."""

import fast_yaml
import pytest
from layouts import REPOSITORY, SEEDS, fill, grid_row, rows_of
from test_reporting import PART

from diffbench.plan.loading import load_plan
from diffbench.reporting.tables import make, outputs, table_params
from diffbench.specs.errors import PlanError
from diffbench.store import paths

TINY = fast_yaml.load((REPOSITORY / "examples" / "tiny.yaml").read_text())
CELL = {"variant": "ddpm-cosine", "metric": "mine"}
OWN = {
    "metrics": {"mine": {"head": "my FID", "better": "lower", "spread": True}},
    "tables": [
        "overview",
        {
            "side": {
                "layout": "comparison",
                "title": "Mine",
                "columns": {"FID": "fid", "own": "mine"},
                "rows": [{"row": "chain", "variant": "ddpm-cosine", "item": "ddim-5"}],
            }
        },
    ],
    "figures": [
        {
            "curve": {
                "layout": "curve",
                "title": "Mine",
                "x": "steps",
                "metrics": ["mine"],
                "series": [
                    {
                        "label": "DDIM",
                        "points": [{"x": 5, "variant": "ddpm-cosine", "item": "ddim-5"}],
                    }
                ],
            }
        }
    ],
    "claims": [
        {
            "better-with-more": {
                "claim": "More steps are better",
                "source": "us",
                "better": CELL | {"item": "ancestral-10"},
                "worse": CELL | {"item": "ddim-5"},
            }
        }
    ],
}


def plan_with(folder, **changes):
    path = folder / "bench.yaml"
    path.write_text(fast_yaml.dump(TINY | PART | {"seeds": SEEDS} | OWN | changes, sort_keys=False))
    return load_plan([path], {}, REPOSITORY)


@pytest.fixture
def scored(monkeypatch):
    """Scores with a metric of one's own, as an extension's would have."""
    import layouts

    usual = layouts.scores

    def scores(value, floor=None):
        found = usual(value, floor)
        return found | {"metrics": found["metrics"] | {"mine": {"value": 2 * value, "se": 0.1}}}

    monkeypatch.setattr(layouts, "scores", scores)


def test_its_tables_figures_and_claims_are_made_beside_the_repositorys(tmp_path, scored):
    plan = plan_with(tmp_path)
    fill(plan, tmp_path)
    made = {path.name for path in make(plan, tmp_path)}
    assert {"overview.csv", "side.md", "curve.png", "claims.tex"} <= made
    assert made == {path.name for path in outputs(plan, tmp_path)}
    text = paths.table(tmp_path, "side", "md").read_text()
    assert grid_row(text, "chain")[2:] == ["13.2 ± 1.0", "26 ± 2"]
    (claim,) = rows_of(paths.table(tmp_path, "claims", "csv"))
    assert (claim["id"], claim["metric"], claim["direction"]) == (
        "better-with-more",
        "mine",
        "lower",
    )
    assert claim["verdict"] == "holds"
    (point,) = rows_of(paths.figure(tmp_path, "curve", "csv"))
    assert point["panel"] == "my FID" and point["y"] == "26.3333"


def test_a_change_to_them_makes_tables_anew(tmp_path):
    before = table_params(plan_with(tmp_path))
    assert table_params(plan_with(tmp_path)) == before
    other = {"mine": OWN["metrics"]["mine"] | {"digits": 5}}
    assert table_params(plan_with(tmp_path, metrics=other)) != before


def changed(part, key, **keys):
    (each,) = [each for each in OWN[part] if isinstance(each, dict)]
    return {part: [{key: next(iter(each.values())) | keys}]}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            changed("tables", "side", columns={"FID": "fidd"}),
            "names the metric 'fidd'; did you mean",
        ),
        (changed("tables", "side", layuot="x"), "tables.side.layuot: unknown key 'layuot'"),
        (changed("tables", "side", name="comparison"), "'name' is now 'layout'"),
        (changed("tables", "ddpm-ablation"), "tables: 'ddpm-ablation' is defined in config/tables"),
        (changed("claims", "mine", margin="x"), "claims.mine.margin"),
        (changed("claims", "ddpm-vlb-bits"), None),
        ({"claims": ["iddpm-*", *changed("claims", "iddpm-vlb")["claims"]]}, None),
        ({"metrics": {}}, "names the metric 'mine'"),
        ({"metrics": {"mine": {"head": "x"}}}, "does not say which of its values are better"),
        ({"metrics": {"fid": {"head": "x"}}}, "metrics: 'fid' is defined in config/tables.yaml"),
        ({"tables": ["side", *OWN["tables"]]}, "'side' appears twice"),
    ],
)
def test_a_mistake_in_them_is_one_line_with_its_place(tmp_path, changes, named):
    if named is None:
        table_params(plan_with(tmp_path, **changes))
        return
    with pytest.raises(PlanError, match=r"^[^\n]*$") as error:
        table_params(plan_with(tmp_path, **changes))
    assert named in str(error.value)
    assert "bench.yaml" in str(error.value)


def test_the_line_is_said(tmp_path):
    with pytest.raises(PlanError, match=r"bench\.yaml:\d+: claims\.mine\.margin"):
        table_params(plan_with(tmp_path, **changed("claims", "mine", margin="x")))
