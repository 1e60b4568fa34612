"""What all pages share: their frame (``base.html``), style, scripts and data, all inside the one file.

Tables are sorted, filtered and narrowed by DataTables, from the package itables, which brings it as one file; without
scripts they are plain HTML.  Charts are drawn by plotly.js, from the package plotly, of which nothing else is used: its
file of 4.8 MB is text in the page until a chart is seen, and costs 0.1 s of CPU here.  Bokeh's is smaller (1.3 MB) but
draws on a canvas, where words cannot be marked, searched or read aloud; that of vl-convert (0.9 MB) takes 2.8 s of CPU
to be made.  Text is escaped by Jinja; data for the scripts are JSON in which ``<`` is escaped.  A page with others'
words has a policy besides, by which a browser runs the page's one script alone, and asks for nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib import resources, util
from pathlib import Path
from typing import Any

IMPORT = 'import DataTable, {{ set_or_remove_dark_class as followColourScheme }} from "{}";\n'
#: What a test waits for.
READY = 'document.documentElement.classList.add("ready");\n'


def render(template: str, scripts: Sequence[str], plots: bool = False, **values: Any) -> str:
    """Return a page as HTML.

    Args:
        template: a file of this room that extends ``base.html``.
        scripts: the files of this room that make its one script, in their order.
        plots: whether the script draws with plotly.
        values: what the template shows.
    """
    library = url("text/javascript", _bundled("itables", "html/dt_bundle.js"))
    script = IMPORT.format(library) + "".join(map(_text, scripts)) + READY
    return str(
        _environment()
        .get_template(template)
        .render(
            style=_text("page.css"),
            library_style=_bundled("itables", "html/dt_bundle.css").decode(),
            plotly=_bundled("plotly", "package_data/plotly.min.js").decode() if plots else "",
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            **values,
        )
    )


def url(kind: str, content: bytes) -> str:
    """Return content of a media type as a URL."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def embedded(data: Any) -> str:
    """Return data, dataclasses among them, as JSON that cannot end the script element that it is in."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, default=vars)
    return text.replace("<", "\\u003c")


def _environment() -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("diffbench.reporting.web", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def _text(name: str) -> str:
    return resources.files("diffbench.reporting.web").joinpath(name).read_text()


def _bundled(package: str, name: str) -> bytes:
    """Return a file that a package ships with; the package is not imported, which takes longer than the file."""
    found = util.find_spec(package)
    assert found is not None
    assert found.origin is not None
    return (Path(found.origin).parent / name).read_bytes()
