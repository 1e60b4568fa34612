"""The command line: each command calls a function elsewhere; `diffbench --help` lists them.

Mistakes of the user end with one line on stderr and status 1.  A failing stage also writes its
reason, for the tables to quote, with the traceback to ``status.json`` of its state folder;
DIFFBENCH_DEBUG=1 prints the traceback. A command that was asked to stop ends with one line and status 85, or 130 after
Ctrl-C: a stage has saved what it can go on from, and another call continues.

Only the stages import torch, when one runs.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from diffbench.cli import compare, extend, look, new, run, share, upkeep  # noqa: F401, each makes its commands known
from diffbench.cli.command import COMMANDS, Command, fail, parser
from diffbench.specs.errors import Stopped
from diffbench.store import stopping


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    if arguments is None:
        stopping.heed()
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = words[0] if words else ""
    try:
        options = parser(commands(name)).parse_args(words)
        return int(options.call(options))
    except BrokenPipeError:
        # The reader (head, less) has exited; Python would complain once more while closing stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Stopped as stopped:
        return stopping.last_words(name, stopped)
    except KeyboardInterrupt:
        return stopping.last_words(name, Stopped(signal.SIGINT))
    except Exception as error:
        return fail(name, error)


def commands(wanted: str) -> list[Command]:
    """Return the commands; those of the stages load slowly, and are left out when the wanted command is another."""
    known = list(COMMANDS.values())
    if wanted in COMMANDS or not wanted or wanted.startswith("-"):
        return known
    from diffbench.cli import jobs

    return [*known, *jobs.commands()]
