"""Random benchmark files, returned values, sidecars and data folders: refused or accepted, soon, in little memory.

A few cases run with all tests, the same ones every time; `make faults` runs 2,000.  Time is processor time: a
busy machine changes nothing.
"""

import copy
import json
import os
import resource
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import fast_yaml
import pytest
import torch
from archives import noise, png
from commands import TINY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffbench import cli
from diffbench.data.folder import ImageFolder
from diffbench.diffusion import VP, Heun
from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.core.streams import stream
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.solvers.loop import sample
from diffbench.plan.document import parsed
from diffbench.specs.data import FolderSpec
from diffbench.specs.errors import PlanError, UserError
from diffbench.specs.jobs import STAGES
from diffbench.store.products import read_sidecar, status_of

#: Seconds of one case, and bytes by which all cases of a test may raise the most memory that was in use.
LONGEST, LARGEST = 5.0, 2**30
#: The unit of the peak memory that the system reports.
UNIT = 1 if sys.platform == "darwin" else 1024

TEXTS = st.text(max_size=12) | st.sampled_from(
    [
        "none",
        "{x}",
        "*",
        "[",
        "../..",
        "/dev/zero",
        "\0",
        "\x1b[2J",
        "a@b",
        "é",
        "__use_yte__",
        "9" * 500,
    ]
)
NUMBERS = (
    st.integers()
    | st.floats()
    | st.sampled_from([0, -1, 1, 2**63, 10**18, 10**400, 1e300, float("nan"), float("inf")])
)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
KEYS = TEXTS | st.sampled_from(
    [
        "name",
        "sweep",
        "process",
        "solvers",
        "steps",
        "seeds",
        "base",
        "extensions",
        "control",
        "pretrained",
        "only",
    ]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)


@contextmanager
def bounded():
    """A case that must end soon."""
    begin = time.process_time()
    yield
    assert time.process_time() - begin < LONGEST


@pytest.fixture(autouse=True)
def little_memory():
    """The peak of memory after a test is not far above that before it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT - before < LARGEST


def cases(few: int, many: int):
    """A decorator: a test with a few cases, always the same, and with many of them for `make faults`."""
    count = pytest.param(few, id="few"), pytest.param(many, id="many", marks=pytest.mark.long)

    def decorate(test):
        return pytest.mark.parametrize("count", count)(test)

    return decorate


def tried(count: int, **strategies):
    """Call a function with drawn values, ``count`` times."""
    chosen = settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )

    def decorate(case):
        chosen(given(**strategies)(case))()

    return decorate


def places(value, keys=()):
    """All paths of keys in a value."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    yield keys
    for key, each in inner:
        yield from places(each, (*keys, key))


def changed(document, keys, value, how):
    """A document with one place replaced, removed, or given another key beside it."""
    document = copy.deepcopy(document)
    if not keys:
        return value if how == "replace" else document
    above = document
    for key in keys[:-1]:
        above = above[key]
    if how == "remove":
        del above[keys[-1]]
    elif how == "add" and isinstance(above, dict):
        above[str(value)[:20]] = copy.deepcopy(above[keys[-1]])
    else:
        above[keys[-1]] = value
    return document


SMALL = fast_yaml.load(TINY.read_text()) | {
    "variants": ["vp", "edm", "blurring-s1", "own-*", "theirs"],
    "tables": ["overview"],
}
SMALL["overrides"] = {each: SMALL["overrides"][each] for each in ("edm", "blurring-s{sigma_max}")}
HEUN = {"item": "heun-3", "metric": "fid_test"}
SMALL |= {
    "claims": [
        {
            "mine": {
                "claim": "EDM is better",
                "source": "us",
                "better": {"variant": "edm", **HEUN},
                "worse": {"variant": "own-1", **HEUN},
            }
        }
    ],
    "figures": [
        {"fid": {"layout": "nfe", "title": "FID", "variants": ["edm"], "series": {"a": ["heun-3"]}}}
    ],
}
SMALL["methods"] = {
    "own-{s}": {
        "sweep": {"s": [1, 2]},
        "process": {"name": "vp"},
        "denoiser": {"name": "gaussian"},
        "solvers": {"heun-3": {"name": "heun", "steps": 3}},
    },
    "theirs": {"control": {"name": "images", "path": "pictures"}},
}
SMALL["restorations"] = {
    "tasks": {"half": {"operator": {"name": "identity"}}},
    "variants": ["vp"],
    "restorers": {"ddrm-3": {"name": "ddrm", "steps": 3}},
}
PLACES = list(places(SMALL))
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(PLACES), VALUES, st.sampled_from(["replace", "replace", "remove", "add"])
    ),
    min_size=1,
    max_size=2,
)


def refused_in_one_line(capsys, status: int) -> None:
    """A command ended well, or said in one printable line what is wrong."""
    out, err = capsys.readouterr()
    if status == 0:
        assert not err
        return
    (line,) = err.splitlines()
    assert line.startswith("diffbench check-config: ")
    assert line.isprintable()
    for fault in ("Error)", "Traceback", "pydantic", "object at 0x", "^["):
        assert fault not in line.replace("\\x1b[", ""), line


@cases(12, 1000)
def test_benchmark_files(tmp_path, monkeypatch, capsys, count):
    monkeypatch.chdir(tmp_path)

    monkeypatch.setenv("DIFFBENCH_CACHE", str(tmp_path / "cache"))
    Path("pictures").mkdir()
    Path("pictures/a.png").write_bytes(png(noise(0, 8, 8, 1)))
    Path("bench.yaml").write_text(fast_yaml.dump(SMALL))
    assert cli.main(["check-config", "bench.yaml"]) == 0
    refused_in_one_line(capsys, 0)

    @tried(count, changes=CHANGES)
    def case(changes):
        document = SMALL
        for keys, value, how in changes:
            if keys in set(places(document)):
                document = changed(document, keys, value, how)
        Path("bench.yaml").write_text(fast_yaml.dump(document), "utf-8", "surrogatepass")
        with bounded():
            status = cli.main(["check-config", "bench.yaml"])
        refused_in_one_line(capsys, status)


@cases(40, 400)
def test_documents(count):
    """Any text is a document or a refusal."""
    pieces = st.sampled_from(
        [
            "a: ",
            "- ",
            "&x ",
            "*x",
            "[",
            "]",
            "{",
            "}",
            "<<: ",
            "\n",
            "  ",
            "!!str ",
            "|",
            "'",
            '"',
            "#",
            ", ",
        ]
    )

    @tried(count, text=st.lists(pieces | TEXTS, max_size=40).map("".join))
    def case(text):
        with bounded():
            try:
                parsed(text, "b.yaml")
            except PlanError as error:
                assert str(error).startswith("b.yaml")


class Zero(Denoiser):
    """Predicts eps = 0."""

    def predict(self, x_t, t, condition):
        return Prediction(self.process, x_t, t, "eps", torch.zeros_like(x_t))


SHAPE = (3, 1, 4, 4)
DTYPES = st.sampled_from(
    [torch.float32, torch.float64, torch.float16, torch.int64, torch.bool, torch.complex64]
)
RETURNED = st.one_of(
    st.builds(
        lambda shape, dtype, fill: torch.full(shape, fill).to(dtype),
        st.lists(st.integers(0, 5), max_size=5).map(tuple) | st.just(SHAPE),
        DTYPES,
        st.sampled_from([0.0, 1.0, float("nan"), float("inf")]),
    ),
    SCALARS,
)


@cases(30, 200)
def test_what_a_step_returns(count):
    """It is refused unless it is what the next step needs."""

    @tried(count, found=RETURNED)
    def case(found):
        solver = Heun(Zero(VP()), steps=2)
        solver.step = lambda *given: found
        right = (
            isinstance(found, torch.Tensor)
            and found.shape == SHAPE
            and found.dtype == torch.float32
            and bool(found.isfinite().all())
        )
        try:
            with bounded():
                assert sample(solver, SHAPE, stream("fuzz", 0)).shape == SHAPE
            assert right
        except ValueError as error:
            assert not right
            assert "step" in str(error)


@cases(30, 300)
def test_sidecars(tmp_path, count):
    """A forged sidecar is a finding, never an error of another kind."""
    product = tmp_path / "levels.npz"
    product.write_bytes(b"product")
    stage = STAGES["data"].model_validate({"data": {"name": "digits"}})
    forged = st.dictionaries(st.sampled_from(["spec", "sha256", "x"]), VALUES).map(json.dumps)

    @tried(
        count,
        content=forged.map(str.encode)
        | st.binary(max_size=60)
        | VALUES.map(lambda v: json.dumps(v).encode()),
    )
    def case(content):
        (tmp_path / "spec.json").write_bytes(content)
        with bounded():
            assert status_of(product, stage) in ("corrupt", "stale")
            try:
                read_sidecar(product)
            except UserError as error:
                assert "spec.json" in str(error)


NAMES = st.sampled_from(
    [
        "a.png",
        "b.png",
        "c/a.png",
        "c/b.jpg",
        "d/e/f.png",
        "dataset.json",
        "x.txt",
        ".h.png",
        "é.png",
    ]
)
#: Contents of files; the last two are a pipe and an endless device.
CONTENTS = st.binary(max_size=40) | st.sampled_from(
    [
        b"\x89PNG\r\n\x1a\n" + b"\0" * 20,
        b'{"labels": null}',
        b'{"labels": [["a.png", 0]]}',
        "pipe",
        "zero",
    ]
)


@cases(15, 100)
def test_data_folders(tmp_path, count):
    """Whatever lies in a folder, it is refused with the folder's name."""

    @tried(count, listed=st.dictionaries(NAMES, CONTENTS, min_size=1, max_size=5))
    def case(listed):
        root = tmp_path / str(time.monotonic_ns())
        for name, content in listed.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content == "pipe":
                os.mkfifo(path)
            elif content == "zero":
                path.symlink_to("/dev/zero")
            else:
                path.write_bytes(content)
        with bounded(), pytest.raises(ValueError, match=str(root.name)):
            ImageFolder(FolderSpec(path=str(root))).load()
