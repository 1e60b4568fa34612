"""Pages of results: what is in them, and what they do in a browser (``web/inspect.mjs``)."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import CONFIG, REPOSITORY
from filelock import FileLock
from layouts import forged

from diffbench.plan.loading import load_plan
from diffbench.reporting import exports
from diffbench.reporting.charts import Chart, Line, Panel, Point
from diffbench.reporting.formats import Grid, Source, Table
from diffbench.reporting.publishing import publish
from diffbench.reporting.records import Records
from diffbench.reporting.tables import outputs
from diffbench.reporting.web import page as page_module
from diffbench.reporting.web.page import page
from diffbench.specs.benchmark import names
from diffbench.store import files, paths

WEB = Path(__file__).parent / "web"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
LACKING = [name for name in ("npm", "node") if not shutil.which(name)] + ["chromium"] * (
    not CHROMIUM
)
browser = pytest.mark.skipif(
    bool(LACKING), reason=f"{', '.join(LACKING)} not found: make test-system says what to install"
)
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def tiny(first) -> tuple[Records, Path]:
    """The records of the tiny run, and its page."""
    folder, _ = first
    plan = load_plan([folder / CONFIG], {}, REPOSITORY)
    root = folder / plan.root
    return Records(plan, root), paths.page(root)


def made(records: Records, tables=None, charts=None) -> str:
    from diffbench.reporting import layout

    export = exports.of(records, layout.of_plan(records.plan).metrics)
    drawn = {name: (chart.png(), chart.csv(name)) for name, chart in (charts or {}).items()}
    return page(records, export, tables or {}, charts or {}, drawn)


def data_of(text: str) -> dict:
    return json.loads(text.partition('id="data">')[2].partition("</script>")[0])


def test_a_run_makes_the_page_and_says_so(tiny):
    records, path = tiny
    assert path in outputs(records.plan, records.root)
    text = path.read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert "http://" not in text.partition("<body>")[2].partition("<script")[0]
    assert len(text) < 10e6


def test_each_number_names_the_job_it_came_from(tiny):
    records, path = tiny
    data, export = data_of(path.read_text()), exports.read(records.root)
    assert len(data["numbers"]) == len(export.frame)
    for row, number in zip(exports.lines(export.frame), data["numbers"], strict=True):
        job = data["jobs"][number[-1]]
        assert job["name"].startswith(row["variant"])
        assert job["command"].startswith("snakemake ")
        shown = number[4]
        # Six significant digits.
        assert (shown is None) == (row["value"] != row["value"])
        assert shown is None or shown == pytest.approx(row["value"], rel=5e-6)
    files = [product["file"] for product in data["products"]]
    assert len(files) == len(set(files))
    for product in data["products"]:
        assert product["status"] == "ok"
        assert len(product["sha256"]) == 64


def test_a_cell_opens_the_jobs_of_its_own_number(tiny):
    """In a comparison, in the claims, and for bits per dimension."""
    records, path = tiny
    text = path.read_text()
    jobs = data_of(text)["jobs"]
    opened = {}
    for name in ("overview", "iddpm-variance", "claims"):
        part = text.partition(f'id="table-{name}"')[2].partition("</section>")[0]
        cells = re.findall(r'<td [^>]*data-jobs="([\d ]+)"[^>]*>([^<]*)<', part)
        opened[name] = {jobs[int(i)]["name"] for indices, _ in cells for i in indices.split()}
    bits = {f"{job.variant} {job.item} seed 0" for job in records.plan.of("likelihood")}
    assert opened["overview"] == bits
    both = {"iddpm-hybrid vlb-learned seed 0", "ddpm-cosine vlb-small seed 0"}
    assert opened["iddpm-variance"] == both | {"ddpm-cosine ancestral-10 seed 0"}
    assert opened["claims"] >= both


@pytest.mark.parametrize("kind", ["published", "recorded"])
def test_a_published_or_recorded_number_opens_its_row(tiny, kind):
    records, _ = tiny
    row = {"paper": "ddpm", "value": "3.17", "method": HOSTILE, "address": "https://arxiv.org/a"}
    grid = Grid(["row", "FID"], [["eps", "3.17"]], cells={(0, 1): Source(**{kind: row})})
    text = made(records, {"paper": Table("t", [], [grid])})
    (held,) = re.findall(rf'data-{kind}="([^"]*)">3.17<', text)
    assert json.loads(html.unescape(held)) == row
    assert HOSTILE not in text


def test_text_of_results_is_never_markup(tiny):
    records, _ = tiny
    grid = Grid(["variant", HOSTILE], [[HOSTILE, "1.0†"]], caption=HOSTILE)
    table = Table(HOSTILE, [], [grid], [HOSTILE], [HOSTILE])
    chart = Chart(HOSTILE, "x", [Panel("y", [Line(HOSTILE, [Point(1.0, 2.0, note=HOSTILE)])])])
    text = made(records, {"overview": table}, {"curve": chart})
    assert HOSTILE not in text
    assert "<img src=x" not in text
    # plotly's, and nothing of the results.
    assert text.count("<script") == made(records).count("<script") + 1
    (drawn,) = data_of(text)["plots"]["curve"]["panels"][0]["traces"]
    assert drawn["legend"] == HOSTILE


def test_only_a_page_with_charts_has_plotly(tiny):
    records, path = tiny
    assert len(path.read_text()) - len(made(records)) > 4e6
    assert data_of(made(records))["plots"] == {}


def test_a_claims_effect_is_drawn_on_a_scale_of_its_own(tiny):
    records, _ = tiny
    numbers = {"effect": "-2", "low": "-4", "high": "1", "metric": "fid", "verdict": "undecided"}
    line = SimpleNamespace(
        line=lambda table: {"id": "a", "claim": HOSTILE, **numbers},
        source=Source([("ddpm-cosine", "ancestral-10")]),
    )
    lacking = SimpleNamespace(
        line=lambda table: {"id": "b", "claim": "none", **numbers, "effect": "-"}
    )
    text = made(records, {"claims": Table("Claims", [line, lacking], [Grid(["claim"], [["a"]])])})
    drawn = text.partition('<table class="effects">')[2].partition("</table>")[0]
    assert drawn.count("<svg") == 1
    (index,) = re.findall(r'<tr data-jobs="(\d+)">', drawn)
    assert data_of(text)["jobs"][int(index)]["name"] == "ddpm-cosine ancestral-10 seed 0"
    assert 'x1="-100.0" y1="0" x2="25.0"' in drawn
    assert 'cx="-50.0"' in drawn
    assert "-2.00 (-4.00 to 1.00) in FID" in drawn
    assert HOSTILE not in text


def test_samples_beyond_the_pages_size_are_linked(tiny, monkeypatch):
    records, path = tiny
    text = path.read_text()
    inside = text.count('alt="Samples of')
    assert inside == len({job.variant for job in records.plan.of("sample")})
    monkeypatch.setattr(page_module, "GALLERY_BYTES", 0)
    linked = re.findall(r'<img src="(runs/[^"]*)" alt="Samples of', made(records))
    assert len(linked) == inside
    assert all((path.parent / each).is_file() for each in linked)


def test_a_table_says_why_there_is_no_number(tiny):
    records, _ = tiny
    rows = [["edm", text] for text in ("1.0†", "2.0*", "3.0†*", "failed [1]", "stale", "4.0")]
    text = made(records, {"overview": Table("t", [], [Grid(["variant", "FID"], rows)])})
    for state, shown in (
        ("floor", "1.0†"),
        ("best", "2.0*"),
        ("floor best", "3.0†*"),
        ("failed", "failed [1]"),
        ("stale", "stale"),
        ("", "4.0"),
    ):
        assert f'<td class="number {state}">{shown}</td>' in text


@pytest.fixture(scope="session")
def inspect(tmp_path_factory):
    """The function that opens pages in Chromium and returns what each does there; its packages are installed once."""
    # In one process the folder is shared with other checkouts, which may have other scripts.
    version = files.sha256(WEB / "inspect.mjs")[:8]
    shared = tmp_path_factory.getbasetemp().parent / f"web-{version}"
    with FileLock(f"{shared}.lock"):
        if not (shared / "node_modules" / ".package-lock.json").exists():
            shutil.copytree(
                WEB, shared, ignore=shutil.ignore_patterns("node_modules"), dirs_exist_ok=True
            )
            install = ["npm", "ci", "--no-fund", "--no-audit", "--silent"]
            subprocess.run(install, cwd=shared, check=True, timeout=300)

    def found(*pages: Path) -> list[dict]:
        command = ["node", shared / "inspect.mjs", *pages, CHROMIUM]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return found


def attack(row):
    """Put an attack into a row; of one metric, since what is wrong with a page takes long to find in many rows."""
    row["item"] = f"{HOSTILE}{row['item']}"
    return row["metric"] == "fid"


@pytest.fixture(scope="module")
def theirs(tiny, tmp_path_factory):
    """The page of another's export, with attacks in it, on a site beside ours."""
    _, path = tiny
    folder = tmp_path_factory.mktemp("theirs")
    export = forged(
        paths.table(path.parent, exports.NAME, "csv"), folder / "a.csv", attack, origin=HOSTILE
    )
    _, _, address = publish([path.parent, export], folder / "site")
    return folder / "site" / address


@pytest.mark.slow
@browser
def test_in_a_browser_pages_are_valid_usable_and_accessible(tiny, theirs, inspect):
    records, path = tiny
    ours, of_others = inspect(path, theirs)
    for found in (ours, of_others):
        assert found["invalid"] == []
        assert found["unscripted"] > 5
        assert [(each["width"], each["scheme"]) for each in found["opened"]] == [
            (width, scheme) for width in (1280, 390) for scheme in ("light", "dark")
        ]
        for each in found["opened"]:
            assert each["errors"] == []
            assert each["violations"] == []
            assert each["overflow"] <= 0
            assert 0 < each["filtered"] < each["before"]
            assert each["fewer"] == each["heads"][:-1]
    for each in ours["opened"]:
        plots = each["plots"]
        assert plots["names"] == list(names(records.plan.benchmark.figures))
        assert plots["fewer"] < plots["all"]
        assert plots["words"]
        assert plots["links"] == 0
        # The figures, and samples of each variant that has some.
        sampled = {job.variant for job in records.plan.of("sample")}
        assert len(each["pictures"]) == len(records.plan.benchmark.figures) + len(sampled)
        assert all(each["pictures"])
        numbers = [float(text) for text in each["sorted"] if text[:1].isdigit()]
        assert numbers == sorted(numbers)
        assert len(set(numbers)) > 1
        assert "snakemake --cores 1" in each["source"]
        assert "sha256" in each["source"]
        assert "seed 0" in each["ofRow"]
        # The first number that has a source of its own is a likelihood's.
        assert "likelihood" in each["ofCell"]
    for each in of_others["opened"]:
        whose = each["whose"]
        assert 0 < whose["theirs"] == whose["ours"] == whose[""] / 2
