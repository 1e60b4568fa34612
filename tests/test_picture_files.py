"""What the first bytes of a file say of it: faults by name, all of a set at once, each kind of stand-in."""

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from archives import noise, numbered, png, write_zip
from commands import REPOSITORY
from PIL import Image, ImageOps

from diffbench import cli
from diffbench.data.decoding import Decoder
from diffbench.data.folder import ImageFolder
from diffbench.plan import pictures
from diffbench.plan.loading import load_plan
from diffbench.specs.data import FolderSpec
from diffbench.specs.errors import PlanError
from diffbench.store.picture_files import (
    HEAD,
    NAMED,
    Faults,
    PictureError,
    fault,
    kind_of,
    listed,
    png_shape,
)

LOSSY = ("PNG", "JPEG", "WEBP")


def png_of(depth: int, colour: int, numbers: int, height: int = 4, width: int = 6) -> bytes:
    """A PNG of zeros, written from the standard: ``numbers`` a pixel of ``depth`` bits."""

    def part(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    row = b"\0" + bytes(-(-width * numbers * depth // 8))
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    palette = part(b"PLTE", bytes(3)) if colour == 3 else b""
    return (
        b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + palette
        + part(b"IDAT", zlib.compress(row * height)) + part(b"IEND", b"")
    )  # fmt: skip


def saved(kind: str, image: np.ndarray | None = None, **keys: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise(0, 4, 4, 3) if image is None else image).save(file, kind, **keys)
    return file.getvalue()


# Colour types of the PNG standard, table 11.1: grey, RGB, palette, grey and RGB with transparency.
@pytest.mark.parametrize(("colour", "numbers"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_a_png_of_16_bits_is_refused_whatever_its_colours(colour: int, numbers: int) -> None:
    with pytest.raises(PictureError, match=r"^x has 16 bits for a number: images must be 8-bit"):
        Decoder().read(png_of(16, colour, numbers), "x")


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_grey_png_of_at_most_8_bits_is_read(depth: int) -> None:
    assert Decoder().read(png_of(depth, 0, 1), "x").shape == (4, 6, 1)
    assert png_shape(png_of(depth, 0, 1)) == (1, 4, 6)


@pytest.mark.parametrize(("colour", "numbers", "channels"), [(0, 1, 1), (2, 3, 3), (3, 1, 3)])
def test_the_shape_in_the_header_is_that_of_the_decoded_image(
    colour: int, numbers: int, channels: int
) -> None:
    content = png_of(8, colour, numbers, 5, 7)
    assert png_shape(content[:HEAD]) == (channels, 5, 7)
    assert Decoder().read(content, "x").shape == (5, 7, channels)


def test_what_is_no_png_has_no_shape() -> None:
    assert (
        png_shape(saved("JPEG")) is None
        and png_shape(b"") is None
        and png_shape(png_of(8, 6, 4)) is None
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", LOSSY)
def test_images_are_read_upright(kind: str, orientation: int) -> None:
    """Against Pillow's own turn; flat halves survive JPEG."""
    half = np.zeros((16, 24, 3), np.uint8)
    half[:, :12], half[:8, :12, 1] = 255, 0
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(kind, half, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))
    image = Decoder(formats=LOSSY).read(content, "x")
    assert image.shape == ((16, 24, 3) if orientation < 5 else (24, 16, 3))
    assert np.array_equal(image, expected)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_is_refused(kind: str) -> None:
    more = [Image.fromarray(noise(i, 4, 4, 3)) for i in (1, 2)]
    with pytest.raises(PictureError, match="is an animation of 3 pictures"):
        Decoder(formats=LOSSY).read(
            saved(kind, save_all=True, append_images=more, lossless=True), "x"
        )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", "is a Git LFS pointer"),
        (b"/annex/objects/SHA256E-s1--0.png\n", "is a git-annex pointer"),
        (b"../../.git/annex/objects/x", "is not an image: it begins with '../../.g'"),
        (b"outs:\n- md5: 0\n", "is a DVC pointer"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"\n <HTML>", "is a web page"),
        (b"<?xml version='1.0'?><Error>", "is XML"),
        (bytes(100), "holds only zeros"),
        (b"hello\x1b[31m", r"is not an image: it begins with 'hello\x1b[3'"),
        (b"GIF89a", "is GIF, not PNG, whatever its name says: convert it"),
        (b"BM....", "is BMP"),
        (b"II*\0", "is TIFF"),
        (b"PK\x03\x04", "is a zip"),
    ],
)  # fmt: skip
def test_what_stands_in_the_place_of_an_image_is_named(content: bytes, reason: str) -> None:
    assert (fault(content[:HEAD], len(content), ("PNG",)) or "").startswith(reason)
    with pytest.raises(PictureError) as error:
        Decoder().read(content, "a/b.png")
    assert str(error.value).startswith(f"a/b.png {reason}") and "0x" not in str(error.value)


def test_no_object_of_pillow_is_in_a_message() -> None:
    """A header cut anywhere, and one of nonsense."""
    whole = saved("PNG")
    for content in [whole[:size] for size in range(1, len(whole) - 8)] + [whole[:8] + bytes(60)]:
        with pytest.raises(PictureError) as error:
            Decoder().read(content, "x.png")
        assert "BytesIO" not in str(error.value) and " at 0x" not in str(error.value)


@pytest.mark.parametrize("kind", LOSSY)
def test_kinds_are_known_by_their_first_bytes(kind: str) -> None:
    assert kind_of(saved(kind)) == kind


NINE = {
    "1.png": b"",
    "2.png": b"version https://git-lfs.github.com/spec/v1\n",
    "3.png": saved("JPEG"),
    "4.png": png_of(16, 2, 3),
    "5.png": bytes(10),
    "6.png": b"<html>",
    "7.png": b"",
    "8.png": saved("GIF"),
    "9.png": b"text",
}


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_nine_bad_files_are_one_message(tmp_path: Path, kind: str) -> None:
    good = {name: png(image) for name, image in numbered(40, prefix="a").items()}
    if kind == "zip":
        path = write_zip(tmp_path / "a.zip", good | NINE)
    else:
        path = tmp_path / "a"
        path.mkdir()
        for name, content in (good | NINE).items():
            (path / name).write_bytes(content)
    spec = FolderSpec(path=str(path))
    with pytest.raises(ValueError, match="^9 of 49 images cannot be used: ") as read:
        ImageFolder(spec).load()
    with pytest.raises(ValueError) as planned:
        pictures.faults(spec).check()
    assert str(planned.value) == str(read.value)
    assert all(f"{path}/{name}" in str(read.value) for name in NINE) and "\n" not in str(read.value)
    assert f"{path}/1.png is empty (likewise {path}/7.png)" in str(read.value)


def test_a_torn_file_is_found_with_those_of_another_shape(tmp_path: Path) -> None:
    for name, content in {
        "0": saved("PNG"),
        "1": saved("PNG")[:-30],
        "2": saved("PNG", noise(0, 5, 4, 3)),
        "3": saved("PNG"),
    }.items():
        (tmp_path / f"{name}.png").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"^2 of 4 .*1\.png is not a complete image .*; .*2\.png is 4x5"
    ):
        ImageFolder(FolderSpec(path=str(tmp_path), test_fraction=0.5)).load()


def test_many_faults_are_counted() -> None:
    faults = Faults()
    for number in range(100):
        with faults.one(f"{number}"):
            raise PictureError(f"{number}", f"has fault {number % 20}")
    with pytest.raises(ValueError, match=r"^100 of 100 .*; 11 other faults$") as error:
        faults.check()
    assert "0 has fault 0 (likewise 20, 40, 60 and 80)" in str(error.value)
    assert str(error.value).count("has fault") == NAMED


def test_a_file_that_cannot_be_opened_is_a_fault() -> None:
    faults = Faults()
    with faults.one("a.png"):
        raise PermissionError(13, "Permission denied")
    with pytest.raises(ValueError, match=r"^a\.png cannot be read \(permission denied\)$"):
        faults.check()


def test_without_faults_nothing_is_raised() -> None:
    Faults().check()
    assert (
        listed(["a"]) == "a"
        and listed(["a", "b"]) == "a and b"
        and listed(list("abcd"), 2) == "a, b and 2 more"
    )


def config(folder: Path, images: Path, **options: object) -> Path:
    """A benchmark file of these images and nothing trained."""
    facts = {"name": "folder", "path": str(images), **options}
    variants = options.pop("variants", ["control-test"])
    facts.pop("variants", None)
    content = {"name": "b", "data": facts, "device": "cpu", "samples": 40, "variants": variants}
    content["network"], content["training"] = (
        {"name": "unet", "channels": 8},
        {"steps": 4, "lr": 1e-3},
    )
    (folder / "b.yaml").write_text(json.dumps(content))
    return folder / "b.yaml"


def written(path: Path, images: dict[str, bytes]) -> Path:
    path.mkdir()
    for name, content in images.items():
        (path / name).write_bytes(content)
    return path


def pngs(count: int, side: int) -> dict[str, bytes]:
    return {f"{i:03}.png": png(noise(i, side, side, 3)) for i in range(count)}


def test_check_config_says_all_faults_and_what_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = written(tmp_path / "images", pngs(40, 8) | {"a.bmp": saved("BMP")})
    file = config(tmp_path, images, test_fraction=0.5)
    assert cli.main(["check-config", str(file)]) == 0
    assert f"{images}: 1 of 41 files are left out: 1 .bmp" in capsys.readouterr().out
    for name, content in NINE.items():
        (images / name).write_bytes(content)
    assert cli.main(["check-config", str(file)]) == 1
    error = capsys.readouterr().err
    assert (
        f"{file}:1: data.path: 9 of 49 images cannot be used: " in error and error.count("\n") == 1
    )


def test_a_plan_refuses_too_few_test_images(tmp_path: Path) -> None:
    images = written(tmp_path / "images", pngs(40, 8))
    with pytest.raises(
        PlanError, match=r"data\.test_fraction: 0\.1 gives 4 test images, and at least 20"
    ):
        load_plan([config(tmp_path, images)], {}, REPOSITORY, looks=True)
    tests = written(tmp_path / "tests", pngs(5, 8))
    with pytest.raises(PlanError, match=r"data\.test_path: .* gives 5 test images"):
        load_plan([config(tmp_path, images, test_path=str(tests))], {}, REPOSITORY, looks=True)


@pytest.mark.parametrize(("side", "instead"), [(7, 8), (1, 2)])
def test_a_plan_knows_the_shape_of_listed_images(tmp_path: Path, side: int, instead: int) -> None:
    """The network of the file halves them once."""
    images = written(tmp_path / "images", pngs(40, side))
    message = rf"vp\.network: unet halves .* even, not {side}x{side}; resize the images to {instead} pixels"
    with pytest.raises(PlanError, match=message):
        load_plan([config(tmp_path, images, test_fraction=0.5, variants=["vp"])], {}, REPOSITORY)
    with pytest.raises(PlanError, match=r"not 9x9"):
        given = {"test_fraction": 0.5, "variants": ["vp"], "size": 9}
        load_plan([config(tmp_path, images, **given)], {}, REPOSITORY)
    load_plan(
        [config(tmp_path, images, test_fraction=0.5, variants=["vp"], size=8)], {}, REPOSITORY
    )
