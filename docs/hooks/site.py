"""What the site has besides the files of docs/: pages from elsewhere, pages made of the code, pictures and links.

MkDocs calls the functions ``on_*`` while it builds (``mkdocs.yml``).
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from typing import Any

import gallery
import papers
import reference
from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).resolve().parents[2]
#: Pages whose source lies outside docs/: file of the repository -> page of the site.
ELSEWHERE = {
    "README.md": "index.md",
    "config/README.md": "reference/configuration.md",
    "CONTRIBUTING.md": "development/contributing.md",
    "CHANGELOG.md": "development/changelog.md",
}
#: Blocks of code, fenced or indented, which no link is put into.
CODE = re.compile(r"(^```.*?^```\n|(?:^\n^(?: {4}.*\n)+)+)", re.MULTILINE | re.DOTALL)


def on_config(config: Any) -> Any:
    """Draw the diagrams of the pages here, since a page must not fetch the program that draws them."""
    fence = {"name": "mermaid", "class": "mermaid", "format": chain}
    config.mdx_configs["pymdownx.superfences"] = {"custom_fences": [fence]}
    return config


def chain(source: str, *_: Any, **__: Any) -> str:
    """Return a Mermaid diagram, whose boxes follow one another, as a list from top to bottom.

    Raises:
        ValueError: when an arrow does not start where the one before it ends.
    """
    arrows = re.findall(r"^ *(\w+)(?:\[.*?\])? --> (\w+)", source, re.MULTILINE)
    if any(end != start for (_, end), (start, _) in zip(arrows, arrows[1:], strict=False)):
        raise ValueError("only a chain of boxes can be drawn: docs/hooks/site.py")
    boxes = "".join(f"<li>{html.escape(box)}</li>" for box in re.findall(r'\["(.*?)"\]', source))
    return f'<ol class="chain">{boxes}</ol>'


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not files of docs/."""
    for name, content in made().items():
        files.append(File.generated(config, name, content=content))
    return files


def made() -> dict[str, str | bytes]:
    """Return file -> content of all pages and pictures that are not files of docs/."""
    elsewhere = {page: (REPOSITORY / source).read_text() for source, page in ELSEWHERE.items()}
    return {**elsewhere, **reference.pages(), **papers.pages(REPOSITORY), **gallery.made()}


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Return a page whose mentions of other pages (`docs/training.md`) are links."""
    here = page.file.src_uri
    known = {f"docs/{file.src_uri}": file.src_uri for file in files}
    return linked(markdown, here, known | ELSEWHERE)


def linked(markdown: str, here: str, known: Mapping[str, str]) -> str:
    """Return the text of a page whose links and mentions of files lead to pages of the site.

    Args:
        markdown: the text.
        here: the page.
        known: file of the repository -> page or picture of the site.
    """
    sources = {page: source for source, page in known.items()}
    folder = dirname(sources[here])

    def link(found: re.Match[str]) -> str:
        source = normpath(join(folder, found[1]))
        return f"]({relpath(known[source], dirname(here) or '.')}" if source in known else found[0]

    def mention(found: re.Match[str]) -> str:
        target = known.get(found[1], here)
        return (
            found[0] if target == here else f"[{found[0]}]({relpath(target, dirname(here) or '.')})"
        )

    def outside(text: str) -> str:
        text = re.sub(r"\]\(([^)#:\s]+)", link, text)
        return re.sub(r"(?<!\[)`([\w/.-]+\.md)`", mention, text)

    parts = CODE.split(markdown)
    return "".join(part if place % 2 else outside(part) for place, part in enumerate(parts))
