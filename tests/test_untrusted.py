"""Exports of others: what is wrong is refused in one line, and what is hostile is made harmless."""

import json

import pytest
from layouts import configured, fill, forged, whole

from diffbench import cli
from diffbench.reporting import exports, layout
from diffbench.reporting.exports import ExportError
from diffbench.reporting.records import Records
from diffbench.reporting.untrusted import described, neutral, printable


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """An export that is whole."""
    folder = tmp_path_factory.mktemp("export")
    plan = configured(folder)
    fill(plan, folder / "results")
    path = folder / "whole.csv"
    exports.write(Records(plan, folder / "results"), layout.of_plan(plan).metrics, path)
    return path


@pytest.fixture
def copied(export, tmp_path):
    """A copy of it."""
    return forged(export, tmp_path / "copied.csv")


def rewrite(path, content, **told):
    """Write other content into an export whose checksum agrees."""
    return whole(path, content, json.loads(path.with_suffix(".json").read_bytes()) | told)


def refusal(path):
    with pytest.raises(ExportError) as error:
        exports.read(path)
    said = str(error.value)
    assert said.startswith(str(path.with_suffix(""))) and len(said.splitlines()) == 1
    assert len(said) < 400 and said.isprintable()
    return said


def changed(path, column, value):
    """The export with a field of its first row changed, and its checksums made to agree."""
    first = iter([{column: value}])
    return forged(path, path, lambda row: row.update(next(first, {})))


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("value", "nan", "value must be a finite number, not 'nan'"),
        ("value", "inf", "value must be a finite number, not 'inf'"),
        ("value", "1e999", "value must be a finite number, not '1e999'"),
        ("value", "=1+1", "value must be a finite number"),
        ("value", "9" * 5000, "value must be a finite number"),
        ("samples", "2.5", "samples must be a finite integer, not '2.5'"),
        ("samples", "1" * 400, "samples must be a finite integer"),
        ("seed", "", "seed must be an integer, and is empty"),
        ("seed", "٣", "seed must be a finite integer"),
        ("status", "best", "status must be ok, failed, stale or missing, not 'best'"),
        ("variant", "a" * 30_000, "variant has 30,000 characters"),
    ],
)
def test_a_row_of_other_types_is_refused_by_its_cell(copied, column, value, said):
    assert "line 2 (" in (found := refusal(changed(copied, column, value)))
    assert said in found


def test_a_cell_that_is_there_twice_is_refused(copied):
    lines = copied.read_text().splitlines(keepends=True)
    content = "".join([*lines, lines[1]]).encode()
    assert "the cell is there twice" in refusal(rewrite(copied, content, rows=len(lines)))


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("benchmark,benchmark", "does not have the columns"),
        ("<script>,value", "does not have the columns"),
        ("\ufeffbenchmark", "does not have the columns"),
    ],
)
def test_other_columns_are_refused(copied, head, said):
    _, *rest = copied.read_text().splitlines(keepends=True)
    assert said in refusal(rewrite(copied, (head + "\n" + "".join(rest)).encode()))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'"open\n', b"", b"\x00" * 40])
def test_what_is_no_table_is_refused(copied, content):
    refusal(rewrite(copied, content))


def test_a_row_with_a_field_too_many_is_refused(copied):
    head, first, *rest = copied.read_text().splitlines(keepends=True)
    content = "".join([head, first.replace("\n", ",more\n"), *rest])
    assert "line 2: 23 fields, not 22" in refusal(rewrite(copied, content.encode()))


def test_absurd_sizes_are_refused_before_they_are_read(copied, monkeypatch):
    monkeypatch.setattr("diffbench.reporting.exports.row.MOST_ROWS", 3)
    assert "rows are more than an export has (3)" in refusal(copied)
    monkeypatch.setattr("diffbench.reporting.exports.table.MOST_BYTES", 1000)
    assert "bytes are more than an export has (1,000)" in refusal(copied)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"benchmark": ["digits"]}, "benchmark: Input should be a valid string"),
        ({"metrics": {"fid": {"head": 3}}}, "metrics.fid.head: Input should be a valid string"),
        ({"metrics": {"fid": {"head": "FID", "better": "mine"}}}, "metrics.fid.better: "),
        ({"variants": {"vp": []}}, "variants.vp: "),
        ({"variants": {"vp": {"control": "split"}}}, "variants.vp.control: "),
        ({"settings": {"data": "digits"}}, "settings.data: "),
        ({"environment": {"commits": "c0ffee"}}, "environment.commits: "),
        ({"origin": "a" * 300}, "origin: "),
        ({"rows": True}, "rows: "),
        ({"note": [[[]]] * 3}, "note: "),
        ({"format": "\x1b[31m" * 100}, "is of format "),
    ],
)
def test_a_json_file_of_other_types_is_refused_by_its_key(copied, told, said):
    assert said in refusal(rewrite(copied, copied.read_bytes(), **told))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[" * 200_000, "nested too deeply"),
        ('{"a": ' + "[" * 50 + "]" * 50 + "}", "nested too deeply"),
        ('{"a": NaN}', "NaN is not a number of JSON"),
        ('{"a": 1e999}', "infinite"),
        ('{"a": ' + "1" * 5000 + "}", ""),
        ("null", "not a JSON object"),
    ],
)
def test_json_that_is_deep_or_no_object_is_refused(copied, content, said):
    copied.with_suffix(".json").write_text(content)
    assert said in refusal(copied)


def test_characters_that_a_terminal_obeys_are_marked(copied, capsys):
    path = changed(copied, "item", "\x1b[2J\x07heun\u202e3")
    assert "\x1b" in path.read_text()
    assert exports.read(path).frame["item"][0] == "\ufffd[2J\ufffdheun\ufffd3"
    assert printable("a\u00a0b") == "a b"
    assert cli.main(["compare", str(path), str(path)]) == 0
    assert "\x1b" not in capsys.readouterr().out
    assert described(b'{"a\\u001b": "\\u0007"}') == {"a\ufffd": "\ufffd"}


@pytest.mark.parametrize("field", ["=1+1", "+1", "-1+2", "@SUM(A1)", "\t=1"])
def test_formulas_are_neutral_in_what_is_written_again(copied, field, tmp_path):
    written = exports.rewritten(exports.read(changed(copied, "reason", field)))
    again = tmp_path / "again.csv"
    for suffix, content in written.items():
        again.with_suffix(f".{suffix}").write_bytes(content)
    # White space around a field goes when it is written.
    assert exports.read(again).frame["reason"][0] == f"'{field.strip()}"


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@a", "\t=1", "\r=1"])
def test_a_formula_is_behind_an_apostrophe(text):
    assert neutral(text) == f"'{text}"


@pytest.mark.parametrize("text", ["-", "", "vp", "a=1", "2e-4"])
def test_other_text_is_left_as_it_is(text):
    assert neutral(text) == printable(text) == text


def test_an_export_without_formulas_is_written_again_as_it_was(export):
    written = exports.rewritten(exports.read(export))
    assert written["csv"] == export.read_bytes()
    assert json.loads(written["json"]) == json.loads(export.with_suffix(".json").read_bytes())
