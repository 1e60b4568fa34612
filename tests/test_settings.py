"""The papers' settings beside ours: the page says what the plans have, and a difference has a reason."""

import shutil
from pathlib import Path

import fast_yaml
import pytest
from commands import REPOSITORY

from diffbench.reporting.formats import to_markdown
from diffbench.reporting.settings import SETTINGS, Leaf, leaves, read_settings, settings
from diffbench.specs.errors import PlanError
from diffbench.specs.processes import VPSpec

CHURCH = "lsun-church.yaml"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of what settings are read from, with the smallest benchmark alone."""
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    tree = fast_yaml.load((tmp_path / SETTINGS).read_text())
    write(tmp_path, tree | {"benchmarks": {CHURCH: tree["benchmarks"][CHURCH]}})
    return tmp_path


def write(repository: Path, tree: dict) -> None:
    (repository / SETTINGS).write_text(fast_yaml.dump(tree, sort_keys=False))


def stated(repository: Path, **settings: object) -> None:
    """Let a last source say more, keys with two underscores for dots."""
    tree = fast_yaml.load((repository / SETTINGS).read_text())
    more = {key.replace("__", "."): value for key, value in settings.items()}
    group = {"variants": ["ddpm-*"], "source": "a test", "settings": more}
    tree["benchmarks"][CHURCH].append(group)
    write(repository, tree)


@pytest.mark.slow
def test_the_page_in_docs_says_what_the_plans_have() -> None:
    page = (REPOSITORY / "docs" / "settings.md").read_text()
    made = to_markdown(settings(REPOSITORY))
    assert page == made, "run: diffbench settings --write docs/settings.md"


def test_every_file_of_the_papers_scale_is_compared() -> None:
    coverage = fast_yaml.load((REPOSITORY / "config" / "coverage.yaml").read_text())
    assert list(read_settings(REPOSITORY).benchmarks) == coverage["benchmarks"]


def test_a_difference_without_a_reason_is_an_error(repository: Path) -> None:
    stated(repository, training__lr=3e-5)
    with pytest.raises(
        PlanError, match=r"training\.lr is 2e-05 and the paper's 3e-05; correct it, or"
    ):
        settings(repository)


def test_a_difference_with_a_reason_is_shown_with_it(repository: Path) -> None:
    stated(repository, training__lr={"paper": 3e-5, "why": "slower is safer"})
    different, whole = settings(repository).grids
    row = ["all", "training.lr", "3e-05", "a test", "2e-05", "slower is safer"]
    assert row in different.rows and row in whole.rows


def test_a_reason_for_what_is_the_same_is_an_error(repository: Path) -> None:
    stated(repository, training__lr={"paper": 2e-5, "why": "slower is safer"})
    with pytest.raises(
        PlanError, match=r"training\.lr: ours is the paper's, so there must be no reason"
    ):
        settings(repository)


def test_a_setting_that_no_variant_has_is_an_error(repository: Path) -> None:
    stated(repository, training__rate=2e-5)
    with pytest.raises(PlanError, match="no variant of it has 'training.rate'"):
        settings(repository)


def test_nothing_of_a_training_may_be_left_out(repository: Path) -> None:
    tree = fast_yaml.load((repository / SETTINGS).read_text())
    for group in tree["benchmarks"][CHURCH]:
        group["settings"].pop("training.flip", None)
    write(repository, tree)
    with pytest.raises(PlanError, match=r"training\.flip is True, but nothing says what the paper"):
        settings(repository)


def test_what_is_unsaid_must_be_at_its_default(repository: Path) -> None:
    path = repository / "config" / CHURCH
    path.write_text(path.read_text().replace("warmup: 5000", "weight_decay: 0.1, warmup: 5000"))
    with pytest.raises(PlanError, match=r"training\.weight_decay is 0\.1, but nothing says"):
        settings(repository)


def test_variants_that_a_file_has_not_are_an_error(repository: Path) -> None:
    tree = fast_yaml.load((repository / SETTINGS).read_text())
    tree["benchmarks"][CHURCH][0]["variants"] = ["ddpm-linaer"]
    write(repository, tree)
    with pytest.raises(
        PlanError, match="no variant 'ddpm-linaer' is a model of lsun-church.yaml; did"
    ):
        settings(repository)


def test_leaves_are_values_with_their_defaults() -> None:
    found = {leaf.path: leaf for leaf in leaves(VPSpec(beta_max=10))}
    assert found["beta_max"] == Leaf("beta_max", 10, 20)
    assert found["beta_min"] == Leaf("beta_min", 0.1, 0.1)
