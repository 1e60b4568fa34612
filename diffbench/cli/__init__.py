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
    """Return the wanted command, since a parser of fifty costs more than a short job; all where none has that name.

    Without a name, those of the stages are left out: they load slowly.
    """
    known = list(COMMANDS.values())
    if wanted not in COMMANDS and wanted and not wanted.startswith("-"):
        known = every()
    return [each for each in known if each.name == wanted] or known


def every() -> list[Command]:
    """Return all commands, those of the stages too."""
    from diffbench.cli import jobs

    return [*COMMANDS.values(), *jobs.commands()]
