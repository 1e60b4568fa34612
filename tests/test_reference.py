"""The table of recorded arrays in tests/README.md says all there is, and nothing that is not."""

import importlib
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from toys import REFERENCE


class Row(NamedTuple):
    """One line of the table: file patterns, array patterns, a test or ``input`` or a dash."""

    files: list[str]
    arrays: list[str]
    test: str
    note: str

    def matches(self, file: str, array: str) -> bool:
        return any(fnmatchcase(file, f) for f in self.files) and any(
            fnmatchcase(array, a) for a in self.arrays
        )


def table() -> list[Row]:
    text = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
    lines = text.split("| files | arrays |")[1].splitlines()[2:]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("|")]
    ticked = re.compile(r"`([^`]+)`").findall
    return [Row(ticked(f), ticked(a), t.strip(" `"), note.strip()) for f, a, t, note in rows]


ROWS = table()
KEYS = [(path.stem, key) for path in sorted(REFERENCE.glob("*.npz")) for key in np.load(path).files]


@pytest.mark.parametrize("file", sorted({file for file, _ in KEYS}))
def test_every_array_has_one_row(file: str) -> None:
    counts = {key: sum(row.matches(file, key) for row in ROWS) for f, key in KEYS if f == file}
    assert {key: n for key, n in counts.items() if n != 1} == {}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.files[0]}-{row.arrays[0]}")
def test_every_pattern_matches_and_every_test_exists(row: Row) -> None:
    for files in row.files:
        for arrays in row.arrays:
            assert any(fnmatchcase(f, files) and fnmatchcase(a, arrays) for f, a in KEYS)
    if row.test in ("input", "-"):
        assert row.test == "input" or row.note
    else:
        module, name = row.test.split("::")
        assert callable(getattr(importlib.import_module(module), name))
