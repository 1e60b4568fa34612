"""The images in a folder, a zip or a tar, and their classes, found without decoding any image.

    images directly inside                one class, "all"
    images in folders                     a folder is a class, in sorted order
    a `dataset.json` above them           {"labels": [[name, class], ...]}, or null for no classes: the layout of
                                          Karras et al., EDM, 2022 (https://github.com/NVlabs/edm), where folders only
                                          keep the number of files small

Folders around all images are ignored.  A zip or a tar is read without unpacking it.  It is refused when a name in it
would lead out of the folder that it is unpacked to.  In a zip a backslash is a separator, as some programs of Windows
write it.

Nothing is guessed: refused are a `dataset.json` that does not lie above all images, one that names an image twice,
folders that are splits and would become classes, and names of files with a backslash in them.  What is left out, files
that are no images or lie in hidden folders, is counted.
"""

from __future__ import annotations

import json
import os
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Protocol

from diffbench.store.files import read_bytes
from diffbench.store.picture_files import HEAD, PictureError

#: Suffixes of lossy images, and of all images.
LOSSY = (".jpg", ".jpeg", ".webp")
SUFFIXES = {".png", *LOSSY}
LABELS = "dataset.json"
#: Names of folders that are splits of a data set, not classes.
SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"}
#: The size in bytes of the largest file that is unpacked: far above every image of a data set, far below a zip bomb.
LARGEST = 2**28
#: Labels are below this: each number up to the largest is a class with a name.
MOST_CLASSES = 100_000
#: The errors that a torn or encrypted zip raises when it is read.
TORN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError)


class Files(Protocol):
    """Files by their names, ``/`` between folders."""

    def names(self) -> list[str]:
        """Return all names, in any order."""
        ...

    def read(self, name: str) -> bytes:
        """Return the content of the file with a name."""
        ...

    def start(self, name: str) -> tuple[bytes, int]:
        """Return the first bytes of a file, `HEAD` of them or fewer, and its size."""
        ...


class FolderFiles:
    """The files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """Return all names, in any order."""
        found: list[str] = []
        for folder, _, files in os.walk(self.root, followlinks=True):
            inner = Path(folder).relative_to(self.root).as_posix()
            found += files if inner == "." else [f"{inner}/{file}" for file in files]
        return found

    def read(self, name: str) -> bytes:
        """Return the content of the file with a name.

        Raises:
            PictureError: when it is not a regular file, too large, or cannot be opened.
        """
        try:
            return read_bytes(self.root / name, LARGEST)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise PictureError(str(self.root / name), f"cannot be read ({reason})") from None

    def start(self, name: str) -> tuple[bytes, int]:
        """Return the first bytes of a file, `HEAD` of them or fewer, and its size."""
        path = self.root / name
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise OSError("it is not a regular file")
        with path.open("rb") as file:
            return file.read(HEAD), facts.st_size


class ZipFiles:
    """The files in a zip.

    Raises:
        ValueError: when it is no whole zip, or a name in it leaves its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.zip = zipfile.ZipFile(path)
        except TORN as error:
            raise ValueError(f"{path} is not a complete zip ({error})") from None
        found = [
            (_plain(each.filename), each)
            for each in self.zip.infolist()
            if not each.filename.endswith(("/", "\\"))
        ]
        check_names([name for name, _ in found], path)
        self.members = dict(found)

    def names(self) -> list[str]:
        """Return all names, in any order."""
        return list(self.members)

    def read(self, name: str) -> bytes:
        """Return the content of the file with a name."""
        try:
            member = self.members[name]
            if member.file_size > LARGEST:
                raise OSError(f"it would unpack to {member.file_size:,} bytes")
            return self.zip.read(member)
        except (*TORN, KeyError) as error:
            raise PictureError(f"{self.path}: {name}", f"cannot be read ({error})") from None

    def start(self, name: str) -> tuple[bytes, int]:
        """Return the first bytes of a file, `HEAD` of them or fewer, and its size."""
        try:
            with self.zip.open(self.members[name]) as file:
                return file.read(HEAD), self.members[name].file_size
        except (*TORN, KeyError) as error:
            raise PictureError(f"{self.path}: {name}", f"cannot be read ({error})") from None


class TarFiles:
    """The files in a tar, which must not be compressed: images are read in the order of their names, not of the tar.

    Raises:
        ValueError: when it is no whole tar, or a name in it leaves its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.tar = tarfile.open(path, "r:")  # noqa: SIM115, read from as long as this lives
            found = [(each.name, self._content(each)) for each in self.tar.getmembers()]
            self._check_end()
        except (tarfile.TarError, *TORN, KeyError) as error:
            raise ValueError(
                f"{path} is not a complete tar without compression ({error})"
            ) from None
        files = [(PurePosixPath(name).as_posix(), each) for name, each in found if each.isfile()]
        check_names([name for name, _ in files], path)
        self.members = dict(files)

    def _content(self, member: tarfile.TarInfo) -> tarfile.TarInfo:
        """Return the member that has the content; for a hard link the member that it names."""
        return self.tar.getmember(member.linkname) if member.islnk() else member

    def _check_end(self) -> None:
        """Refuse a tar that does not end in a block of zeros: tarfile takes a damaged header for the end."""
        end = max((each.offset_data + each.size for each in self.tar.getmembers()), default=0)
        with self.path.open("rb") as file:
            file.seek(-(-end // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise OSError("it ends early, or a header in it is damaged")

    def names(self) -> list[str]:
        """Return all names, in any order."""
        return list(self.members)

    def read(self, name: str) -> bytes:
        """Return the content of the file with a name."""
        try:
            member = self.members[name]
            if member.size > LARGEST:
                raise OSError(f"it has {member.size:,} bytes")
            stream = self.tar.extractfile(member)
            assert stream is not None
            content = stream.read()
        except (tarfile.TarError, *TORN, KeyError) as error:
            raise PictureError(f"{self.path}: {name}", f"cannot be read ({error})") from None
        if len(content) != member.size:
            raise PictureError(f"{self.path}: {name}", "cannot be read (it ends early)")
        return content

    def start(self, name: str) -> tuple[bytes, int]:
        """Return the first bytes of a file, `HEAD` of them or fewer, and its size."""
        try:
            stream = self.tar.extractfile(self.members[name])
            assert stream is not None
            return stream.read(HEAD), self.members[name].size
        except (tarfile.TarError, *TORN, KeyError) as error:
            raise PictureError(f"{self.path}: {name}", f"cannot be read ({error})") from None


@dataclass(frozen=True)
class ImageFiles:
    """Names of images, sorted, the class of each, the classes' names, and the files to read them from.

    numbered: whether a `dataset.json` gives the classes, so that the names do not.
    left_out: how many files of each suffix are no images that are read, or lie in hidden folders.
    """

    names: list[str]
    labels: list[int]
    classes: tuple[str, ...]
    files: Files
    numbered: bool = False
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """A remark that says what is left out; none where nothing is."""
        if not self.left_out:
            return ()
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.left_out.items()))
        total = sum(self.left_out.values())
        return (f"{total:,} of {total + len(self.names):,} files are left out: {kinds}",)

    @property
    def inner(self) -> list[str]:
        """The names without the folders around all images: the same wherever a set was unpacked to."""
        around = _around(self.names)
        return ["/".join(PurePosixPath(name).parts[around:]) for name in self.names]


def inside(name: str, archive: str) -> None:
    """Refuse a name in an archive that leads out of the folder that it is unpacked to.

    Raises:
        ValueError: when the name leads out.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive:
        raise ValueError(f"{archive} is refused: the path {name!r} in it leads out of its folder")


def check_names(names: list[str], archive: Path) -> None:
    """Refuse an archive with a name that leads out of its folder, or that stands twice.

    Raises:
        ValueError: when there is such a name.
    """
    for name in names:
        inside(name, str(archive))
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise ValueError(f"{archive} is refused: it holds {twice!r} twice")


def opened(path: Path) -> Files:
    """Return the files of a folder, a zip or a tar.

    Raises:
        ValueError: when it is none of them.
    """
    if path.is_dir():
        return FolderFiles(path)
    if path.is_file():
        return TarFiles(path) if path.suffix.lower() == ".tar" else ZipFiles(path)
    raise ValueError(f"{path} is not a folder, zip or tar: `path:` must be one with PNG images")


def find_images(path: Path, flat: bool = False) -> ImageFiles:
    """Return the images of a folder, a zip or a tar; ``flat`` puts them all in one class, wherever they lie.

    Raises:
        ValueError: when it is none of them, has images beside class folders or below them, or when its `dataset.json`
            is torn or about other images.
    """
    files = opened(path)
    found = files.names()
    names = sorted(filter(_is_image, found))
    _check_backslashes(names, path)
    left_out = _left_out(found)
    if flat:
        return ImageFiles(names, [0] * len(names), ("all",), files, left_out=left_out)
    # A folder around the whole set may lie in the archive too.
    around = PurePosixPath(names[0]).parts[: _around(names)] if names else ()
    above = [PurePosixPath(*around[:depth]) for depth in range(len(around) + 1)]
    given = next((folder for folder in above if (folder / LABELS).as_posix() in found), None)
    if given is None:
        _check_no_labels(found, path)
        return ImageFiles(names, *_by_folder(names, path), files, left_out=left_out)
    content = files.read((given / LABELS).as_posix())
    labels, classes = _numbered(content, names, path, given)
    return ImageFiles(names, labels, classes, files, len(classes) > 1, left_out)


def _plain(name: str) -> str:
    """Return a name in a zip with ``/`` between folders, and without ``./`` at its start."""
    slashed = name.replace("\\", "/")
    return slashed if slashed.startswith("/") else PurePosixPath(slashed).as_posix()


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not _is_hidden(path)


def _is_hidden(path: PurePosixPath) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _left_out(found: list[str]) -> dict[str, int]:
    """Return how many files of each suffix are not read; notes of operating systems do not count."""
    counts: Counter[str] = Counter()
    for name in found:
        path = PurePosixPath(name)
        system = path.name.startswith("._") or "__MACOSX" in path.parts
        hidden = _is_hidden(path) and path.suffix.lower() in SUFFIXES and not system
        if hidden:
            counts[f"hidden {path.suffix.lower()}"] += 1
        elif not _is_hidden(path) and not _is_image(name) and path.name != LABELS:
            counts[path.suffix.lower() or "without a suffix"] += 1
    return dict(counts)


def _check_backslashes(names: list[str], path: Path) -> None:
    if strange := next((name for name in names if "\\" in name), None):
        raise ValueError(
            f"{path} has the file {strange!r}: a backslash separates folders on Windows only; unpack or pack the "
            "images again with folders"
        )


def _check_no_labels(found: list[str], path: Path) -> None:
    """Refuse a `dataset.json` that gives the classes of only a part of the images, or has another spelling."""
    for name in found:
        each = PurePosixPath(name)
        if each.name.lower() == LABELS and not _is_hidden(each):
            raise ValueError(
                f"{path} has {name}, which must be called {LABELS} and lie in a folder around all images to give their "
                "classes: set `path:` to its folder, or remove it"
            )


def _around(names: list[str]) -> int:
    """Return how many folders lie around all images."""
    folders = [PurePosixPath(name).parent.parts for name in names]
    return len(os.path.commonprefix(folders)) if folders else 0


def _by_folder(names: list[str], path: Path) -> tuple[list[int], tuple[str, ...]]:
    folders = [PurePosixPath(name).parent.parts for name in names]
    around = _around(names)
    depth = max(map(len, folders), default=0)
    own = [parts[min(around, depth - 1) :] if depth else () for parts in folders]
    if len({len(parts) for parts in own}) > 1:
        raise ValueError(f"{path} holds images beside class sub-folders: use one or the other")
    if any(len(parts) > 1 for parts in own):
        raise ValueError(
            f"{path} holds folders in class sub-folders: only one level of folders is read"
        )
    classes = sorted({parts[0] for parts in own if parts})
    if len(classes) > 1 and {name.lower() for name in classes} <= SPLITS:
        raise ValueError(
            f"{path} has the folders {', '.join(classes)}, which are splits, not classes: set `path:` to the one to "
            "train on and `test_path:` to the other"
        )
    number = {name: index for index, name in enumerate(classes)}
    return [number[parts[0]] if parts else 0 for parts in own], tuple(classes) or ("all",)


def _numbered(
    content: bytes, names: list[str], path: Path, folder: PurePosixPath
) -> tuple[list[int], tuple[str, ...]]:
    """Return labels and classes as a `dataset.json` in that folder says; its names are relative to it."""
    where = f"{path}: {LABELS}"
    try:
        pairs = json.loads(content)["labels"]
        named = [((folder / _plain(name)).as_posix(), label) for name, label in pairs or []]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError(f'{where} must be {{"labels": [[name, class], ...]}}') from None
    if pairs is None:
        return [0] * len(names), ("all",)
    given: dict[str, Any] = dict(named)
    if twice := [name for name, count in Counter(name for name, _ in named).items() if count > 1]:
        raise ValueError(f"{where} names {twice[0]!r} twice")
    known = set(names)
    if strange := next((name for name in given if name not in known), None):
        raise ValueError(f"{where} names {strange!r}, which is not an image there")
    if missing := next((name for name in names if name not in given), None):
        raise ValueError(f"{where} has no label of {missing}")
    labels = [given[name] for name in names]
    if wrong := [x for x in labels if type(x) is not int or not 0 <= x < MOST_CLASSES]:
        raise ValueError(
            f"{where} has the label {wrong[0]!r}: labels are numbers from 0, below {MOST_CLASSES:,}"
        )
    return labels, tuple(map(str, range(max(labels, default=0) + 1)))
