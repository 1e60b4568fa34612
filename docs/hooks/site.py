"""What the site has besides the files of docs/: pages from elsewhere, pages made of the code, pictures and links.

MkDocs calls the functions ``on_*`` while it builds (``mkdocs.yml``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gallery
import papers
import reference
from links import chain, linked
from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).resolve().parents[2]
#: Pages whose source lies outside docs/: file of the repository -> page of the site.
ELSEWHERE = {
    "README.md": "index.md",
    "config/README.md": "reference/configuration.md",
    "CONTRIBUTING.md": "development/contributing.md",
    "CHANGELOG.md": "development/changelog.md",
}


def on_config(config: Any) -> Any:
    """Draw the diagrams of the pages here, since a page must not fetch the program that draws them."""
    fence = {"name": "mermaid", "class": "mermaid", "format": chain}
    config.mdx_configs["pymdownx.superfences"] = {"custom_fences": [fence]}
    return config


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
