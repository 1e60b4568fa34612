"""What is wrong with a picture file, as far as its first bytes say: without decoding it, and in the words of users.

A library that decodes a picture answers what it made of it.  It makes 8 bits of 16, and an error about its own
object of a file that is no picture.  So the file itself is asked first.  Kinds and headers: PNG (third edition), 2025,
https://www.w3.org/TR/png-3/, sections 5.2 and 11.2.1; the other kinds are known by their first bytes alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from diffbench.store.status import one_line

#: How many of the first bytes are enough.
HEAD = 64
PNG = b"\x89PNG\r\n\x1a\n"
#: The first bytes of other kinds of pictures, by the name of the kind.
KINDS = {
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\x93NUMPY": "a NumPy array",
    b"PK\x03\x04": "a zip",
}
#: The first bytes of what stands in the place of a file, and what it is.
STAND_INS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself: run `git lfs pull`",
    b"version https://hawser": "is a Git LFS pointer, not the file itself: run `git lfs pull`",
    b"/annex/objects/": "is a git-annex pointer, not the file itself: run `git annex get`",
    b"../.git/annex/": "is a git-annex pointer, not the file itself: run `git annex get`",
    b"outs:": "is a DVC pointer, not the file itself: run `dvc pull`",
    b"<!doctype": "is a web page, such as an error in place of a download",
    b"<html": "is a web page, such as an error in place of a download",
    b"<?xml": "is XML, such as an error in place of a download",
}
#: How many files of one fault are named.
NAMED = 9


class PictureError(ValueError):
    """A file that cannot be used: its name, and what is wrong with it, which follows the name in a sentence."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} {reason}")
        self.name, self.reason = name, reason


def kind_of(head: bytes) -> str | None:
    """Return the kind of a picture file, by its first bytes; None where they are of no kind that is known."""
    if head.startswith(PNG):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    return next((kind for start, kind in KINDS.items() if head.startswith(start)), None)


def fault(head: bytes, size: int, formats: Sequence[str]) -> str | None:
    """Return what is wrong with a file, in words that follow its name; None where its first bytes are right.

    Args:
        head: its first `HEAD` bytes, or all of a shorter file.
        size: how many bytes it has.
        formats: the kinds that are read: ``PNG``, ``JPEG``, ``WEBP``.
    """
    if size == 0:
        return "is empty"
    kind = kind_of(head)
    if kind is None:
        return _strange(head)
    if kind not in formats:
        return _other_kind(kind, formats)
    if kind == "PNG" and head[12:16] == b"IHDR" and len(head) > 24 and head[24] > 8:
        return f"has {head[24]} bits for a number: images must be 8-bit grey or RGB"
    return None


def _strange(head: bytes) -> str:
    start = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    for known, reason in STAND_INS.items():
        if start.startswith(known):
            return reason
    if not head.strip(b"\0"):
        return "holds only zeros at its start: it was never written to the disk"
    return f"is not an image: it begins with {ascii(head[:8])[1:]}"


def _other_kind(kind: str, formats: Sequence[str]) -> str:
    wanted = " or ".join(formats)
    if kind in ("JPEG", "WEBP"):
        return (
            f"is {kind}, not {wanted}, whatever its name says: its artefacts would be learnt and scored; make PNGs "
            "from the lossless originals, or set `lossy: true`"
        )
    return f"is {kind}, not {wanted}, whatever its name says: convert it"


def png_shape(head: bytes) -> tuple[int, int, int] | None:
    """Return (channels, height, width) of a PNG as it is read, by its first bytes; None of other files."""
    channels = {0: 1, 2: 3, 3: 3}
    if not head.startswith(PNG) or head[12:16] != b"IHDR" or len(head) < 26:
        return None
    width, height = (int.from_bytes(head[at : at + 4], "big") for at in (16, 20))
    known = channels.get(head[25])
    return None if known is None else (known, height, width)


class Faults:
    """What is wrong with single files, gathered so that a user reads all of it at once."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}
        self.seen = 0

    def add(self, name: str, reason: str) -> None:
        """Add a file and what is wrong with it."""
        self.found.setdefault(reason, []).append(name)

    @contextmanager
    def one(self, name: str) -> Iterator[None]:
        """A block that reads one file: what it raises about the file is gathered."""
        self.seen += 1
        try:
            yield
        except PictureError as error:
            self.add(error.name, error.reason)
        except OSError as error:
            self.add(name, f"cannot be read ({(error.strerror or one_line(error)).lower()})")

    def check(self) -> None:
        """Refuse the set if there are faults.

        Raises:
            ValueError: with all of them, each with the first `NAMED` files that have it.
        """
        bad = sum(map(len, self.found.values()))
        if not bad:
            return
        said = [
            f"{first} {reason}" + (f" (likewise {listed(others)})" if others else "")
            for reason, (first, *others) in self.found.items()
        ]
        more = [f"{len(said) - NAMED:,} other faults"] if len(said) > NAMED else []
        count = f"{bad:,} of {self.seen:,} images cannot be used: " if bad > 1 else ""
        raise ValueError(count + "; ".join(said[:NAMED] + more))


def listed(names: Sequence[str], most: int = NAMED) -> str:
    """Return names in words: ``a, b and c``, or ``a, b and 7 more``."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most:,} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
