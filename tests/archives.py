"""Small data sets in the layouts that the real ones are published in."""

import hashlib
import io
import json
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
ROOT = "cifar-10-batches-py"


class Runs:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


def random_images(seed: int, count: int, size: int = 32, channels: int = 3) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (count, size, size, channels), np.uint8)


def noise(seed: int, *shape: int) -> np.ndarray:
    """An image of random levels."""
    return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)


def numbered(count: int, first: int = 0, prefix: str = "", side: int = 4) -> dict[str, np.ndarray]:
    """Random RGB images by names in order."""
    return {f"{prefix}{i:03}.png": noise(first + i, side, side, 3) for i in range(count)}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def python2(data: np.ndarray, labels: list[int]) -> bytes:
    """A batch as Python 2 and NumPy 1 pickled it: text is bytes, the array behind `numpy.core`."""

    def short(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    def number(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    raw = data.tobytes()
    kind = b"cnumpy\ndtype\nq\x01(U\x02u1K\x00K\x01tRq\x02(K\x03U\x01|NNN" + 2 * number(-1)
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btRq\x03(K\x01("
        + number(data.shape[0])
        + number(data.shape[1])
        + b"t"
        + kind
        + b"K\x00tb\x89T"
        + len(raw).to_bytes(4, "little")
        + raw
        + b"tb"
    )
    listed = b"](" + b"".join(map(number, labels)) + b"e"
    return b"\x80\x02}q\x00(" + short(b"labels") + listed + short(b"data") + array + b"u."


def cifar_members(per_batch: int = 4, **replaced: bytes) -> tuple[dict[str, bytes], np.ndarray]:
    """The members of an archive and its images, training batches first, labelled 0, 1, 2, ..."""
    images = random_images(1, 6 * per_batch)
    members = {"batches.meta": pickle.dumps({b"label_names": [n.encode() for n in NAMES]}, 2)}
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for i, name in enumerate(names):
        part = slice(i * per_batch, (i + 1) * per_batch)
        rows = images[part].transpose(0, 3, 1, 2).reshape(per_batch, -1)
        members[name] = python2(rows, [label % 10 for label in range(part.start, part.stop)])
    members |= replaced
    return {f"{ROOT}/{name}": content for name, content in members.items()}, images


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def png(array: np.ndarray, kind: str = "PNG") -> bytes:
    """An image file of an array (H, W, C)."""
    buffer = io.BytesIO()
    Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array).save(buffer, kind)
    return buffer.getvalue()


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_parquet(path: Path, files: list, labels: list | None, names: list | None = None) -> Path:
    """A split as on the Hugging Face hub: `img` has the files' bytes (or None), `label` integers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": file, "path": f"{i}.png"} for i, file in enumerate(files)]
    columns = {"img": pa.array(rows, kind)}
    if labels is not None:
        columns["label"] = pa.array(labels, pa.int64())
    table = pa.table(columns)
    if names is not None:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        facts = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": facts})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=7)
    return path


def write_layout(folder: Path, layout: str, train: int = 60, test: int = 30) -> dict:
    """A tiny CIFAR-10 in a layout; the configuration's `data` of it, its path relative to the folder."""
    files = [png(image) for image in random_images(1, train + test)]
    labels = [i % 10 for i in range(train + test)]
    return LAYOUTS[layout](folder, files, labels, train)


def _cifar10(folder: Path, files: list[bytes], labels: list[int], train: int) -> dict:
    members, _ = cifar_members(per_batch=len(files) - train)
    archive = write_tar(folder / "cifar.tar.gz", members)
    return {"name": "cifar10", "archive": archive.name, "sha256": sha256(archive)}


def _parquet(folder: Path, files: list[bytes], labels: list[int], train: int) -> dict:
    write_parquet(folder / "hub" / "train.parquet", files[:train], labels[:train], NAMES)
    write_parquet(folder / "hub" / "test.parquet", files[train:], labels[train:], NAMES)
    return {"name": "parquet", "path": "hub", "size": 32, "channels": 3, "classes": 10}


def _folder(folder: Path, files: list[bytes], labels: list[int], train: int) -> dict:
    names = [f"{i // 50:05}/img{i:08}.png" for i in range(len(files))]
    members = dict(zip(names, files, strict=True))
    listed = [list(pair) for pair in zip(names, labels, strict=True)]
    members["dataset.json"] = json.dumps({"labels": listed}).encode()
    write_zip(folder / "edm.zip", members)
    return {"name": "folder", "path": "edm.zip", "test_fraction": 1 - train / len(files)}


LAYOUTS = {"cifar10": _cifar10, "parquet": _parquet, "folder": _folder}
