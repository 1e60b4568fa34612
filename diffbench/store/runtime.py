"""This user's folder for what lasts as long as processes: sockets and locks.

Other users can write to the folder of temporary files too, so a name there that can be guessed may be theirs: a link,
or a folder in which they read and change what is put into it.  The folder is therefore one that belongs to this user,
and that nobody else can enter:

    $XDG_RUNTIME_DIR/diffbench, else /run/user/UID/diffbench, else diffbench-UID in the folder of temporary files

It imports no library.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from diffbench.specs.errors import UserError

#: The environment variable with the folder that a login makes for its user.
VARIABLE = "XDG_RUNTIME_DIR"
#: The environment variable with the number of the open file that is a run's own stderr, where a job's is its log.
OWN_STDERR = "DIFFBENCH_STDERR"


class RuntimeFolderError(UserError, RuntimeError):
    """A folder that should be this user's alone, and is not."""


def folder() -> Path:
    """Return this user's runtime folder, which is made when it is missing.

    Raises:
        RuntimeFolderError: when it is a link, belongs to somebody else, or others can enter it.
    """
    for each in (os.environ.get(VARIABLE), f"/run/user/{os.getuid()}"):
        if each and is_private(Path(each)):
            return private(Path(each) / "diffbench")
    return private(Path(tempfile.gettempdir()) / f"diffbench-{os.getuid()}")


def is_private(path: Path) -> bool:
    """Say whether a path is a folder, not a link to one, of this user, which nobody else can enter."""
    try:
        found = path.lstat()
    except OSError:
        return False
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return own and not found.st_mode & 0o077


def private(path: Path) -> Path:
    """Make a folder for this user alone, or take one that is.

    Raises:
        RuntimeFolderError: when it is a link, belongs to somebody else, or others can enter it.
    """
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if not is_private(path):
            raise RuntimeFolderError(
                f"{path}: must be a folder of this user that nobody else can enter (mode 0700): remove it, or set "
                f"{VARIABLE} to such a folder"
            ) from None
    return path


def own_stderr() -> int | None:
    """Return the number of the open file that is a run's own stderr; None where none is named or open."""
    with suppress(OSError, ValueError):
        number = int(os.environ.get(OWN_STDERR, ""))
        os.fstat(number)
        return number
    return None


def tell(line: str) -> None:
    """Print a line to stderr; where that is a log on a full disk, to the run's own stderr."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError as error:
        if (number := own_stderr()) is not None:
            with suppress(OSError):
                os.write(number, f"{line} (not in its log: {error.strerror})\n".encode())


def umask() -> int:
    """Return this process's umask."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
