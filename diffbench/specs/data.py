"""Specs of the data sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import BeforeValidator, Field, model_validator

from diffbench.specs.base import Fraction, Int, Only, PositiveInt, Registered, nothing, number

Resize = Literal["bicubic", "lanczos", "bilinear", "box-bicubic"]
SHA256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

#: The kinds of picture files that are read, by whether lossy ones are allowed.
FORMATS = {False: ("PNG",), True: ("PNG", "JPEG", "WEBP")}
#: The seed of a split: NumPy's RandomState takes 32 bits.
SplitSeed = Annotated[Int, Field(ge=0, lt=2**32)]
#: The least number of test images; fewer have no useful statistics.
FEWEST = 20
#: The most batches of ImageNet; the published set has ten.
MOST_BATCHES = 1000

#: The archives of downsampled ImageNet by size, with the checksums that TensorFlow Datasets has recorded
#: (https://github.com/tensorflow/datasets, imagenet_resized/checksums.tsv).
IMAGENET = {
    32: {
        "train_npz.zip": "94226337ecc1b0309d9fcd0167127aaadc931587035fbcb53925235edbaec4fc",
        "val_npz.zip": "013990e6dec1237dcd1f9beadbab81ead6604cc119af5cacbfb59ae28148377a",
    },
    64: {
        "train_part1_npz.zip": "9422dc1dc5d092e9814a70a1cb7fc74880d2db5d88a0cb8a34ee363b12bde3f1",
        "train_part2_npz.zip": "9fafc115afb7e6c301e66dc16b2d737152b427bd5dab26e1293487a6819c7f30",
        "val_npz.zip": "e1e75133158a1924135a9c6f97a80d2d237b158945e0b34074e58e6c8430eeb8",
    },
}


class Listing(NamedTuple):
    """How images are found at a place.

    whole: patterns of the names of large files that hold them, in a folder; without any of these, picture files do.
    flat: whether folders of picture files are no classes.
    """

    whole: tuple[str, ...] = ()
    flat: bool = False


class DataSpec(Registered):
    """A data set: images in grey levels 0..levels-1 with a fixed train/test split."""

    kind: ClassVar[str] = "data"
    levels: ClassVar[int]
    #: The keys that name files or folders from which the images are read.
    read_from: ClassVar[tuple[str, ...]] = ()
    #: Whether its images are picture files, decoded one by one.
    decoded: ClassVar[bool] = False

    name: str

    @property
    def places(self) -> tuple[str, ...]:
        """Keys that are only paths, because another key has the checksum: a copy elsewhere is the same data set."""
        return ()

    @property
    def known_classes(self) -> int | None:
        """The number of classes, 1 where there are none; None where it is known only once data are read."""
        return None

    @property
    def known_shape(self) -> tuple[int, int, int] | None:
        """The images' (channels, height, width); None where they are known only once data are read."""
        return None

    @property
    def known_counts(self) -> Mapping[str, int]:
        """The number of images of each split; empty where it is known only once data are read."""
        return {}

    @property
    def paths(self) -> dict[str, str]:
        """Configuration key -> file or folder that the images are read from, relative to the working directory."""
        given = {key: getattr(self, key) for key in self.read_from}
        return {key: path for key, path in given.items() if path is not None}

    @property
    def known_by_path(self) -> bool:
        """Whether its images are known by their paths alone, until a plan adds the SHA-256 of their contents."""
        return False

    @property
    def planned_contents(self) -> str | None:
        """The SHA-256 of the files' contents that a plan has added; None where it has not."""
        return None

    @property
    def listing(self) -> Listing:
        """How the images are found at the ``paths``."""
        return Listing()

    @property
    def path_refusal(self) -> str | None:
        """The key that should say where the images are, and what is wanted there; None where it does say so."""
        return None

    @property
    def unplaced(self) -> Self:
        """The same data set without its ``places``, on which products do not depend."""
        return self.model_copy(update=dict.fromkeys(self.places)) if self.places else self

    @property
    def pictures(self) -> dict[str, str]:
        """Configuration key -> folder, zip or tar of picture files that a plan can list; empty of other data sets."""
        return {}

    @property
    def formats(self) -> tuple[str, ...]:
        """The kinds of picture files that are read."""
        return FORMATS[False]

    def tests_of(self, counts: Mapping[str, int]) -> tuple[str, int] | None:
        """Return how many test images there will be, and the key that says so; None where it is not known yet.

        Args:
            counts: the number of listed picture files by the key of their path.
        """
        known = self.known_counts.get("test")
        return None if known is None else ("test", known)

    @property
    def origin(self) -> str:
        """Where to get the files, for users who miss them; empty where only the user can know."""
        return ""

    @property
    def remark(self) -> str:
        """A remark about the images for every table; empty where they are as published."""
        return ""

    @property
    def known_as(self) -> str:
        """The name in tables; images that are no exact copies never have the name of a published data set."""
        return self.name

    @property
    def edition(self) -> str:
        """The version of the data set: who resized it, or how; empty where there is only one, or it is not known."""
        return ""

    @property
    def title(self) -> str:
        """The name and the version, as tables have them."""
        return f"{self.known_as} ({self.edition})" if self.edition else self.known_as


class DigitsSpec(DataSpec):
    """scikit-learn's digits: 1,797 real images, 8x8, 17 grey levels, ten classes."""

    name: Literal["digits"] = "digits"
    implementation: ClassVar[str] = "diffbench.data.datasets:Digits"
    levels: ClassVar[int] = 17

    test: Annotated[PositiveInt, Field(lt=1797)] = 297
    seed: SplitSeed = 0

    @property
    def known_classes(self) -> int | None:
        return 10

    @property
    def known_shape(self) -> tuple[int, int, int]:
        return 1, 8, 8

    @property
    def known_counts(self) -> Mapping[str, int]:
        return {"train": 1797 - self.test, "test": self.test}


class PatchesSpec(DataSpec):
    """Patches of scikit-learn's two sample photographs: 16x16, RGB, 256 grey levels, 32 classes.

    A class is a cell of the 4x4 grid into which each photograph is cut.
    """

    name: Literal["patches"] = "patches"
    implementation: ClassVar[str] = "diffbench.data.patches:Patches"
    levels: ClassVar[int] = 256

    @property
    def known_classes(self) -> int | None:
        return 32

    @property
    def known_shape(self) -> tuple[int, int, int]:
        return 3, 16, 16

    @property
    def known_counts(self) -> Mapping[str, int]:
        """154 images of each class for training and 33 for tests."""
        return {"train": 4928, "test": 1056}


class CIFAR10Spec(DataSpec):
    """CIFAR-10 from its original python archive: 60,000 photographs, 32x32, RGB, 256 grey levels, ten classes.

    archive: a local copy of cifar-10-python.tar.gz; ``none`` downloads it once.
    sha256: of the archive; give another one only for another archive of the same layout.
    """

    name: Literal["cifar10"] = "cifar10"
    implementation: ClassVar[str] = "diffbench.data.cifar:CIFAR10"
    read_from: ClassVar[tuple[str, ...]] = ("archive",)
    levels: ClassVar[int] = 256

    archive: Annotated[str | None, BeforeValidator(nothing)] = None
    sha256: SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"

    @property
    def places(self) -> tuple[str, ...]:
        """The archive, whose content ``sha256`` gives."""
        return self.read_from

    @property
    def known_classes(self) -> int | None:
        return 10

    @property
    def known_shape(self) -> tuple[int, int, int]:
        return 3, 32, 32

    @property
    def known_counts(self) -> Mapping[str, int]:
        return {"train": 50_000, "test": 10_000}

    @property
    def origin(self) -> str:
        """The archive's address and checksum."""
        return f"cifar-10-python.tar.gz of www.cs.toronto.edu/~kriz (sha256 {self.sha256})"


class PlacedSpec(DataSpec):
    """Images in files that only the user has.

    path: the file or folder.
    contents: the SHA-256 over the sorted names and the SHA-256 of all files, which a plan adds: results belong to it,
        and not to a path.
    """

    path: str | None
    contents: Annotated[SHA256 | None, BeforeValidator(nothing)] = Field(
        default=None, exclude_if=lambda value: value is None
    )

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if self.path_refusal and self.known_by_path:
            raise ValueError(self.path_refusal)
        return self

    @property
    def places(self) -> tuple[str, ...]:
        """The paths, where another key says what they hold."""
        return () if self.known_by_path else self.read_from

    @property
    def known_by_path(self) -> bool:
        return self.contents is None

    @property
    def planned_contents(self) -> str | None:
        return self.contents

    @property
    def path_refusal(self) -> str | None:
        return "path: none; it must be a file or folder" if self.path is None else None


class ImageFilesSpec(PlacedSpec):
    """Image files, decoded one by one.

    size: the side of the square that images are cropped and resized to, antialiased; ``none`` leaves them as they are.
    resize: how images are resized; each way makes another version of the data set.  ``bicubic`` and ``lanczos`` cut the
        square first (Lanczos: the LSUN of Progressive GAN and of DDPM, the ImageNet of EDM); ``bilinear`` resizes the
        shorter side and then cuts (torchvision, inverse heat dissipation); so does ``box-bicubic``, after halving by
        a box filter as often as that leaves twice the size (Improved DDPM, ADM).  With ``none`` all images must have
        that size already.
    channels: 1 or 3, which all images must have; ``none`` takes the number that the first image has.
    lossy: whether JPEG and WebP are read; every table then says so.
    """

    decoded: ClassVar[bool] = True

    levels: ClassVar[int] = 256
    belonging: ClassVar[tuple[Only, ...]] = (Only("resize", "size"),)

    size: Annotated[PositiveInt | None, BeforeValidator(nothing)] = None
    resize: Annotated[Resize | None, BeforeValidator(nothing)] = "bicubic"
    channels: Annotated[Literal[1, 3] | None, BeforeValidator(nothing)] = None
    lossy: bool = False

    @property
    def known_shape(self) -> tuple[int, int, int] | None:
        """The shape, where ``channels`` and ``size`` are given."""
        if self.size is None or self.channels is None:
            return None
        return self.channels, self.size, self.size

    @property
    def formats(self) -> tuple[str, ...]:
        """PNG, and the lossy kinds where they are allowed."""
        return FORMATS[self.lossy]

    @property
    def remark(self) -> str:
        """A remark that scores of lossy images compare with no published ones."""
        if not self.lossy:
            return ""
        return "lossy images: their artefacts are learnt and scored, and no score compares with a published one"

    @property
    def known_as(self) -> str:
        """The name, marked where lossy images are read."""
        return f"{self.name} (lossy)" if self.lossy else self.name

    @property
    def edition(self) -> str:
        """How images are resized, where they are."""
        return self.resize or "" if self.size else ""


class FolderSpec(ImageFilesSpec):
    """A folder, zip or tar of PNGs; folders in it, or numbers in a ``dataset.json``, are classes.

    test_path: a folder, zip or tar of the test images; ``none`` takes a part of ``path``.
    test_fraction: without ``test_path``, the fraction of each class that is the test split, chosen by ``seed``.
    classes: the number of classes, for plans made before the data are there; it is checked when data are read.
    called: the name in tables of the published data set that this is: ``imagenet32``.
    version: whose version of it, as in ``published.csv``: ``van den Oord 2016``.  Images are not resized then.
    identity: the SHA-256 over the sorted names of all images and the SHA-256 of their pixels, as in the manifest.
        Where it is given, it is checked, and a copy elsewhere is the same data set.
    contents: the SHA-256 over the sorted names of all images and the SHA-256 of their files, which a plan adds where
        ``identity`` is not given: results belong to it, and not to a path.
    """

    name: Literal["folder"] = "folder"
    implementation: ClassVar[str] = "diffbench.data.folder:ImageFolder"
    belonging: ClassVar[tuple[Only, ...]] = (Only("test_fraction", "test_path", (None,)),)
    read_from: ClassVar[tuple[str, ...]] = ("path", "test_path")

    test_path: Annotated[str | None, BeforeValidator(nothing)] = None
    test_fraction: Fraction = 0.1
    seed: SplitSeed = 0
    classes: Annotated[PositiveInt | None, BeforeValidator(nothing)] = None
    called: Annotated[str | None, BeforeValidator(nothing)] = None
    version: Annotated[str | None, BeforeValidator(nothing)] = None
    identity: Annotated[SHA256 | None, BeforeValidator(nothing)] = None

    @model_validator(mode="before")
    @classmethod
    def _version_is_as_it_is(cls, value: Any) -> Any:
        versioned = isinstance(value, dict) and value.get("version") not in (None, "none")
        return {"resize": None, **value} if versioned else value

    @model_validator(mode="after")
    def _version_is_of_something(self) -> Self:
        if self.version is not None and self.called is None:
            raise ValueError(f"version: {self.version!r} needs `called:`, the name of the data set")
        if self.version is not None and self.resize is not None:
            raise ValueError(
                f"resize: {self.resize}, but images with a version are not resized; leave one of the two out"
            )
        return self

    @property
    def known_classes(self) -> int | None:
        return self.classes

    @property
    def known_as(self) -> str:
        """``called``, or the name; marked where lossy images are read."""
        name = self.called or self.name
        return f"{name} (lossy)" if self.lossy else name

    @property
    def edition(self) -> str:
        """``version``, or how images are resized."""
        return self.version or super().edition

    @property
    def known_by_path(self) -> bool:
        return self.identity is None and super().known_by_path

    @property
    def path_refusal(self) -> str | None:
        return "path: none; it must be a folder, zip or tar of PNGs" if self.path is None else None

    @property
    def pictures(self) -> dict[str, str]:
        return self.paths

    def tests_of(self, counts: Mapping[str, int]) -> tuple[str, int] | None:
        if self.test_path is not None:
            return ("test_path", counts["test_path"]) if "test_path" in counts else None
        if "path" not in counts:
            return None
        return "test_fraction", max(1, round(self.test_fraction * counts["path"]))


class ParquetSpec(ImageFilesSpec):
    """The parquet files of a data set on the Hugging Face hub: ``train*.parquet`` and ``test*.parquet`` in a folder.

    test: how the names of the test split's files begin; on the hub it may be ``validation``.
    image, label: the names of the columns; ``none`` takes the only possible one.  Without labels there is one class.
    classes: the number of classes, for plans made before the data are there; it is checked when data are read.  With 1,
        and without ``label``, no labels are read.
    """

    name: Literal["parquet"] = "parquet"
    implementation: ClassVar[str] = "diffbench.data.parquet:ParquetImages"
    read_from: ClassVar[tuple[str, ...]] = ("path",)

    test: str = "test"
    image: Annotated[str | None, BeforeValidator(nothing)] = None
    label: Annotated[str | None, BeforeValidator(nothing)] = None
    classes: Annotated[PositiveInt | None, BeforeValidator(nothing)] = None

    @property
    def known_classes(self) -> int | None:
        return self.classes

    @property
    def listing(self) -> Listing:
        """The files of both splits."""
        return Listing(("**/train*.parquet", f"**/{self.test}*.parquet"))


class ImageNetSpec(PlacedSpec):
    """Downsampled ImageNet from its npz batches: RGB, 256 grey levels, 1,000 classes.

    path: a folder with ``train_data_batch_1.npz`` and so on, and ``val_data.npz``.
    size: 32 or 64.
    batches: the number of training batches; the published data set has ten.
    """

    name: Literal["imagenet"] = "imagenet"
    implementation: ClassVar[str] = "diffbench.data.imagenet:ImageNet"
    read_from: ClassVar[tuple[str, ...]] = ("path",)
    levels: ClassVar[int] = 256

    size: Annotated[Literal[32, 64], BeforeValidator(number)]
    batches: Annotated[PositiveInt, Field(le=MOST_BATCHES)] = 10

    @property
    def listing(self) -> Listing:
        """The batches that are read."""
        batches = (f"**/train_data_batch_{number}.npz" for number in range(1, self.batches + 1))
        return Listing((*batches, "**/val_data.npz"))

    @property
    def known_classes(self) -> int | None:
        return 1000

    @property
    def known_shape(self) -> tuple[int, int, int]:
        return 3, self.size, self.size

    @property
    def known_counts(self) -> Mapping[str, int]:
        """The numbers of the 2012 challenge, with its validation set for tests; empty where batches are left out."""
        return {"train": 1_281_167, "test": 50_000} if self.batches == 10 else {}

    @property
    def known_as(self) -> str:
        """``imagenet32`` or ``imagenet64``."""
        return f"imagenet{self.size}"

    @property
    def edition(self) -> str:
        """The version of 2017; van den Oord's of 2016 costs more bits per dimension."""
        return "Chrabaszcz 2017"

    @property
    def origin(self) -> str:
        """The archives and their checksums; image-net.org requires an account."""
        archives = ", ".join(
            f"Imagenet{self.size}_{name} (sha256 {digest})"
            for name, digest in IMAGENET[self.size].items()
        )
        return f"the files unpacked from https://image-net.org/data/downsample/ {archives}"


class LSUNSpec(ImageFilesSpec):
    """LSUN, photographs of one scene: an LMDB as published, or a folder or zip of the images in it.

    size: the side of the square that images are cropped and resized to.
    test_path: the published validation set; ``none`` holds back ``test_fraction`` of ``path``, chosen by ``seed``.
    lossy: needed only for JPEG files in a folder, which were compressed again.
    """

    name: Literal["lsun"] = "lsun"
    implementation: ClassVar[str] = "diffbench.data.lsun:LSUN"
    belonging: ClassVar[tuple[Only, ...]] = (
        Only("test_fraction", "test_path", (None,)),
        Only("seed", "test_path", (None,)),
    )
    read_from: ClassVar[tuple[str, ...]] = ("path", "test_path")

    size: PositiveInt = 256
    channels: Literal[3] = 3
    test_path: Annotated[str | None, BeforeValidator(nothing)] = None
    test_fraction: Fraction = 0.1
    seed: SplitSeed = 0

    @property
    def known_classes(self) -> int | None:
        """One: LSUN has no classes."""
        return 1

    @property
    def listing(self) -> Listing:
        """The database, or all picture files."""
        return Listing(("data.mdb",), flat=True)

    @property
    def origin(self) -> str:
        """The address of the databases; no checksums of them are published."""
        return (
            "an unpacked LMDB of http://dl.yf.io/lsun/scenes/, e.g. church_outdoor_train_lmdb.zip"
        )

    @property
    def formats(self) -> tuple[str, ...]:
        """PNG and WebP, which the databases have; JPEG only where it is allowed."""
        return FORMATS[self.lossy] if self.lossy else ("PNG", "WEBP")
