"""The gallery: figures that the build draws with the library, and those of the benchmarks that were recorded."""

from __future__ import annotations

import ast
import io
import runpy
from pathlib import Path

import matplotlib
import torch
from matplotlib import pyplot

from diffbench.reporting import layout
from diffbench.reporting.recorded import FOLDER

DOCS = Path(__file__).resolve().parents[1]
PAGE = "gallery.md"


def made() -> dict[str, str | bytes]:
    """Return the page, and the pictures that are drawn for it: file of the site -> content."""
    programs = sorted((DOCS / "figures").glob("*.py"))
    pictures = {f"figures/{each.stem}.png": drawn(each) for each in programs}
    return {PAGE: "\n".join([*_drawn_part(programs), *_recorded_part()]), **pictures}


def drawn(program: Path) -> bytes:
    """Return the picture, a PNG, of a program that leaves its figure under the name ``figure``."""
    matplotlib.use("agg")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        figure = runpy.run_path(str(program))["figure"]
    finally:
        torch.set_num_threads(threads)
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=110)
    pyplot.close(figure)
    return target.getvalue()


def _drawn_part(programs: list[Path]) -> list[str]:
    lines = [
        "# Gallery",
        "",
        "## Drawn with the library",
        "",
        "The build of this site draws these figures: below each is the whole program.",
        "",
    ]
    for program in programs:
        text = program.read_text()
        title = (ast.get_docstring(ast.parse(text)) or "").rstrip(".")
        lines += [f"### {title}", "", f"![{title}](figures/{program.stem}.png)", ""]
        lines += ["```python", text.partition('"""\n\n')[2].rstrip(), "```", ""]
    return lines


def _recorded_part() -> list[str]:
    repository = DOCS.parent
    known = layout.read_tables(repository).figures
    lines = [
        "## Of finished benchmarks",
        "",
        "`diffbench record` kept these, with their numbers; a run of the named file makes them again.",
        "",
    ]
    for picture in sorted((repository / FOLDER).glob("*/*.png")):
        name, benchmark = picture.stem, picture.parent.name
        title = f"{known[name].title if name in known else name} ({benchmark})"
        place = picture.relative_to(DOCS).as_posix()
        lines += [f"### {title}", "", f"`config/{benchmark}.yaml`", "", f"![{title}]({place})", ""]
    return lines
