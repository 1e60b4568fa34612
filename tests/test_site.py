"""The documentation's site: its code is valid, its links lead somewhere, its pages of papers tell what is so."""

from __future__ import annotations

import ast
import doctest
import importlib
import io
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fast_yaml
import matplotlib.image
import pytest
from blocks import Block, Page, pages
from commands import REPOSITORY, forget

from diffbench.cli import commands, every
from diffbench.cli.command import parser, setting
from diffbench.metrics.torchvision_operators import ensure_importable
from diffbench.plan.loading import load_plan
from diffbench.specs.errors import PlanError

HOOKS = REPOSITORY / "docs" / "hooks"
#: The modules whose docstrings have examples.
EXAMPLES = [
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    for path in sorted((REPOSITORY / "diffbench").rglob("*.py"))
    if ">>> " in path.read_text()
]
#: Programs whose words are not checked: the shell's own, and those of a cluster.
OTHERS = {
    "cat",
    "cd",
    "source",
    "pip",
    "pre-commit",
    "git",
    "pytest",
    "python",
    "srun",
    "sbatch",
    "squeue",
    "tail",
}
#: Benchmark files of the reader.
OWN = {"my.yaml", "mine.yaml"}


@pytest.fixture(scope="module")
def made() -> Mapping[str, Any]:
    """The modules that make pages, by name."""
    sys.path.insert(0, str(HOOKS))
    try:
        return {
            name: importlib.import_module(name)
            for name in ("gallery", "links", "papers", "reference")
        }
    finally:
        sys.path.remove(str(HOOKS))


@pytest.fixture(scope="module")
def of_papers(made) -> Mapping[str, str]:
    return made["papers"].pages(REPOSITORY)


def blocks(*languages: str) -> list[Block]:
    return [each for page in pages() for each in page.blocks if each.language in languages]


def named(block: Block) -> str:
    return f"{block.page.relative_to(REPOSITORY)}: {block.text.strip().splitlines()[0][:40]}"


def programs(block: Block) -> Iterator[tuple[str, list[str]]]:
    """The name of each command's program, and its words; variables of the environment are left out."""
    for words in block.commands:
        while re.match(r"[A-Z_]+=", words[0]):
            words = words[1:]
        yield words[0].removeprefix(".venv/bin/"), words[1:]


def check_diffbench(words: list[str]) -> None:
    """The command line takes the words, and the files of the repository that they name are there."""
    if words[0] in ("--help", "--version") or words[0].isupper():
        return
    parser(commands(words[0])).parse_args(words)
    for word in words:
        if re.fullmatch(r"(?:config|examples)/[\w/.-]+", word):
            assert (REPOSITORY / word).is_file() or Path(word).name in OWN, word


def check_snakemake(words: list[str], here: Path) -> None:
    """Snakemake takes the options, and the benchmark takes the keys that `--config` gives it."""
    from snakemake.cli import get_argument_parser

    known = get_argument_parser()
    given = known.parse_args([each for each in words if each != "..."])
    files = [Path(each) for each in given.configfile or []]
    places = [REPOSITORY / each if (REPOSITORY / each).is_file() else here / each for each in files]
    if all(each.is_file() for each in places):
        overrides = {k: v for each in given.config or [] for k, v in setting(each).items()}
        load_plan(places, overrides, REPOSITORY, needs_files=False)
    else:
        assert {each.name for each in places} <= OWN, places


def check_make(words: list[str]) -> None:
    text = (REPOSITORY / "Makefile").read_text()
    for target in (each for each in words if "=" not in each and not each.startswith("-")):
        assert re.search(rf"^(?:[\w-]+ )*{target}(?: [\w-]+)*:", text, re.MULTILINE), target


def check(block: Block, here: Path) -> None:
    """Each command of a block is one that its program takes."""
    for program, words in programs(block):
        if program == "diffbench":
            check_diffbench(words)
        elif program == "snakemake":
            check_snakemake(words, here)
        elif program == "make":
            check_make(words)
        elif program == ".ci/run":
            assert (REPOSITORY / program).is_file()
        else:
            assert program in OTHERS, program


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory like one of `diffbench init`; what extensions in it registered is forgotten at the end."""
    for name in ("config", "examples", "profiles"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for path in tmp_path.glob("*.py"):
        forget(path)


@pytest.mark.parametrize(
    "page", [each for each in pages() if each.blocks], ids=lambda p: p.file.stem
)
def test_every_command_is_one_that_its_program_takes(page: Page, folder: Path, capsys) -> None:
    for name, text in page.titled().items():
        (folder / name).write_text(text)
    for file, kind in WRITTEN.get(page.file.name, {}).items():
        subprocess.run([sys.executable, "-m", "diffbench", "new", kind, file], check=True)
    for block in page.blocks:
        try:
            check(block, folder)
        except SystemExit:
            pytest.fail(f"{named(block)}: {capsys.readouterr().err}")


#: Of pages whose commands write files: the name and the kind of what `diffbench new` writes.
WRITTEN = {
    "own-method.md": {"cosine-angle": "process", "feature-gap": "metric", "nearest": "restorer"},
}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("diffbench estimat config/digits.yaml", "invalid choice: 'estimat'"),
        ("diffbench estimate config/digits.yaml --stps 3", "unrecognized arguments: --stps"),
        ("snakemake --coers 2", "ambiguous|unrecognized arguments: --coers"),
    ],
)
def test_a_command_that_is_none_is_found(command: str, said: str, folder: Path, capsys) -> None:
    with pytest.raises(SystemExit):
        check(Block(REPOSITORY, "bash", command), folder)
    assert re.search(said, capsys.readouterr().err)


def test_a_file_target_or_key_that_is_none_is_found(folder: Path) -> None:
    for command in ("diffbench check-config config/digit.yaml", "make tabels", "dvc repro"):
        with pytest.raises(AssertionError):
            check(Block(REPOSITORY, "bash", command), folder)
    command = "snakemake --cores 2 --configfile config/digits.yaml --config only=nothing"
    with pytest.raises(PlanError, match="nothing"):
        check(Block(REPOSITORY, "bash", command), folder)


@pytest.mark.parametrize("block", blocks("yaml"), ids=named)
def test_a_block_of_yaml_is_yaml_and_a_whole_benchmark_file_plans(
    block: Block, folder: Path
) -> None:
    if block.title:
        (page,) = [each for each in pages() if each.file == block.page]
        for name, text in page.titled().items():
            (folder / name).write_text(text)
        assert load_plan([folder / block.title], {}, REPOSITORY, needs_files=False).jobs
    else:
        # A block may show two ways of writing a key.
        parts = re.split(r"\n(?=measures:)", block.text)
        assert all(isinstance(fast_yaml.load(part), dict) for part in parts)
        assert "chunk:" not in block.text, "a whole file has a title"


@pytest.mark.parametrize("block", blocks("python"), ids=named)
def test_what_python_blocks_import_is_there(block: Block) -> None:
    ensure_importable()  # diffusers imports torchvision
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            assert all(hasattr(module, each.name) for each in node.names), ast.unparse(node)


def test_the_pages_of_papers_count_every_published_number_once(of_papers) -> None:
    """The rows of all pages are the rows of docs/coverage.md, and those that are filled are as many."""
    coverage = (REPOSITORY / "docs" / "coverage.md").read_text()
    counts = re.findall(r"^## .*: (\d+) of (\d+)$", coverage, re.MULTILINE)
    told = [re.search(r"^(\d+) of (\d+) published", text, re.M) for text in of_papers.values()]
    for part in (1, 2):
        assert sum(int(each[part]) for each in told if each) == sum(
            int(c[part - 1]) for c in counts
        )


def test_the_commands_of_the_papers_pages_plan_what_fills_their_tables(of_papers, folder) -> None:
    count = 0
    for name, text in of_papers.items():
        for block in Page(REPOSITORY / name, text).blocks:
            check(block, folder)
            count += len(block.commands)
    assert count > 20


def test_the_papers_pages_have_every_setting_that_differs(of_papers) -> None:
    """Every reason of docs/settings.md stands on the page of the paper whose variants it is about."""
    settings = (REPOSITORY / "docs" / "settings.md").read_text()
    found = 0
    for paper, text in re.findall(r"^## [\w.-]+: (\S+)\n\n((?:\|.*\n)+)", settings, re.MULTILINE):
        reasons = {line.rsplit("|", 2)[1].strip() for line in text.splitlines()[2:]} - {""}
        assert all(reason in of_papers[f"papers/{paper}.md"] for reason in reasons)
        found += len(reasons)
    assert found > 20


@pytest.mark.parametrize("module", EXAMPLES)
def test_the_examples_of_docstrings_print_what_they_say(module: str) -> None:
    done = doctest.testmod(importlib.import_module(module))
    assert done.attempted and not done.failed


def test_every_page_of_a_paper_is_in_the_navigation(of_papers) -> None:
    navigation = (REPOSITORY / "mkdocs.yml").read_text()
    listed = re.findall(r"- (papers/[\w-]+\.md)", navigation)
    assert sorted(listed) == sorted(of_papers)


def test_mentions_of_pages_become_links_outside_code(made) -> None:
    known = {"docs/a/b.md": "a/b.md", "docs/c.md": "c.md", "README.md": "index.md"}
    text = "See `docs/c.md`, `docs/a/b.md`, [c](../c.md#top), [w](https://w.org), `docs/d.md`.\n"
    assert made["links"].linked(text, "a/b.md", known) == (
        "See [`docs/c.md`](../c.md), `docs/a/b.md`, [c](../c.md#top), [w](https://w.org), `docs/d.md`.\n"
    )
    assert made["links"].linked("![p](docs/c.md)", "index.md", known) == "![p](c.md)"
    assert made["links"].linked("<!-- made -->\n# T\n", "index.md", known) == "# T\n"
    code = "\n    cat `docs/c.md`\n\n```sh\ncat `docs/c.md`\n```\n"
    assert made["links"].linked(code, "index.md", known) == code


def test_a_diagram_is_drawn_as_a_chain_or_refused(made) -> None:
    drawn = made["links"].chain('a["x: <1>"] --> b["y"]\nb --> c["z"]\n')
    assert re.findall("<li>(.*?)</li>", drawn) == ["x: &lt;1&gt;", "y", "z"]
    with pytest.raises(ValueError, match="only a chain"):
        made["links"].chain('a["x"] --> b["y"]\na --> c["z"]\n')


@pytest.mark.parametrize(
    "program", sorted((HOOKS.parent / "figures").glob("*.py")), ids=lambda p: p.stem
)
def test_a_figure_of_the_gallery_is_drawn(made, program: Path) -> None:
    image = matplotlib.image.imread(io.BytesIO(made["gallery"].drawn(program)))
    # Something is drawn: lines or pictures in more than a hundredth of the pixels.
    assert (image[..., :3].min(-1) < 0.99).mean() > 0.01


def test_the_reference_has_every_command_kind_and_module(made) -> None:
    found = made["reference"].pages()
    commanded = re.findall(r"^### (\S+)$", found["reference/commands.md"], re.MULTILINE)
    assert sorted(commanded) == sorted(each.name for each in every())
    assert "| `heun` |" in found["reference/names.md"]
    modules = re.findall(r"^::: (\S+)$", "\n".join(found.values()), re.MULTILINE)
    files = [
        each
        for room in ("diffusion", "metrics")
        for each in (REPOSITORY / "diffbench" / room).rglob("*.py")
        if each.name != "__init__.py"
    ]
    assert len(modules) == len(set(modules)) == len(files) + 1
