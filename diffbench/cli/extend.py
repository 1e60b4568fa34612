"""Commands for those who bring a method of their own."""

from __future__ import annotations

import argparse

from diffbench.cli.command import AN_EXTENSION, argument, command, setting


@command(
    "extend",
    "conform mine.py",
    argument("file", metavar="FILE", help=AN_EXTENSION),
    argument(
        "--set",
        type=setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="try the classes that have this key with this value (steps=50), not with their default",
    ),
)
def conform(options: argparse.Namespace) -> int:
    """Ask of every class that an extension registers whether it obeys the laws of its kind.

    Status 1 when one does not.
    """
    from diffbench.conform.file import report, verdicts

    given = {key: value for each in options.set for key, value in each.items()}
    found = verdicts(options.file, given)
    print("\n".join(report(options.file, found)))
    return int(any(verdict.failed for each in found.values() for verdict in each))
