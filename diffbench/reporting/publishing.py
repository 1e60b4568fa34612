"""A site of many benchmarks, to be served anywhere: an overview, and a page of each.

    index.html               a row a benchmark: what it is, how much of it there is, what code and when
    {address}/index.html     of our results: their own page, as ``make tables`` left it
                             of another's export: its cells, beside ours of a benchmark of that name
    {address}/records.*      the export of each, without formulas in its words
    site.json                the overview for programs

A results folder is ours; an export is another's, and every row of it says so: whose it is, by the export's ``origin``
or else its file's name.  Numbers of others are checked for changes, not for truth, so that none is ranked here.  An
address is the benchmark's name (of an export with whose it is), and a further one of that name has a hash of its path
as given behind it: the same command makes the same addresses.
"""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffbench.reporting import exports
from diffbench.reporting.cells import ITEM, text
from diffbench.reporting.exports import Export
from diffbench.reporting.formats import Footnotes
from diffbench.reporting.web.templates import render
from diffbench.specs.errors import UserError, shown
from diffbench.store import files, paths

OURS = "ours"
OVERVIEW = "site.json"
FORMAT, VERSION = "diffbench-site", 1
SCRIPTS = ("tables.js", "listing.js")
#: The most cells on the page of an export; its CSV has all.
MOST_CELLS = 5_000
#: The most commits in a row of the overview.
MOST_COMMITS = 3
#: The link of a page to the overview.
BACK = '<p><a href="../index.html">All benchmarks</a></p>'
HEADS = ("from", "variant", "item", "metric", "value", "SE", "seeds", "N", "NFE", "protocol", "status")  # fmt: skip


class PublishError(UserError, ValueError):
    """Results that cannot be published."""


@dataclass(frozen=True)
class Source:
    """Results that are published.

    Attributes:
        path: as it was given.
        export: all numbers.
        page: the page of our own results; None of another's.
        whose: ``ours``, or ``theirs: `` and whose.
    """

    path: Path
    export: Export
    page: str | None
    whose: str

    @property
    def name(self) -> str:
        """The benchmark's name."""
        return str(self.export.about["benchmark"])

    @property
    def pictures(self) -> list[Path]:
        """The pictures that the page links to, relative to the results folder."""
        found = re.findall(r'src="(runs/[^"]*)"', self.page or "")
        return [Path(html.unescape(each)) for each in found]


@dataclass(frozen=True)
class Row:
    """A row of the overview; ``failed``, ``missing`` and ``stale`` count cells of which some seed is so."""

    address: str
    benchmark: str
    whose: str
    what: str
    variants: int
    cells: int
    failed: int
    missing: int
    stale: int
    code: str
    ran: str


def publish(paths_given: Sequence[Path], output: Path) -> list[str]:
    """Write a site, or nothing, and return the addresses of its pages.

    Args:
        paths_given: results folders, which are ours, and exports of others.
        output: the site's folder; what an earlier call wrote there is replaced.

    Raises:
        ExportError: when an export is not whole, or not of the documented columns and types.
        PublishError: when a folder has no page of its numbers, when something is given twice, or when the output has
            a file in the way.
    """
    sources = gathered(paths_given)
    addresses = addresses_of(sources)
    rows = [row_of(address, each) for address, each in addresses.items()]
    try:
        with files.update(output, _earlier(output)) as site:
            for address, each in addresses.items():
                _write(site / address, each, sources)
            overview = {"format": FORMAT, "version": VERSION, "pages": list(map(asdict, rows))}
            files.write_json(site / OVERVIEW, overview)
            files.write(site / "index.html", index(rows).encode())
    except FileExistsError as error:
        raise PublishError(f"{error}: choose another folder, or remove it") from None
    return ["index.html", *(f"{address}/index.html" for address in addresses)]


def gathered(given: Sequence[Path]) -> list[Source]:
    """Return the results to publish, each read and found whole.

    Raises:
        ExportError, PublishError: as ``publish``.
    """
    known = set()
    for path in given:
        if path.resolve() in known:
            raise PublishError(f"{shown(path)} is given twice")
        known.add(path.resolve())
    return [_ours(path) if path.is_dir() else _theirs(path) for path in given]


def _ours(folder: Path) -> Source:
    export = exports.read(folder)
    page = paths.page(folder)
    again = "run diffbench table --config FILE first"
    if not page.is_file():
        raise PublishError(f"{shown(folder)}: there is no {page.name} in it: {again}")
    content = page.read_text(encoding="utf-8")
    if f'<meta name="diffbench-records" content="{export.about["sha256"]}">' not in content:
        raise PublishError(
            f"{shown(page)} was made from other numbers than {exports.NAME}.csv: {again}"
        )
    source = Source(folder, export, content, OURS)
    for picture in source.pictures:
        inside = (folder / picture).resolve().is_relative_to(folder.resolve())
        if not inside or not (folder / picture).is_file():
            raise PublishError(
                f"{shown(page)} shows {picture}, which is not in the folder: {again}"
            )
    return source


def _theirs(path: Path) -> Source:
    export = exports.read(path)
    return Source(path, export, None, f"theirs: {export.about.get('origin') or path.name}")


def addresses_of(sources: Sequence[Source]) -> dict[str, Source]:
    """Return the sources by address, in their order."""
    found: dict[str, Source] = {}
    for each in sources:
        whose = "" if each.page is not None else each.whose.removeprefix("theirs: ")
        name = _address(each.name) + (f"-by-{_address(whose)}" if whose else "")
        digest = hashlib.sha256(os.path.normpath(each.path).encode()).hexdigest()
        names = [name, *(f"{name}-{digest[:size]}" for size in (6, 64))]
        found[next(one for one in names if one not in found)] = each
    return found


def _address(name: str) -> str:
    """Return a name as a folder that every file system and server takes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "unnamed"


def row_of(address: str, source: Source) -> Row:
    """Return the row of the overview."""
    frame, about = source.export.frame, source.export.about
    keys = [*ITEM, "metric"]
    states = {
        status: len(frame[frame["status"] == status].drop_duplicates(keys))
        for status in ("failed", "missing", "stale")
    }
    title = about.get("title") or about["settings"].get("data", {}).get("name", "")
    what = ". ".join(filter(None, [str(title), about["remark"], about.get("note", "")]))
    return Row(
        address=address,
        benchmark=source.name,
        whose=source.whose,
        what=what,
        variants=frame["variant"].nunique(),
        cells=len(frame.drop_duplicates(keys)),
        code=_code(about["environment"]),
        ran=" to ".join(dict.fromkeys(start[:10] for start in about.get("ran", []))),
        **states,
    )


def _code(environment: dict[str, Any]) -> str:
    """Return the versions and commits of diffbench that ran the jobs."""
    commits = [each[:12] for each in environment.get("commits", [])]
    more = [f"{len(commits) - MOST_COMMITS} more"] if len(commits) > MOST_COMMITS else []
    versions = environment.get("versions", {}).get("diffbench", [])
    return ", ".join([*versions[:MOST_COMMITS], *commits[:MOST_COMMITS], *more])


def _earlier(output: Path) -> list[str]:
    """Return the names that an earlier call wrote into the site's folder."""
    try:
        found = json.loads((output / OVERVIEW).read_bytes())
        pages = [each["address"] for each in found["pages"]] if found["format"] == FORMAT else []
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [OVERVIEW, "index.html", *(each for each in pages if each == _address(each))]


def _write(folder: Path, source: Source, sources: Sequence[Source]) -> None:
    """Write the page of one source, its export and the pictures that it links to."""
    for suffix, content in exports.rewritten(source.export).items():
        files.write(folder / f"{exports.NAME}.{suffix}", content)
    for picture in source.pictures:
        files.write(folder / picture, (source.path / picture).read_bytes())
    page = cells_page(source, sources) if source.page is None else linked(source.page)
    files.write(folder / "index.html", page.encode())


def linked(page: str) -> str:
    """Return our own page with a link to the site's overview, for its copy on the site."""
    return page.replace("<header>", f"<header>\n{BACK}", 1)


def index(rows: Sequence[Row]) -> str:
    """Return the overview as HTML."""
    return render("site.html", SCRIPTS, rows=rows, ours=OURS)


def cells_page(source: Source, sources: Sequence[Source]) -> str:
    """Return the page of another's export: its cells, and beside them ours with the same metrics."""
    metrics = set(source.export.frame["metric"])
    beside = [each for each in sources if each.whose == OURS and each.name == source.name]
    metric, protocol = HEADS.index("metric"), HEADS.index("protocol")
    rows = [row for each in (source, *beside) for row in _cells(each) if row[metric] in metrics]
    protocols = Footnotes()
    marked = [
        (*row[:protocol], protocols.mark(row[protocol]).strip(), *row[protocol + 1 :])
        for row in rows[:MOST_CELLS]
    ]
    return render(
        "theirs.html",
        SCRIPTS,
        source=source,
        row=row_of("", source),
        heads=HEADS,
        rows=marked,
        protocols=protocols.lines,
        left_out=max(0, len(rows) - MOST_CELLS),
        ours=OURS,
        back=BACK,
        beside=beside,
    )


def _cells(source: Source) -> Iterator[tuple[str, ...]]:
    """Yield a row of text for each cell, with ``HEADS``."""
    for (variant, stage, item, metric), cell in source.export.cells.items():
        status = f"{cell.status}: {cell.note}" if cell.note else cell.status
        numbers = (cell.mean, cell.se, cell.seeds, cell.images, cell.nfe)
        protocol = str(cell.protocol or "")
        yield (source.whose, variant, item or stage, metric, *map(text, numbers), protocol, status)
