"""BibTeX of what results build on: every paper that is named has an entry, and the entries are whole."""

import csv
import re

import fast_yaml
import pytest
from commands import REPOSITORY
from layouts import configured, fill

from diffbench import cli
from diffbench.plan.loading import load_plan
from diffbench.reporting import citations
from diffbench.reporting.tables import make
from diffbench.specs.analyses import AnalysisSpec
from diffbench.specs.data import DataSpec
from diffbench.specs.errors import PlanError
from diffbench.specs.extractors import ExtractorSpec
from diffbench.specs.likelihoods import LikelihoodSpec
from diffbench.specs.networks import NetworkSpec
from diffbench.specs.restorers import RestorerSpec
from diffbench.specs.solvers import SolverSpec

WORKS = citations.works(REPOSITORY)
KINDS = {
    "solvers": SolverSpec,
    "likelihoods": LikelihoodSpec,
    "restorers": RestorerSpec,
    "analyses": AnalysisSpec,
    "network": NetworkSpec,
    "data": DataSpec,
    "extractor": ExtractorSpec,
}


def parsed(text):
    """BibTeX as key -> (kind, fields); a character out of place is an error."""
    entries = {}
    while text := text.lstrip():
        if text.startswith("%"):
            line, _, text = text.partition("\n")
            assert "@" not in line
            continue
        kind, key = re.match(r"@(\w+)\{([\w-]+),", text).groups()
        text = text[text.index(",") + 1 :]
        fields = {}
        while not (text := text.lstrip()).startswith("}"):
            name = re.match(r"(\w+) = \{", text)[1]
            value, text = braced(text[text.index("{") :])
            assert name not in fields
            fields[name] = value
            text = text.lstrip().removeprefix(",")
        assert key not in entries
        entries[key], text = (kind, fields), text[1:]
    return entries


def braced(text):
    """The text in the braces that a text begins with, and what is behind them."""
    depth = 0
    for i, letter in enumerate(text):
        depth += {"{": 1, "}": -1}.get(letter, 0) if text[i - 1] != "\\" else 0
        if not depth:
            return text[1:i], text[i + 1 :]
    raise AssertionError(f"braces do not match: {text[:80]}")


def mentioned(value):
    """The papers that a YAML file names."""
    if isinstance(value, dict):
        paper = value.get("paper")
        yield from paper if isinstance(paper, list) else [paper] if isinstance(paper, str) else []
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from mentioned(each)


@pytest.mark.parametrize("file", ["methods.yaml", "coverage.yaml", "tables.yaml"])
def test_every_paper_that_a_file_names_has_an_entry(file):
    content = fast_yaml.load((REPOSITORY / "config" / file).read_text())
    assert (named := set(mentioned(content)))
    assert named <= WORKS.keys()


def test_every_paper_of_a_published_number_has_an_entry():
    with (REPOSITORY / "config" / "published.csv").open(newline="") as file:
        assert {row["paper"] for row in csv.DictReader(file)} <= WORKS.keys()


def test_the_entries_are_bibtex_of_what_the_file_says():
    text = "\n".join(work.entry(key) for key, work in WORKS.items())
    assert text.isascii()
    found = parsed(text)
    assert found.keys() == WORKS.keys()
    for key, (kind, fields) in found.items():
        assert {"title", "author"} <= fields.keys()
        assert fields["author"].count(" and ") == len(WORKS[key].authors) - 1
        if key != "diffbench":
            assert re.fullmatch(r"\d{4}", fields["year"])
            assert fields.keys() & {"url", "doi"}
        if kind == "inproceedings":
            assert fields["booktitle"]
    assert found["precision-recall"][1]["author"].startswith(r"Tuomas Kynk{\"a}{\"a}nniemi and")
    assert found["kid"][1]["author"].startswith(r"Miko{\l}aj Bi{\'n}kowski and")
    assert found["ddim"][1]["title"] == "{Denoising Diffusion Implicit Models}"
    assert found["diffbench"][1]["author"] == "{diffbench contributors}"


def test_what_a_work_is_of_is_known():
    metrics = fast_yaml.load((REPOSITORY / "config" / "tables.yaml").read_text())["metrics"]
    for key, work in WORKS.items():
        for part, names in work.of.items():
            if part in KINDS:
                assert set(names) <= KINDS[part].known.keys(), key
            elif part == "metrics":
                assert set(names) <= metrics.keys(), key
            else:
                assert part in SolverSpec.model_fields, key


def test_every_solver_has_a_work_or_is_our_own():
    named = {name for work in WORKS.values() for name in work.of.get("solvers", [])}
    ours = {"transport"}
    shipped = {k for k, v in SolverSpec.known.items() if v.__module__.startswith("diffbench.specs")}
    assert shipped - named == ours


def used(**variant):
    return citations.Used({"mine": variant}, {}, frozenset())


@pytest.mark.parametrize(
    ("variant", "keys"),
    [
        ({"solvers": {"a": {"name": "ddim", "steps": 5}}}, {"ddim"}),
        ({"solvers": {"a": {"name": "ancestral", "w": 4.0}}}, {"ddpm", "cfg"}),
        ({"solvers": {"a": {"name": "heun", "threshold": "dynamic"}}}, {"edm", "imagen"}),
        ({"solvers": {"a": {"name": "heun", "threshold": "static", "w": None}}}, {"edm"}),
        ({"restorers": {"r": {"name": "ilvr", "solver": {"name": "ancestral"}}}}, {"ilvr", "ddpm"}),
        (
            {"solvers": {"a": {"name": "transport", "corrector": {"name": "langevin"}}}},
            {"score-sde"},
        ),
        ({"paper": "reflected", "process": {"name": "vp"}}, {"reflected"}),
    ],
)
def test_what_a_variant_uses_is_cited(variant, keys):
    found, lacking = citations.cited(used(**variant), WORKS)
    assert set(found) == keys | {"diffbench"} and lacking == []


def test_a_paper_without_an_entry_is_said_and_is_no_entry():
    text = citations.bibtex(used(paper="mine}\n@book{x,"), REPOSITORY)
    assert parsed(text).keys() == {"diffbench"}
    assert text.splitlines()[-1].startswith("% no entry in config/papers.yaml: mine")


def test_a_plan_that_was_not_run_cites_its_tables_papers_and_metrics():
    plan = load_plan([REPOSITORY / "examples" / "tiny.yaml"], {}, REPOSITORY)
    keys, lacking = citations.cited(citations.of_plan(plan), WORKS)
    assert lacking == []
    assert {"digits", "scikit-learn", "fid", "kid", "torch-fidelity", "edm", "ddim"} <= set(keys)
    # It has dynamic thresholds, of Imagen, and both kinds of guidance.
    assert {"imagen", "cfg", "adm"} <= set(keys)
    assert not {"cifar10", "palette", "snips", "ssim"} & set(keys)


def test_restorers_that_a_benchmark_tries_on_a_variant_are_cited_with_it():
    plan = load_plan([REPOSITORY / "config" / "digits.yaml"], {}, REPOSITORY)
    used = citations.of_plan(plan)
    assert "ddrm" in citations.cited(used.of_variants(["vp"], ""), WORKS)[0]
    assert "ddrm" not in citations.cited(used.of_variants(["edm"], ""), WORKS)[0]
    line = {"metric": "psnr", "paper": "score-sde", "variant": "vp", "solver": "mri/impute-25"}
    keys, _ = citations.cited(used.of_table([line]), WORKS)
    assert {"score-sde", "digits"} <= set(keys) and not {"ddrm", "fid", "edm"} & set(keys)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cite")
    table = {
        "layout": "comparison",
        "title": "t",
        "columns": {"FID": "fid"},
        "rows": [{"row": "a", "variant": "edm", "item": "heun-3"}],
    }
    plan = configured(folder, {"small": table})
    fill(plan, folder)
    make(plan, folder)
    return folder


def printed(capsys, *words):
    assert cli.main(["cite", *map(str, words)]) == 0
    return parsed(capsys.readouterr().out).keys()


def test_the_command_cites_results_a_table_and_variants(results, capsys, tmp_path):
    whole = printed(capsys, results)
    assert {"ddpm", "edm", "fid", "digits", "diffbench"} <= whole
    small = printed(capsys, results, "--table", "small")
    assert {"edm", "fid", "digits"} <= small and not {"ddpm", "ddim", "kid"} & small
    one = printed(capsys, results, "--variant", "edm")
    assert small < one < whole
    assert cli.main(["cite", str(results), "--write", str(tmp_path / "a.bib")]) == 0
    assert parsed((tmp_path / "a.bib").read_text()).keys() == whole


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--variant", "edn"], "no variant 'edn' in"),
        (["--table", "smal"], "did you mean 'small'?"),
    ],
)
def test_what_is_not_there_is_named(results, capsys, words, said):
    assert cli.main(["cite", str(results), *words]) == 1
    assert said in capsys.readouterr().err


def test_a_table_without_variants_is_refused(tmp_path):
    path = tmp_path / "tables" / "claims.csv"
    path.parent.mkdir()
    path.write_text("id,claim\na,b\n")
    with pytest.raises(PlanError, match="claims has no variants: leave --table out"):
        citations.rows_of(tmp_path, "claims")


def test_a_repository_without_the_file_cites_nothing(tmp_path):
    assert citations.bibtex(used(paper="ddpm"), tmp_path) == ""
