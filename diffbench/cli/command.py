"""Commands of the command line: a function, its arguments, and an example; how they are parsed and how they fail.

Modules are imported by the functions that need them, so that the command line starts at once.
"""

from __future__ import annotations

import argparse
import json
import os
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffbench.specs.errors import Stopped, UserError, printable
from diffbench.store import runtime

if TYPE_CHECKING:
    from diffbench.plan.jobs import Plan

#: The groups of commands in the order of the help, with what users call first at the top.
GROUPS = {
    "run": "run a benchmark: snakemake --cores all --configfile FILE",
    "extend": "bring a method of one's own",
    "look": "look at the configuration",
    "compare": "compare with the papers and with other runs",
    "look after": "look after results and documents",
    "jobs": "run one job: a command for each stage (diffbench list stages)",
}

Function = Callable[[argparse.Namespace], int]


@dataclass(frozen=True)
class Argument:
    """An argument of a command, as `argparse` takes it."""

    names: tuple[str, ...]
    settings: dict[str, Any]


def argument(*names: str, **settings: Any) -> Argument:
    """Return an argument of a command."""
    return Argument(names, settings)


@dataclass(frozen=True)
class Command:
    """A command: ``call`` runs it and returns the exit status; ``summary`` is its description in one line."""

    name: str
    group: str
    summary: str
    example: str
    call: Function
    arguments: tuple[Argument, ...]


#: The commands that are not stages, by name.
COMMANDS: dict[str, Command] = {}


def command(group: str, example: str, *arguments: Argument) -> Callable[[Function], Function]:
    """Return a decorator that makes a function a command: the example gives its name, its docstring the summary."""

    def register(call: Function) -> Function:
        name = example.partition(" ")[0]
        line = (call.__doc__ or "").partition("\n")[0].rstrip(".")
        summary = line[:1].lower() + line[1:]
        COMMANDS[name] = Command(name, group, summary, example, call, arguments)
        return call

    return register


def parser(commands: Iterable[Command]) -> argparse.ArgumentParser:
    """Return the parser of all commands; its result has the function to call as ``call``."""
    top = argparse.ArgumentParser(
        prog="diffbench",
        description="Benchmark diffusion models.",
        epilog=overview(COMMANDS.values()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action=Version, nargs=0, help="print the version")
    known = top.add_subparsers(
        required=True, metavar="COMMAND", dest="name", help="a command of the list below"
    )
    for each in commands:
        sub = known.add_parser(
            each.name, description=each.summary, epilog=f"example: diffbench {each.example}"
        )
        sub.set_defaults(call=each.call)
        for one in each.arguments:
            sub.add_argument(*one.names, **one.settings)
    return top


def overview(commands: Iterable[Command]) -> str:
    """Return all commands by group, each with an example."""
    lines = []
    for group, title in GROUPS.items():
        lines += ["", title]
        for each in commands:
            if each.group == group:
                lines += [f"  {each.name:13} {each.summary}", f"{'':18}diffbench {each.example}"]
    lines.append(f"{'':18}diffbench train --root results/digits --spec FILE")
    return "\n".join(lines[1:])


class Version(argparse.Action):
    """The option that prints the version, which is looked up only then: reading metadata would slow every start."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        import diffbench

        parser.exit(message=f"diffbench {diffbench.__version__}\n")


def fail(name: str, error: BaseException) -> int:
    """Print the reason in one line (and the traceback if DIFFBENCH_DEBUG is set), and return 1."""
    if os.environ.get("DIFFBENCH_DEBUG"):
        traceback.print_exception(error)
    runtime.tell(f"diffbench {name}: {reason(error)}")
    return 1


def reason(error: BaseException) -> str:
    """Return an error in one line, with its type unless the message was written for users."""
    if isinstance(error, Stopped):
        return error.line
    if isinstance(error, SystemExit):
        return f"sys.exit({error.code!r}) was called"
    text = printable(error)
    if isinstance(error, UserError):
        return text
    from diffbench.specs.extensions import extension_line

    place = extension_line(error)
    found = f"{text} ({type(error).__name__})" if text else type(error).__name__
    return f"{place}: {found}" if place else found


# The options that name the plan of a command.


def setting(text: str) -> dict[str, Any]:
    """Return the settings in ``KEY=VALUE``, or in a JSON mapping."""
    if text.startswith("{"):
        return dict(json.loads(text))
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: must be KEY=VALUE")
    import yaml

    return {key: yaml.safe_load(value)}


FILE = argument("file", type=Path)
AN_EXTENSION = "a Python file, a folder that is a package, or the name of an installed extension"
CONFIG = argument("--config", type=Path, help="benchmark file (default config/digits.yaml)")
SET = argument(
    "--set",
    type=setting,
    action="append",
    default=[],
    metavar="KEY=VALUE",
    help="set a key of the benchmark file (training.lr=1e-3), or several keys by a JSON mapping",
)
WRITE = argument("--write", type=Path, metavar="FILE", help="write to this file, not to the screen")


def deliver(text: str, path: Path | None) -> int:
    """Write what a command made to the file of ``WRITE``, or print it; return the exit status."""
    from diffbench.store import files

    if path:
        files.write(path, text.encode())
    else:
        print(text, end="")
    return 0


def repository() -> Path:
    """Return the folder of the Snakefile and config: this checkout, or the working directory if it has none."""
    checkout = Path(__file__).resolve().parents[2]
    return checkout if (checkout / "Snakefile").is_file() else Path.cwd()


def load(options: argparse.Namespace, needs_files: bool = True, looks: bool = False) -> Plan:
    """Return the plan that the options name; a command that runs no job does not need the files that jobs read."""
    from diffbench.plan.loading import load_plan

    chosen: Path | None = getattr(options, "file", None) or getattr(options, "config", None)
    overrides = {key: value for each in options.set for key, value in each.items()}
    files: Sequence[Path] = [chosen] if chosen else []
    return load_plan(files, overrides, repository(), "--set", needs_files, looks)
