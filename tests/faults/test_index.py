"""Each test that the index of trials names is there."""

import re
from pathlib import Path

HERE = Path(__file__).parent


def test_the_index_names_tests_that_are_there():
    named = re.findall(r"`((?:faults/)?test_\w+)(?:::(\w+))?`", (HERE / "README.md").read_text())
    assert len(named) > 25
    for module, test in named:
        file = HERE.parent / f"{module}.py"
        assert file.is_file(), module
        assert not test or f"def {test}(" in file.read_text(), (module, test)
