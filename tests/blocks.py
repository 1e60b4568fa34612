"""The blocks of code of the documentation's pages, and the commands in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from commands import REPOSITORY

#: A fenced block: its indentation is none, its language and perhaps its title follow the fence.
FENCED = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
#: An indented block, between blank lines.
INDENTED = re.compile(r"^\n((?: {4}.*\n)+)", re.MULTILINE)
#: The languages of commands: of blocks that are run as they stand, and of others.
SHELL = ("bash", "sh", "console")


@dataclass(frozen=True)
class Block:
    """A block of code: the page's file, language, text, and the name of the file that it is, if it is one."""

    page: Path
    language: str
    text: str
    title: str = ""

    @property
    def commands(self) -> list[list[str]]:
        """The commands of a block of a shell, each as its words; of other blocks none."""
        if self.language not in SHELL:
            return []
        lines = self.text.replace("\\\n", " ").splitlines()
        parts = [part for line in lines for part in line.split(" && ")]
        return [words for part in parts if (words := shlex.split(part, comments=True))]


@dataclass(frozen=True)
class Page:
    """A page: its file, or where one would be, and its text."""

    file: Path
    text: str

    @cached_property
    def blocks(self) -> list[Block]:
        """All fenced blocks, and the indented ones whose lines begin with a command of ours."""
        fenced = [
            Block(self.file, *map(str, (found[1], found[3], found[2] or "")))
            for found in FENCED.finditer(self.text)
        ]
        rest = FENCED.sub("", self.text)
        return fenced + [
            Block(self.file, "sh", found[1])
            for found in INDENTED.finditer(rest)
            if re.match(r" *(\.venv/bin/|diffbench |snakemake |make )", found[1])
        ]

    def titled(self, ending: str = "") -> dict[str, str]:
        """The files that the page gives: name -> text."""
        return {
            each.title: each.text
            for each in self.blocks
            if each.title.endswith(ending) and each.title
        }


def page(name: str) -> Page:
    """A page of the repository."""
    file = REPOSITORY / name
    return Page(file, file.read_text())


def pages() -> list[Page]:
    """All pages that are files: README, CONTRIBUTING, those of docs/ and beside the benchmark files."""
    files = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "config/README.md")]
    docs = REPOSITORY / "docs"
    files += [each for each in sorted(docs.rglob("*.md")) if "templates" not in each.parts]
    return [Page(each, each.read_text()) for each in files]
