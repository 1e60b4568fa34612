"""The reference: commands, names and modules, made of the package itself."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

from diffbench.cli import commands, look
from diffbench.cli.command import GROUPS, Command, parser
from diffbench.plan.matrix import matrix

PACKAGE = Path(__file__).resolve().parents[2] / "diffbench"
#: Rooms of the package with a page each: page -> folder and its heading.
ROOMS = {
    "diffusion/core": "Core: processes, predictions, grids, transitions",
    "diffusion/processes": "Processes",
    "diffusion/denoisers": "Denoisers",
    "diffusion/objectives": "Objectives",
    "diffusion/solvers": "Solvers",
    "diffusion/likelihoods": "Likelihoods",
    "diffusion/inverse": "Operators and restorers",
    "metrics": "Metrics",
}


def pages() -> dict[str, str]:
    """Return page -> text of the reference."""
    return {
        "reference/commands.md": command_page(),
        "reference/names.md": names_page(),
        "reference/notebook.md": notebook_page(),
        **{f"reference/{room}.md": room_page(room, title) for room, title in ROOMS.items()},
    }


def command_page() -> str:
    """Return the page of all commands, each with its help, by groups."""
    every = commands("stages too")
    known = next(
        action.choices for action in parser(every)._actions if isinstance(action.choices, dict)
    )
    lines = ["# Commands", "", "`diffbench COMMAND --help` prints what stands here.", ""]
    for group, title in GROUPS.items():
        lines += [f"## {title.partition(':')[0].capitalize()}", ""]
        for each in every:
            if each.group == group:
                lines += [f"### {each.name}", "", *_command(each, known[each.name].format_help())]
    return "\n".join(lines)


def _command(command: Command, help_text: str) -> list[str]:
    summary = f"{command.summary[:1].upper()}{command.summary[1:]}."
    return [summary, "", "```text", help_text.rstrip(), "```", ""]


def names_page() -> str:
    """Return the page of what a benchmark file can name: each kind's names, with their keys."""
    lines = [
        "# Names",
        "",
        "What a benchmark file can name; in brackets the keys that each takes. `diffbench list KIND` prints this, "
        "with what an extension brings.",
        "",
    ]
    for kind, place in look.KINDS.items():
        if place:
            lines += [f"## {kind.capitalize()}", "", "| name | |", "|---|---|"]
            lines += [f"| `{name}` | {_cell(text)} |" for name, text in look.registered(kind)]
            lines.append("")
    lines += ["## Which solver serves which process", "", "```text", str(matrix()), "```", ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Return a text as a cell; in brackets a Markdown page would see links."""
    return re.sub(r"([|\[\]])", r"\\\1", text.replace("``", "`"))


def notebook_page() -> str:
    """Return the page of the notebook's functions."""
    return "# Notebook\n\n::: diffbench.notebook\n"


def room_page(room: str, title: str) -> str:
    """Return the page of a room: all its modules, one after another."""
    folder = PACKAGE / room
    prefix = f"diffbench.{room.replace('/', '.')}."
    modules = [each for each in pkgutil.walk_packages([str(folder)], prefix) if not each.ispkg]
    names = sorted(each.name for each in modules)
    return "\n".join([f"# {title}", "", *(f"::: {name}\n" for name in names)])
