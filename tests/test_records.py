"""What is recorded of a finished benchmark is what its results say, and a changed specification makes it old."""

from pathlib import Path

import pytest
from commands import CONFIG, REPOSITORY, plan_of, write_config

from diffbench.plan.loading import load_plan
from diffbench.reporting import records
from diffbench.reporting.records import Records, fresh
from diffbench.reporting.results import Results


@pytest.fixture
def recorded(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Records]:
    monkeypatch.chdir(made)
    plan = plan_of(made)
    records.write(plan, plan.root, tmp_path)
    found = Records.read(tmp_path, "tiny")
    assert found is not None
    return tmp_path, found


def test_every_number_of_the_plan_is_recorded_as_the_results_have_it(
    recorded: tuple[Path, Records], made: Path
) -> None:
    _, found = recorded
    plan = plan_of(made)
    drawn = {("iddpm-hybrid", "analysis", "gradient-noise")}  # its result is a figure
    assert {key[:3] for key in found.entries} == set(records.jobs_of(plan)) - drawn
    scores = Results(plan, plan.root).score("edm", 0, "heun-3").scores
    assert len(scores) > 5
    for metric, score in scores.items():
        entry = found.find("edm", "heun-3", metric)
        assert entry is not None
        # CSV files have six significant digits.
        assert entry.cell.mean == pytest.approx(score["value"], rel=1e-5)
        assert entry.cell.images == 64
        assert entry.commit


def test_claims_and_figures_are_recorded_too(recorded: tuple[Path, Records]) -> None:
    folder, found = recorded
    assert {line["verdict"] for line in found.claims.values()} <= {"undecided", "missing"}
    names = {path.name for path in (folder / records.FOLDER / "tiny").iterdir()}
    assert {"cells.csv", "claims.csv", "fid-nfe.csv", "fid-nfe.png"} <= names


def test_what_the_plan_would_make_again_is_fresh(
    recorded: tuple[Path, Records], made: Path
) -> None:
    _, found = recorded
    assert fresh(plan_of(made), found) == set(found.entries)


def test_a_changed_solver_makes_its_own_numbers_old(
    recorded: tuple[Path, Records], made: Path
) -> None:
    _, found = recorded
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
    with pytest.raises(ValueError, match=r"results/tiny: \d+ numbers are not there, first the sam"):
        records.write(plan, plan.root, tmp_path)
    assert not (tmp_path / records.FOLDER).exists()


def test_nothing_recorded_is_none(tmp_path: Path) -> None:
    assert Records.read(tmp_path, "tiny") is None
