"""What all pages share: their frame (``base.html``), style, scripts and data, all inside the one file.

Tables are sorted, filtered and narrowed by DataTables, from the package itables, which brings it as one file; without
scripts they are plain HTML.  Text is escaped by Jinja; data for the scripts are JSON in which ``<`` is escaped.  A page
with others' words has a policy besides, by which a browser runs the page's one script alone, and asks for nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

IMPORT = 'import DataTable, {{ set_or_remove_dark_class as followColourScheme }} from "{}";\n'


def render(template: str, scripts: Sequence[str], **values: Any) -> str:
    """Return a page as HTML.

    Args:
        template: a file of this room that extends ``base.html``.
        scripts: the files of this room that make its one script, in their order.
        values: what the template shows.
    """
    library = url("text/javascript", _bundled("dt_bundle.js"))
    script = IMPORT.format(library) + "".join(map(_text, scripts))
    return str(
        _environment()
        .get_template(template)
        .render(
            style=_text("page.css"),
            library_style=_bundled("dt_bundle.css").decode(),
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            **values,
        )
    )


def url(kind: str, content: bytes) -> str:
    """Return content of a media type as a URL."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def embedded(data: Any) -> str:
    """Return data as JSON that cannot end the script element that it is in."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


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


def _bundled(name: str) -> bytes:
    """Return a file of DataTables, with which itables ships."""
    return resources.files("itables").joinpath("html", name).read_bytes()
