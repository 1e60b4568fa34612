"""Cards of published checkpoints: each is whole, and a file is fetched by name and checked by what is known of it."""

import hashlib
import json
from pathlib import Path

import pytest
import yaml
from checkpoints import installed, written
from commands import REPOSITORY

from diffbench import cli
from diffbench.cli import run
from diffbench.pretrained.cards import CARDS, card, cards
from diffbench.specs.errors import PlanError
from diffbench.specs.processes import ProcessSpec


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A repository with a card of a toy checkpoint in a folder; a function that writes the card, with changes."""
    installed(monkeypatch)
    monkeypatch.setenv("DIFFBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(run, "repository", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "far" / "toy.pt"
    file.parent.mkdir()
    written(file)
    (tmp_path / "config").mkdir()

    def publish(**changes):
        told = {
            "family": "toy",
            "url": file.as_uri(),
            "sha256": "unknown",
            "paper": "ddpm",
            "about": "a toy",
            "process": {"name": "vp"},
            **changes,
        }
        (tmp_path / CARDS).write_text(yaml.safe_dump({"toy-digits": told}))
        return file

    return publish


def test_every_card_names_a_paper_a_process_and_a_family():
    papers = yaml.safe_load((REPOSITORY / "config" / "papers.yaml").read_text())
    found = cards(REPOSITORY)
    assert len({each.url for each in found.values()}) == len(found) > 5
    for each in found.values():
        assert each.paper in papers and ProcessSpec.choose(each.process)


def test_a_checkpoint_without_a_known_sha256_is_fetched_and_said_to_be_unverified(
    published, capsys
):
    file = published()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert cli.main(["import", "toy-digits"]) == 0
    out, err = capsys.readouterr()
    assert f"sha256 {digest}, unverified: nobody is known to state it" in err
    assert "models/toy-digits: unet of toy" in out
    told = json.loads(out.splitlines()[-1].partition(": ")[2])
    assert told == {"pretrained": "models/toy-digits", "process": {"name": "vp"}}
    assert json.loads(Path("models/toy-digits/spec.json").read_text())["spec"]["sha256"] == digest
    written(file, seed=1)
    # The copy in the cache is taken; another copy is not the first one's.
    assert cli.main(["import", "toy-digits", "--to", "models/again"]) == 0
    assert cli.main(["import", "toy-digits", str(file), "--to", "models/other"]) == 1
    assert f"expected: {file.as_uri()} (sha256 {digest})" in capsys.readouterr().err


def test_a_stated_sha256_is_demanded(published, capsys):
    file = published(sha256="0" * 64, stated_by="a list")
    assert cli.main(["import", "toy-digits"]) == 1
    assert "what was downloaded has sha256" in capsys.readouterr().err
    published(sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    assert cli.main(["import", "toy-digits"]) == 0
    assert "unverified" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"family": "edn"},
            "checkpoints.yaml:1: toy-digits: family: no family 'edn'; did you mean 'edm'",
        ),
        ({"stated_by": "a list"}, "stated_by: nobody states an sha256 that is unknown"),
        ({"url": "http://x/y.pt"}, "toy-digits.url: .*'http://x/y.pt'"),
    ],
)
def test_a_card_that_is_not_whole_is_one_line(published, tmp_path, changes, said):
    published(**changes)
    with pytest.raises(PlanError, match=said) as error:
        cards(tmp_path)
    assert "\n" not in str(error.value)


def test_a_name_without_a_card_has_what_is_near(published, tmp_path):
    published()
    with pytest.raises(PlanError, match="'toy-digit' is neither .*; did you mean 'toy-digits'"):
        card("toy-digit", cards(tmp_path))
