"""Exports: the long table of a benchmark's results as a file that others can read, check and compare.

    records.csv     a row a number, or why there is none, with the columns of ``COLUMNS``; empty where there is nothing
    records.json    what the table is about: the columns, the metrics, the variants with everything merged into them,
                    how config/published.csv differs from the packaged one, the versions and devices, and the SHA-256
                    of the table

``make tables`` writes both into the results folder; ``diffbench export`` also writes the table as Parquet, with typed
columns.  Each row ends with a checksum of its own, so that a value that was changed by hand is found by name.  A
checksum shows mistakes; it is no signature, which would show who wrote the file.  So all that is read is checked
against the types of the columns, and its text made printable (``untrusted``).
"""

from diffbench.reporting.exports.column import (
    COLUMNS,
    FORMAT,
    VERSION,
    ExportError,
    schema,
    typed,
)
from diffbench.reporting.exports.export import (
    NAME,
    SUFFIXES,
    Export,
    contents,
    held,
    located,
    of,
    read,
    rewritten,
    write,
)
from diffbench.reporting.exports.row import check_of, lines

__all__ = [
    "COLUMNS",
    "FORMAT",
    "NAME",
    "SUFFIXES",
    "VERSION",
    "Export",
    "ExportError",
    "check_of",
    "contents",
    "held",
    "lines",
    "located",
    "of",
    "read",
    "rewritten",
    "schema",
    "typed",
    "write",
]
