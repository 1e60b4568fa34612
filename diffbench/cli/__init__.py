"""The command line: each command calls a function elsewhere; `diffbench --help` lists them.

Mistakes of the user end with one line on stderr and status 1.  A failing stage also writes its
reason, for the tables to quote, with the traceback to ``status.json`` of its state folder;
DIFFBENCH_DEBUG=1 prints the traceback. A stage that was asked to stop ends with status 85: its state is
saved, and another call continues.

Only the stages import torch, when one runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from diffbench.cli import compare, look, run, share, upkeep  # noqa: F401, each makes its commands known
from diffbench.cli.command import COMMANDS, Command, fail, parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = parser(commands(words[0] if words else "")).parse_args(words)
    try:
        return int(options.call(options))
    except BrokenPipeError:
        # The reader (head, less) has exited; Python would complain once more while closing stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return fail(options.name, error)


def commands(wanted: str) -> list[Command]:
    """Return the commands; those of the stages load slowly, and are left out when the wanted command is another."""
    known = list(COMMANDS.values())
    if wanted in COMMANDS or not wanted or wanted.startswith("-"):
        return known
    from diffbench.cli import jobs

    return [*known, *jobs.commands()]
