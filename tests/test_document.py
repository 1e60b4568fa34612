"""The documents that benchmarks are read from: what is expanded, and the bounds of what is read."""

import os

import pytest
import yaml

from diffbench.plan.document import DEEPEST, LARGEST, MOST_DIGITS, MOST_VALUES, parsed
from diffbench.plan.reading import read
from diffbench.specs.errors import PlanError
from diffbench.store import files


def bomb(levels: int, width: int = 9) -> str:
    """Lists of aliases of lists: ``width`` to the power of ``levels`` values in a few lines."""
    lines = ["a0: &a0 [1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels + 1)]
    return "\n".join(lines)


def refused(text: str) -> str:
    with pytest.raises(PlanError) as error:
        parsed(text, "b.yaml")
    return str(error.value)


def test_merge_keys_are_expanded_as_pyyaml_expands_them():
    text = """
one: &one {a: 1, b: 1}
two: &two {b: 2, c: 2}
single: {<<: *one, a: 3}
both: {<<: [*one, *two], d: 4}
again: {<<: {<<: *two, c: 5}, b: 6}
"""
    value, origins = parsed(text, "b.yaml")
    assert value == yaml.safe_load(text)
    assert origins["both", "c"] == "b.yaml:3"
    assert origins["single", "a"] == "b.yaml:4"


@pytest.mark.parametrize("merged", ["3", "[3]", "[{a: 1}, [b]]"])
def test_only_mappings_can_be_merged(merged):
    assert "b.yaml:1: x.<<: must be a mapping to merge" in refused(f"x: {{<<: {merged}}}")


def test_the_number_of_values_that_aliases_repeat_is_said_before_they_are_expanded():
    # Level i has 9^i + .. + 9 + 1 lists, and 9^i ones below them.
    values = 1 + sum(sum(9**j for j in range(i + 1)) + 9**i for i in range(9))
    assert values > 10**8
    assert f"{values:,} values" in refused(bomb(8))
    assert parsed(bomb(4), "b.yaml")[0]


def test_a_merge_key_is_no_way_around_the_bound():
    lines = ["a0: &a0 {k: 1}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 9)]
    assert "values" in refused("\n".join(lines))


@pytest.mark.parametrize(
    "text",
    [
        "x: &x [*x]",
        "x: &x {<<: *x}",
        "x: " + "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1),
        "x: " + "[" * 20000,
    ],
)
def test_what_has_no_end_is_refused(text):
    assert "nest too deep" in refused(text)


def test_a_document_of_too_many_values_or_characters_is_refused():
    assert f"{MOST_VALUES + 3:,} values" in refused(f"x: [{'1,' * (MOST_VALUES + 1)}]")
    assert f"at most {LARGEST:,}" in refused("x: " + "y" * LARGEST)


@pytest.mark.parametrize("number", ["1" * 5000, "0x" + "f" * 5000])
def test_a_number_of_too_many_digits_is_refused(number):
    message = refused(f"a: 1\nx: {number}")
    assert message.startswith(f"b.yaml:2: x: a number of {len(number):,} digits")
    assert str(MOST_DIGITS) in message


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_only_regular_files_are_read(tmp_path, make):
    """A pipe has no end before a writer comes, and a device none at all."""
    make(tmp_path / "b.yaml")
    with pytest.raises(PlanError, match=r"b\.yaml: not a regular file"):
        read(tmp_path / "b.yaml")


def test_a_file_is_read_up_to_a_bound(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert files.read_bytes(path, 5) == b"12345"
    with pytest.raises(ValueError, match="5 bytes; at most 4"):
        files.read_bytes(path, 4)


def test_code_for_snakemakes_reader_is_refused(tmp_path):
    (tmp_path / "b.yaml").write_text("__use_yte__: true\nname: x\n")
    with pytest.raises(PlanError, match=r"b\.yaml:1: __use_yte__: Snakemake would run"):
        read(tmp_path / "b.yaml")


def test_a_message_shows_control_characters_as_text():
    assert str(PlanError("a\x1b[2Jb\u202ec\n d")) == "a\\x1b[2Jb\\u202ec d"
