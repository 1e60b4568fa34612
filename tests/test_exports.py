"""Exports: what is written is read back, and what was changed is named."""

import csv
import io
import json

import jsonschema
import pytest
from commands import REPOSITORY
from layouts import configured, fill, metrics, rows_of

from diffbench import cli
from diffbench.reporting import exports, layout
from diffbench.reporting.exports import COLUMNS, ExportError
from diffbench.reporting.records import Records
from diffbench.reporting.tables import make
from diffbench.store import files, paths

METRICS = layout.read_tables(REPOSITORY).metrics


@pytest.fixture
def results(tmp_path):
    """A results folder with made-up numbers, whose tables and export are made."""
    plan = configured(tmp_path)
    fill(plan, tmp_path)
    make(plan, tmp_path)
    return plan, tmp_path


@pytest.fixture
def recorded(tmp_path):
    """The same, of which one job has a whole run record."""
    plan = configured(tmp_path)
    fill(plan, tmp_path)
    product = paths.product(tmp_path, plan.job("sample", "edm", 1, "heun-3").spec)
    ran = {
        "seconds": 3.0,
        "device": "cuda:0: NVIDIA H200",
        "commit": "c0ffee",
        "versions": {"torch": "2.13.0"},
    }
    files.write_json(paths.run_record(product), ran)
    make(plan, tmp_path)
    return tmp_path


def exported(folder):
    return paths.table(folder, "records", "csv")


def test_every_number_of_the_long_table_is_read_back_as_it_was(results):
    plan, folder = results
    export, frame = exports.read(folder), Records(plan, folder).frame
    assert len(export.frame) == len(frame) == export.about["rows"]
    for column in ("value", "se", "floor", "samples", "nfe", "seconds"):
        assert export.frame[column].equals(frame[column].astype(float))
    for column in ("variant", "stage", "item", "metric", "status", "spec"):
        assert export.frame[column].tolist() == frame[column].tolist()


def test_a_row_says_what_code_ran_it_and_where(recorded):
    export = exports.read(recorded)
    rows = [row for row in exports.lines(export.frame) if row["commit"]]
    assert {(row["variant"], row["seed"], row["item"]) for row in rows} == {("edm", 1, "heun-3")}
    assert {row["device"] for row in rows} == {"cuda:0: NVIDIA H200"}
    found = export.about["environment"]
    assert found["commits"] == ["c0ffee"] and found["versions"] == {"torch": ["2.13.0"]}
    assert found["devices"] == ["cpu", "cuda:0: NVIDIA H200"]


def test_the_file_beside_it_describes_it(results):
    plan, folder = results
    about = json.loads(exported(folder).with_suffix(".json").read_bytes())
    assert about["benchmark"] == plan.benchmark.name
    assert about["sha256"] == files.sha256(exported(folder))
    assert about["metrics"]["fid"]["better"] == "lower"
    assert about["variants"].keys() == plan.variants.keys()
    assert [each["name"] for each in about["columns"]] == list(COLUMNS)


def test_rows_have_the_documented_schema(results):
    _, folder = results
    frame = exports.read(folder).frame
    check = jsonschema.Draft202012Validator(exports.schema())
    for row in exports.lines(frame):
        shown = {
            name: None
            if value == "" or value != value
            else int(value)
            if kind == "integer"
            else value
            for (name, value), (kind, _) in zip(row.items(), COLUMNS.values(), strict=True)
        }
        check.validate(shown)
    with pytest.raises(jsonschema.ValidationError):
        check.validate({**shown, "value": "2.3"})


def test_a_changed_value_is_found_by_its_name(results):
    _, folder = results
    path = exported(folder)
    lines = path.read_text().splitlines(keepends=True)
    number = next(i for i, line in enumerate(lines) if ",heun-3," in line and ",fid," in line)
    lines[number] = lines[number].replace(",fid,", ",fid,1", 1)
    path.write_text("".join(lines))
    with pytest.raises(
        ExportError, match=rf"line {number + 1} \(edm sample heun-3 fid 0\): the row was changed"
    ) as e:
        exports.read(folder)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("change", ["remove", "repeat", "swap"])
def test_rows_that_went_came_or_moved_are_noticed(results, change):
    _, folder = results
    path = exported(folder)
    head, first, second, *rest = path.read_text().splitlines(keepends=True)
    kept = {"remove": [second], "repeat": [first, first, second], "swap": [second, first]}[change]
    path.write_text("".join([head, *kept, *rest]))
    with pytest.raises(ExportError, match="rows were added, removed or moved"):
        exports.read(path)


def test_what_is_no_export_is_refused_in_one_line(results, tmp_path_factory):
    _, folder = results
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(
        ExportError, match="there is no tables/records.csv in it: run diffbench table"
    ):
        exports.read(empty)
    with pytest.raises(ExportError, match="there is no such export"):
        exports.read(empty / "none.csv")
    path = exported(folder)
    described = path.with_suffix(".json")
    about = json.loads(described.read_bytes())
    files.write_json(described, about | {"version": 2})
    with pytest.raises(ExportError, match="version 2"):
        exports.read(path)
    described.write_text("[1]")
    with pytest.raises(ExportError, match="does not describe an export"):
        exports.read(path)
    described.unlink()
    with pytest.raises(ExportError, match="records.json is missing beside it"):
        exports.read(path)
    files.write_json(described, about)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ExportError, match="does not have the columns"):
        exports.read(path)


def test_a_failed_job_is_a_row_with_its_reason(tmp_path):
    plan = configured(tmp_path)
    fill(plan, tmp_path)
    job = plan.job("score", "edm", 1)
    path = paths.product(tmp_path, job.spec)
    path.write_bytes(path.read_bytes() + b" ")
    make(plan, tmp_path)
    bad = [
        row for row in rows_of(exported(tmp_path)) if row["variant"] == "edm" and row["seed"] == "1"
    ]
    bad = [
        row for row in bad if row["stage"] == "sample" and not row["metric"].endswith("_seconds")
    ]
    assert bad and {row["status"] for row in bad} == {"failed"}
    assert all(row["value"] == "" and "sha256" in row["reason"] for row in bad)


def test_parquet_has_the_same_numbers(results):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: make test")
    plan, folder = results
    table, beside = exports.write(Records(plan, folder), METRICS, folder / "all.parquet")
    assert pd.read_parquet(table).equals(exports.read(folder).frame)
    assert beside.name == "all.json"
    assert json.loads(beside.read_bytes())["sha256"] == files.sha256(table)
    assert exports.read(table).frame.equals(exports.read(folder).frame)
    with pytest.raises(ExportError, match=r"ends in .csv or .parquet, not in '.xlsx'"):
        exports.write(Records(plan, folder), METRICS, folder / "all.xlsx")
    assert not (folder / "all.xlsx").exists()


def changed_parquet(folder, change):
    """A Parquet export whose frame was changed and whose JSON file says that it is whole."""
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: make test")
    plan, root = folder
    table, beside = exports.write(Records(plan, root), METRICS, root / "all.parquet")
    content = io.BytesIO()
    change(pd.read_parquet(table)).to_parquet(content, index=False)
    table.write_bytes(content.getvalue())
    about = json.loads(beside.read_bytes())
    files.write_json(beside, about | {"sha256": files.sha256(table)})
    return table


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame.assign(value=9.0), "line 2 .*: the row was changed"),
        (lambda frame: frame.assign(value=float("inf")), "line 2 .*: the row was changed"),
        (lambda frame: frame.assign(value="=1"), "the column value has the type .*string"),
        (lambda frame: frame.assign(reason=[[1]] * len(frame)), "the column reason has the type"),
        (lambda frame: frame.drop(columns="se"), "does not have the columns"),
    ],
)
def test_a_parquet_file_of_other_rows_or_types_is_refused(results, change, said):
    with pytest.raises(ExportError, match=said):
        exports.read(changed_parquet(results, change))


def test_a_parquet_file_that_grows_when_it_is_read_is_refused(results, monkeypatch):
    """A dictionary holds a word once, however many rows have it."""
    table = changed_parquet(results, lambda frame: frame.assign(reason="a" * 10_000))
    most = 5_000 * len(exports.read(results[1]).frame)
    monkeypatch.setattr("diffbench.reporting.exports.table.MOST_BYTES", most)
    assert table.stat().st_size < most
    with pytest.raises(ExportError, match="bytes are more than an export has"):
        exports.read(table)


def test_what_is_no_parquet_is_refused(results):
    table = changed_parquet(results, lambda frame: frame)
    table.write_bytes(b"PAR1" + bytes(50))
    with pytest.raises(ExportError, match="it is not a Parquet file"):
        exports.read(table)


def test_an_export_says_who_made_it_and_when_its_jobs_ran(results):
    plan, folder = results
    product = paths.product(folder, plan.job("sample", "edm", 1, "heun-3").spec)
    files.write_json(
        paths.run_record(product), {"seconds": 1.0, "start": "2026-01-02T03:04:05+00:00"}
    )
    _, beside = exports.write(Records(plan, folder), METRICS, folder / "mine.csv", "  Jane\n Doe ")
    about = exports.read(folder / "mine.csv").about
    assert about["origin"] == "Jane Doe" and about["title"] == plan.benchmark.data.title
    assert about["ran"] == ["2026-01-02T03:04:05+00:00"] * 2
    assert "origin" not in exports.read(folder).about


def test_a_table_cannot_take_the_exports_name(tmp_path):
    table = {
        "layout": "comparison",
        "title": "t",
        "columns": {"FID": "fid"},
        "rows": [{"row": "a", "variant": "v", "item": "i"}],
    }
    with pytest.raises(ValueError, match="a table cannot be called 'records': this is the export"):
        layout.TablesSpec.model_validate({"metrics": metrics(), "tables": {"records": table}})


def test_the_command_prints_the_schema(capsys):
    assert cli.main(["export", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == exports.schema()


def test_the_order_of_columns_is_the_files(results):
    _, folder = results
    head = next(csv.reader(io.StringIO(exported(folder).read_text())))
    assert head == list(COLUMNS)
