"""How the text of a page becomes that of the site: links to other pages, and diagrams without a script."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from posixpath import dirname, join, normpath, relpath
from typing import Any

#: Blocks of code, fenced or indented, which no link is put into.
CODE = re.compile(r"(^```.*?^```\n|(?:^\n^(?: {4}.*\n)+)+)", re.MULTILINE | re.DOTALL)


def chain(source: str, *_: Any, **__: Any) -> str:
    """Return a Mermaid diagram, whose boxes follow one another, as a list from top to bottom.

    Raises:
        ValueError: when an arrow does not start where the one before it ends.
    """
    arrows = re.findall(r"^ *(\w+)(?:\[.*?\])? --> (\w+)", source, re.MULTILINE)
    if any(end != start for (_, end), (start, _) in zip(arrows, arrows[1:], strict=False)):
        raise ValueError("only a chain of boxes can be drawn: docs/hooks/links.py")
    boxes = "".join(f"<li>{html.escape(box)}</li>" for box in re.findall(r'\["(.*?)"\]', source))
    return f'<ol class="chain">{boxes}</ol>'


def linked(markdown: str, here: str, known: Mapping[str, str]) -> str:
    """Return the text of a page, whose links and mentions of files lead to pages of the site.

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

    # The heading must come first to be the page's title.
    parts = CODE.split(re.sub(r"\A<!--.*?-->\n", "", markdown))
    return "".join(part if place % 2 else outside(part) for place, part in enumerate(parts))
