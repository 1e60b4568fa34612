"""The map of the package tells the truth: rooms, their order, the files and the words that it names."""

import re
import tomllib
from pathlib import Path

from commands import REPOSITORY

PAGE = (REPOSITORY / "docs" / "architecture.md").read_text()
CONTRACTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]


def layers(container: str) -> list[str]:
    """The rooms of a contract from the top down, those side by side in one entry each."""
    (found,) = [each["layers"] for each in CONTRACTS if each.get("containers") == [container]]
    return [room.strip() for line in found for room in line.split(":")]


def test_the_picture_has_the_rooms_of_the_import_contract_in_their_order() -> None:
    drawn = re.findall(r"(\w+)\[\"([\w, ]+):", PAGE)
    rooms = [room.strip() for _, named in drawn for room in named.split(",")]
    assert rooms == layers("diffbench")


def test_the_rooms_of_diffusion_are_named_from_the_bottom() -> None:
    (text,) = re.findall(r"Inside `diffusion`, from the bottom: (.*?)\.\n", PAGE, re.DOTALL)
    assert re.findall(r"`(\w+)`", text) == layers("diffbench.diffusion")[::-1]


def test_every_file_and_folder_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`((?:\w+/)+(?:\w+\.(?:py|yaml|smk|md))?)`", PAGE))
    assert len(named) > 15
    # Of modules the page leaves `diffbench/` out.
    missing = [
        name
        for name in named
        if not any((root / name).exists() for root in (REPOSITORY, REPOSITORY / "diffbench"))
    ]
    assert not missing


def test_each_room_says_what_it_is() -> None:
    for room in (REPOSITORY / "diffbench").rglob("__init__.py"):
        text = room.read_text()
        assert text.startswith(('"""', 'r"""')), room


def test_tests_are_named_after_what_they_test() -> None:
    """As tests/README.md says: after a module or room of the package, a file or a subject that it lists."""
    package = REPOSITORY / "diffbench"
    modules = {path.stem for path in package.rglob("*.py")} | {
        path.name for path in package.rglob("*") if path.is_dir()
    }
    listed = (Path(__file__).parent / "README.md").read_text()
    strange = [
        path.name
        for path in Path(__file__).parent.glob("test_*.py")
        if path.stem.removeprefix("test_") not in modules and path.name not in listed
    ]
    assert not strange
