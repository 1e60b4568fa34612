"""Sites: what is on the pages, whose it is, and that nothing of another's export is ever more than text."""

import html
import json
import re
import shutil
from pathlib import Path

import pytest
from layouts import configured, fill, forged
from test_web import HOSTILE

from diffbench import cli
from diffbench.reporting import exports, publishing
from diffbench.reporting.exports import ExportError
from diffbench.reporting.publishing import PublishError, publish
from diffbench.reporting.tables import make
from diffbench.store import files, paths

WORDS = ("variant", "item", "metric", "protocol", "spec", "device", "commit", "benchmark")
#: What must be nowhere in a page but as text.
MARKUP = ("<img src=x", "<script>alert", 'href="javascript:', " onmouseover=")
ATTACKS = (HOSTILE, '" onmouseover="alert(3)', "javascript:alert(4)", "=HYPERLINK(1)", "ours")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A results folder of made-up numbers with its tables and its page."""
    folder = tmp_path_factory.mktemp("ours")
    plan = configured(folder)
    fill(plan, folder / "digits")
    make(plan, folder / "digits")
    return folder / "digits"


def attack(row):
    """Put an attack into every word of a row, another one into each column."""
    for column, text in zip(WORDS, (ATTACKS * 2)[: len(WORDS)], strict=True):
        row[column] = f"{text} {row[column]}" if column == "metric" else text
    row["item"] = f"{HOSTILE}{row['seed']}{row['stage']}{row['check']}"


@pytest.fixture(scope="module")
def hostile(made, tmp_path_factory):
    """An export with attacks in its words, its JSON file and its origin; its checksums agree."""
    described = {
        "benchmark": HOSTILE,
        "origin": HOSTILE,
        "title": HOSTILE,
        "note": "javascript:alert(5)",
        "remark": HOSTILE,
        "variants": {HOSTILE: {"paper": HOSTILE}},
        "metrics": {HOSTILE: {"head": HOSTILE}},
        "environment": {"commits": [HOSTILE], "versions": {"diffbench": [HOSTILE]}},
        "ran": [HOSTILE],
    }
    path = tmp_path_factory.mktemp("theirs") / "theirs.csv"
    return forged(paths.table(made, "records", "csv"), path, attack, **described)


@pytest.fixture(scope="module")
def theirs(made, tmp_path_factory):
    """An export that is as it should be, of the same benchmark as ours."""
    path = tmp_path_factory.mktemp("alice") / "alice.csv"
    return forged(paths.table(made, "records", "csv"), path, origin="Alice & Bob")


@pytest.fixture(scope="module")
def site(made, theirs, hostile, tmp_path_factory):
    """A site of ours, and of two exports of others."""
    folder = tmp_path_factory.mktemp("site") / "site"
    publish([made, theirs, hostile], folder)
    return folder


def text_of(path):
    """A page's text without its library and styles."""
    return path.read_text().partition("<body>")[2].partition("<script")[0]


def rows_of(page, table):
    body = page.partition(f'id="{table}"')[2].partition("<tbody>")[2].partition("</tbody>")[0]
    return [
        [html.unescape(re.sub("<[^>]*>", "", cell)).strip() for cell in row.split("</td>")[:-1]]
        for row in body.split("</tr>")[:-1]
    ]


def test_the_overview_has_a_row_for_each_with_whose_it_is(site, made):
    ours, alice, bad = rows_of(text_of(site / "index.html"), "benchmarks")
    assert ours[:2] == ["ours", "tiny"] and alice[:2] == ["theirs: Alice & Bob", "tiny"]
    assert bad[0] == f"theirs: {HOSTILE}"
    frame = exports.read(made).frame
    cells = frame.drop_duplicates(["variant", "stage", "item", "metric"])
    assert ours[3:8] == [str(frame["variant"].nunique()), str(len(cells)), "0", "0", "0"]
    overview = json.loads((site / publishing.OVERVIEW).read_bytes())
    assert [each["cells"] for each in overview["pages"][:2]] == [len(cells)] * 2


def test_every_link_of_the_overview_is_a_page(site):
    links = re.findall(r'<td class="wrapped"><a href="([^"]*)"', text_of(site / "index.html"))
    assert links[:2] == ["tiny/index.html", "tiny-by-alice-bob/index.html"]
    assert all(re.fullmatch(r"[a-z0-9-]+/index\.html", each) for each in links)
    assert all((site / each).is_file() for each in links) and len(set(links)) == 3


def test_our_page_and_export_are_as_they_were_with_a_link_back(site, made):
    page = (site / "tiny" / "index.html").read_text()
    assert page.replace(f"\n{publishing.BACK}", "") == paths.page(made).read_text()
    assert text_of(site / "tiny" / "index.html").count(publishing.BACK) == 1
    for suffix in exports.SUFFIXES:
        there = (site / "tiny" / f"records.{suffix}").read_bytes()
        assert there == paths.table(made, "records", suffix).read_bytes()


def test_rows_of_others_are_marked_and_never_the_best(site):
    page = text_of(site / "tiny-by-alice-bob" / "index.html")
    rows = rows_of(page, "cells")
    whose = [row[0] for row in rows]
    assert set(whose) == {"ours", "theirs: Alice & Bob"}
    assert page.count('<tr class="theirs">') == whose.count("theirs: Alice & Bob")
    assert 'class="best' not in page and not any("*" in cell for row in rows for cell in row)
    fid = [row for row in rows if row[1:4] == ["edm", "heun-3", "fid"]]
    # The mean of 2.5, 2 and 5, as `layouts.FIDS` has them.
    assert [row[4] for row in fid] == ["3.16667"] * 2


def test_a_hostile_export_is_text_everywhere(site):
    for page in site.rglob("index.html"):
        content = page.read_text()
        for attack in MARKUP:
            assert attack not in content
        assert content.count("</script>") == content.count("<script")
        for tag in re.findall(r"<[a-z][^>]*>", text_of(page)):
            assert not re.search(r"\son\w+\s*=", tag), tag
    (folder,) = (each.parent for each in site.rglob("index.html") if "alert" in each.parent.name)
    assert folder.parent == site and len(folder.name) <= 124
    assert HOSTILE in rows_of(text_of(folder / "index.html"), "cells")[0][1]


def test_what_is_written_again_of_a_hostile_export_has_no_formula(site):
    (folder,) = (each.parent for each in site.rglob("index.html") if "alert" in each.parent.name)
    frame = exports.read(folder / "records.csv").frame
    assert (frame["protocol"] == "'=HYPERLINK(1)").all()


@pytest.mark.parametrize("name", ["", "../../etc", "index.html", ".", "CON", "a" * 500, "β"])
def test_no_name_leaves_the_site(name):
    assert re.fullmatch(r"[a-z0-9-]{1,60}", publishing._address(name))


def copied(folder, target):
    shutil.copytree(folder, target)
    return target


def test_folders_of_one_name_have_addresses_of_their_own_that_stay(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [copied(made, Path(each) / "digits") for each in "abc"]
    first = publish(given, Path("site"))
    assert first[1] == "tiny/index.html" and len(set(first)) == 4
    assert publish(given, Path("site")) == first
    # A further one after them changes none, and one that is left out only its own.
    fewer = publish([given[0], given[2]], Path("site"))
    assert fewer == [first[0], first[1], first[3]]
    assert not (Path("site") / first[2]).exists()


def test_the_same_folder_twice_is_refused(made, tmp_path):
    with pytest.raises(PublishError, match="is given twice"):
        publish([made, made / "." / "tables" / ".."], tmp_path / "site")


def broken(folder, what):
    """Break a results folder in one way."""
    if what == "page":
        paths.page(folder).unlink()
    elif what == "older page":
        page = paths.page(folder)
        page.write_text(page.read_text().replace('name="diffbench-records"', 'name="other"'))
    elif what == "row":
        path = paths.table(folder, "records", "csv")
        path.write_text(path.read_text().replace(",2.5,", ",2.4,", 1))
    elif what == "picture":
        page = paths.page(folder)
        page.write_text(page.read_text().replace("</main>", '<img src="runs/../../x.png"></main>'))
    else:
        paths.table(folder, "records", "csv").unlink()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("page", "there is no index.html in it"),
        ("older page", "was made from other numbers than records.csv"),
        ("row", "the row was changed after it was exported"),
        ("picture", "shows runs/../../x.png, which is not in the folder"),
        ("records", "there is no tables/records.csv in it"),
    ],
)
def test_a_broken_folder_is_one_line_and_leaves_the_site_as_it_was(
    made, site, tmp_path, capsys, what, said
):
    before = {path: files.sha256(path) for path in site.rglob("*") if path.is_file()}
    bad = copied(made, tmp_path / "bad")
    broken(bad, what)
    assert cli.main(["publish", str(made), str(bad), "--output", str(site)]) == 1
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1
    assert before == {path: files.sha256(path) for path in site.rglob("*") if path.is_file()}
    assert [each.name for each in site.parent.iterdir()] == ["site"]


def test_pictures_that_a_page_links_to_come_with_it(made, tmp_path):
    folder = copied(made, tmp_path / "results")
    page = paths.page(folder)
    page.write_text(page.read_text().replace("</main>", '<img src="runs/a&amp;b/grid.png"></main>'))
    (folder / "runs" / "a&b").mkdir()
    (folder / "runs" / "a&b" / "grid.png").write_bytes(b"png")
    publish([folder], tmp_path / "site")
    assert (tmp_path / "site" / "tiny" / "runs" / "a&b" / "grid.png").read_bytes() == b"png"


def test_files_of_others_in_the_sites_folder_stay(made, tmp_path, monkeypatch):
    site = tmp_path / "site"
    (site / ".git").mkdir(parents=True)
    (site / "CNAME").write_text("example.org")
    publish([made], site)
    monkeypatch.chdir(site)
    publish([made], Path())
    assert (site / "CNAME").read_text() == "example.org" and (site / ".git").is_dir()
    other = tmp_path / "other"
    (other / "tiny").mkdir(parents=True)
    with pytest.raises(PublishError, match="tiny is there already"):
        publish([made], other)
    assert [each.name for each in other.iterdir()] == ["tiny"]


def test_nothing_is_half_written(made, tmp_path, monkeypatch):
    def fail(rows):
        raise OSError("no space left")

    monkeypatch.setattr(publishing, "index", fail)
    with pytest.raises(OSError, match="no space left"):
        publish([made], tmp_path / "site")
    assert not any(tmp_path.iterdir())


def test_more_cells_than_a_page_holds_are_only_in_the_csv(theirs, tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "MOST_CELLS", 5)
    publish([theirs], tmp_path / "site")
    page = text_of(tmp_path / "site" / "tiny-by-alice-bob" / "index.html")
    assert len(rows_of(page, "cells")) == 5
    assert re.search(r"\d+ further cells are only there", page)


def test_an_export_without_an_origin_is_named_after_its_file(theirs, tmp_path):
    for suffix in ("csv", "json"):
        shutil.copy(theirs.with_suffix(f".{suffix}"), tmp_path / f"carol.{suffix}")
    about = json.loads((tmp_path / "carol.json").read_bytes())
    del about["origin"]
    files.write_json(tmp_path / "carol.json", about)
    (found,) = publishing.gathered([tmp_path / "carol.csv"])
    assert found.whose == "theirs: carol.csv"
    with pytest.raises(ExportError, match="there is no such export"):
        publishing.gathered([tmp_path / "dave.csv"])
