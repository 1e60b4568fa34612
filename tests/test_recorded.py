"""What is recorded of a finished benchmark is what its results say, and a changed specification makes it old."""

from pathlib import Path

import pytest
from commands import CONFIG, REPOSITORY, plan_of, write_config

from diffbench.plan.loading import load_plan
from diffbench.reporting import recorded
from diffbench.reporting.recorded import Recorded, fresh
from diffbench.reporting.results import Results


@pytest.fixture
def kept(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Recorded]:
    monkeypatch.chdir(made)
    plan = plan_of(made)
    recorded.write(plan, plan.root, tmp_path)
    found = Recorded.read(tmp_path, "tiny")
    assert found is not None
    return tmp_path, found


def test_every_number_of_the_plan_is_recorded_as_the_results_have_it(
    kept: tuple[Path, Recorded], made: Path
) -> None:
    _, found = kept
    plan = plan_of(made)
    drawn = {("iddpm-hybrid", "analysis", "gradient-noise")}  # its result is a figure
    assert {key[:3] for key in found.entries} == set(recorded.jobs_of(plan)) - drawn
    scores = Results(plan, plan.root).outcome(plan.job("sample", "edm", 0, "heun-3")).scores
    assert len(scores) > 5
    for metric, score in scores.items():
        entry = found.find("edm", "heun-3", metric)
        assert entry is not None
        # CSV files have six significant digits.
        assert entry.cell.mean == pytest.approx(score["value"], rel=1e-5)
        assert entry.cell.images == 64
        assert entry.commit


def test_what_each_variant_was_trained_with_is_recorded(kept: tuple[Path, Recorded]) -> None:
    _, found = kept
    assert found.budgets["edm"].startswith(
        "4 steps of 16 images, unet (channels 8, inner_channels 8)"
    )
    # A control is not trained.
    assert "control-test" not in found.budgets and "vp" not in found.budgets


def test_claims_and_figures_are_recorded_too(kept: tuple[Path, Recorded]) -> None:
    folder, found = kept
    assert {line["verdict"] for line in found.claims.values()} <= {"undecided", "missing"}
    names = {path.name for path in (folder / recorded.FOLDER / "tiny").iterdir()}
    assert {"cells.csv", "claims.csv", "nfe.csv", "nfe.png"} <= names


def test_what_the_plan_would_make_again_is_fresh(kept: tuple[Path, Recorded], made: Path) -> None:
    _, found = kept
    assert fresh(plan_of(made), found) == set(found.entries)


def test_a_changed_solver_makes_its_own_numbers_old(
    kept: tuple[Path, Recorded], made: Path
) -> None:
    _, found = kept
    changes = {"overrides.edm.solvers.heun-3.sigma_max": 40}
    plan = load_plan([made / CONFIG], changes, REPOSITORY)
    old = set(found.entries) - fresh(plan, found)
    assert {key[:3] for key in old} == {("edm", "sample", "heun-3")}


def test_a_benchmark_that_is_not_finished_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)
    plan = plan_of(tmp_path)
    with pytest.raises(
        ValueError, match=r"results/tiny: \d+ numbers are missing, the first of the sam"
    ):
        recorded.write(plan, plan.root, tmp_path)
    assert not (tmp_path / recorded.FOLDER).exists()


def test_nothing_recorded_is_none(tmp_path: Path) -> None:
    assert Recorded.read(tmp_path, "tiny") is None
