import builtins
import io
import os
import pickle
import pickletools
import random
import sys
import types
import zipfile
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from diffbench.pretrained.checkpoints import LARGEST, read
from diffbench.pretrained.conversion import CheckpointError

SOURCE = "raise SystemExit('the source code inside the file was run')"


def small():
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.ModuleDict({"norm": nn.BatchNorm2d(3)}))


@pytest.fixture
def edm(monkeypatch):
    """A function that pickles a network as EDM does; the modules that such a pickle names are gone afterwards."""

    def reconstruct(meta):
        raise AssertionError("code of the file's choice was called")

    package, module = types.ModuleType("torch_utils"), types.ModuleType("torch_utils.persistence")
    reconstruct.__name__ = reconstruct.__qualname__ = "_reconstruct_persistent_obj"
    reconstruct.__module__ = module.__name__
    module._reconstruct_persistent_obj = reconstruct
    package.persistence = module

    class Persistent(nn.Sequential):
        def __reduce__(self):
            meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": "EDMPrecond"}
            return reconstruct, ({**meta, "state": self.__dict__},)

    def pickled(*layers, protocol=4, **more):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package.__name__, package)
            patch.setitem(sys.modules, module.__name__, module)
            return pickle.dumps({"ema": Persistent(*layers), **more}, protocol=protocol)

    return pickled


def saved(path, value, **options):
    torch.save(value, path, **options)
    return path


def written(path, content):
    path.write_bytes(content)
    return path


def same(found, wanted):
    return list(found) == list(wanted) and all(
        torch.equal(each, wanted[name]) for name, each in found.items()
    )


def test_tensors_are_read_from_safetensors_and_torch_files_whatever_their_names(tmp_path):
    state = small().state_dict()
    save_file(state, tmp_path / "a.pt")
    found = read(tmp_path / "a.pt")
    assert same({name: found[name] for name in state}, state)
    for name, options in (("b.safetensors", {}), ("c", {"_use_new_zipfile_serialization": False})):
        path = saved(tmp_path / name, {"model": state, "step": 3}, **options)
        assert same(read(path)["model"], state)
        assert read(path)["step"] == 3


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickled_network_comes_out_as_its_state_dict(tmp_path, edm, protocol):
    layers = small()
    layers[1].register_buffer("made_anew", torch.ones(2), persistent=False)
    settings = {"dataset_kwargs": {"resolution": 32, "sizes": (1, 2)}, "loss_fn": None}
    content = edm(*layers, protocol=protocol, **settings)
    contents = read(written(tmp_path / "net.pkl", content))
    assert same(contents["ema"], nn.Sequential(*layers).state_dict())
    assert contents["dataset_kwargs"] == settings["dataset_kwargs"]


def test_tensors_that_share_their_numbers_are_read_each_with_its_part(tmp_path):
    whole = torch.arange(12.0)
    parts = {"a": whole[2:8].view(2, 3).T, "b": whole, "half": whole.half()[3:]}
    contents = read(written(tmp_path / "a.pkl", pickle.dumps(parts)))
    assert same(contents, parts)


class Calls:
    """Pickled, it calls a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class Restores:
    """Pickled, it is an object whose state is set by its own code."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __setstate__(self, state):
        open(state["marker"], "w").close()


HOSTILE = {
    "system": lambda marker: Calls(os.system, f"touch {marker}"),
    "eval": lambda marker: Calls(builtins.eval, f"open({str(marker)!r}, 'w')"),
    "exec": lambda marker: Calls(builtins.exec, f"open({str(marker)!r}, 'w')"),
    "open": lambda marker: Calls(builtins.open, str(marker), "w"),
    "getattr": lambda marker: Calls(builtins.getattr, Calls(os.getcwd), "upper"),
    "setstate": Restores,
}


def dumped(path, value, protocol):
    return written(path, pickle.dumps(value, protocol=protocol))


WRITERS = {
    **{
        f"pickle-{protocol}": lambda path, value, protocol=protocol: dumped(path, value, protocol)
        for protocol in range(6)
    },
    "torch": saved,
    "older-torch": lambda path, value: saved(path, value, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("suffix", [".pkl", ".pt", ".safetensors"])
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_and_nothing_of_it_is_run(tmp_path, kind, writer, suffix):
    marker = tmp_path / "marker"
    path = WRITERS[writer](
        tmp_path / f"hostile{suffix}", {"ema": small().state_dict(), "more": HOSTILE[kind](marker)}
    )
    with pytest.raises(CheckpointError) as refusal:
        read(path)
    assert not marker.exists()
    assert "\n" not in str(refusal.value) and str(path) in str(refusal.value)


@pytest.mark.parametrize("kind", ["system", "eval", "exec", "open"])
def test_the_hostile_files_would_have_run(tmp_path, kind):
    marker = tmp_path / "marker"
    value = pickle.loads(pickle.dumps(HOSTILE[kind](marker)))
    if hasattr(value, "close"):
        value.close()
    assert marker.exists()


def test_a_refused_name_is_said(tmp_path):
    call = Calls(os.system, "true")
    for writer in ("pickle-4", "torch"):
        with pytest.raises(CheckpointError, match=r"names posix\.system, which data do not need"):
            read(WRITERS[writer](tmp_path / "a", {"a": call}))


def test_the_numbers_of_a_tensor_are_read_as_safely(tmp_path):
    marker, inner = tmp_path / "marker", io.BytesIO()
    torch.save(HOSTILE["system"](marker), inner, _use_new_zipfile_serialization=False)
    load = torch.storage._load_from_bytes
    for content in (inner.getvalue(), pickle.dumps(HOSTILE["system"](marker)), b"", b"PK\x03\x04"):
        with pytest.raises(CheckpointError, match="numbers of a tensor"):
            read(written(tmp_path / "a", pickle.dumps({"a": Calls(load, content)})))
    assert not marker.exists()


def test_a_module_that_contains_itself_ends(tmp_path):
    module = nn.Module()
    module._modules["self"] = module
    with pytest.raises(CheckpointError, match="without end"):
        read(written(tmp_path / "a", pickle.dumps({"ema": module})))
    doubled = nn.ModuleList()
    for _ in range(40):
        doubled = nn.ModuleList([doubled, doubled])
    with pytest.raises(CheckpointError, match="without end"):
        read(written(tmp_path / "a", pickle.dumps({"ema": doubled})))


@pytest.mark.parametrize(
    "instructions", [b"}%sK\x01s.", b"\x8f(%s\x90.", b"cbuiltins\nset\n](%se\x85R."]
)
def test_keys_nested_without_end_are_refused(tmp_path, instructions):
    """To hash them would overflow the interpreter's stack, and end it."""
    for depth, reason in (
        (1, "it has a key of type tuple"),
        (200_000, "it has values nested more than 200 deep"),
    ):
        content = b"\x80\x04" + instructions % (b")" + depth * b"\x85")
        with pytest.raises(CheckpointError, match=reason):
            read(written(tmp_path / "a", content))


@pytest.mark.parametrize("writer", ["pickle-4", "torch"])
def test_a_long_list_beside_the_weights_is_no_deep_one(tmp_path, writer):
    """It is pickled in pieces of a thousand values, each put into what is there."""
    losses = [0.5] * 202_000
    found = read(WRITERS[writer](tmp_path / "a", {"losses": losses, "a": torch.ones(2)}))
    assert found["losses"] == losses and torch.equal(found["a"], torch.ones(2))


@pytest.mark.parametrize("state", [b"}", b"N", b"(NK\x00NNt", b"N}U\x04dataNs\x86"])
@pytest.mark.parametrize("value", ["_rebuild_tensor_v2", "_load_from_bytes"])
def test_a_state_for_a_tensor_or_its_numbers_changes_nothing(tmp_path, value, state):
    """torch's classes have code for it, by which a tensor could get another shape."""
    content = pickle.dumps({"a": torch.ones(2)}, 2)
    # After the tensor's own call, and after that of its storage, which lies first in its arguments.
    calls = [at for at, code in enumerate(pickletools.genops(content)) if code[0].name == "REDUCE"]
    positions = [code[2] for code in pickletools.genops(content)]
    at = positions[calls[-1 if value == "_rebuild_tensor_v2" else 1]] + 1
    found = read(written(tmp_path / "a", content[:at] + state + b"b" + content[at:]))
    assert torch.equal(found["a"], torch.ones(2))


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("nest", [b"\x85", b"N\x86", b"q\x010h\x01\x85"])
def test_keys_nested_without_end_in_a_torch_file_are_refused(tmp_path, older, nest):
    """torch itself would overflow the stack over them; put into and fetched from the memo they are as deep."""
    content = b"\x80\x02}" + b")" + 100_000 * nest + b"K\x01s."
    whole = tmp_path / "whole"
    torch.save({"marked": 1}, whole, _use_new_zipfile_serialization=not older)
    forged = tmp_path / "forged.pt"
    if older:
        saved = whole.read_bytes()
        start = saved.index(b"\x80\x02}", saved.index(b"little_endian"))
        forged.write_bytes(saved[:start] + content + saved[saved.index(b".", start) + 1 :])
    else:
        with zipfile.ZipFile(whole) as given, zipfile.ZipFile(forged, "w") as made:
            for name in given.namelist():
                made.writestr(name, content if name.endswith("data.pkl") else given.read(name))
    with pytest.raises(CheckpointError, match="values nested more than 200 deep"):
        read(forged)


@pytest.mark.parametrize("part", ["_parameters", "_buffers", "_non_persistent_buffers_set"])
@pytest.mark.parametrize("value", [3, "text", [1], torch.ones(2)])
def test_a_module_whose_parts_are_something_else_is_without_them(tmp_path, part, value):
    module = nn.BatchNorm1d(2)
    module.__dict__[part] = value
    contents = read(written(tmp_path / "a", pickle.dumps({"ema": module})))
    assert len(contents["ema"]) == {"_parameters": 3, "_buffers": 2}.get(part, 5)


@pytest.mark.parametrize("size", [(2**40,), (4, 2**40), (-1,), (3.0,), "ab"])
def test_a_shape_beyond_the_numbers_is_refused(tmp_path, size):
    storage = torch.ones(4).untyped_storage()
    rebuild, typed = torch._utils._rebuild_tensor_v2, torch.storage.TypedStorage
    wrapped = typed(wrap_storage=storage, dtype=torch.float32, _internal=True)
    stride = (1,) * len(size)
    tensor = Calls(rebuild, wrapped, 0, size, stride, False, OrderedDict())
    with pytest.raises(CheckpointError):
        read(written(tmp_path / "a", pickle.dumps({"a": tensor})))


@pytest.mark.parametrize("writer", ["pickle-4", "torch", "older-torch"])
def test_a_tensor_larger_than_the_file_is_refused(tmp_path, writer):
    huge = torch.ones(1).expand(2**40)
    path = WRITERS[writer](tmp_path / "a", {"a": {"b": [huge]}})
    with pytest.raises(CheckpointError, match=r"shape \[1099511627776\], larger than the file"):
        read(path)


def test_an_archive_that_would_unpack_to_more_is_refused(tmp_path):
    saved(tmp_path / "a", {"a": torch.zeros(2**20)})
    packed = zipfile.ZipFile(tmp_path / "b", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "a") as plain, packed:
        for each in plain.namelist():
            packed.writestr(each, plain.read(each))
    with pytest.raises(CheckpointError, match="would unpack to"):
        read(tmp_path / "b")


def whole(tmp_path, edm, kind):
    """A whole file of each kind."""
    path = tmp_path / "whole"
    state = small().state_dict()
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "edm":
        path.write_bytes(edm(*small()))
    else:
        WRITERS[kind](path, {"model": state})
    return path.read_bytes()


KINDS = ["safetensors", "edm", "torch", "older-torch"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_file_is_refused_wherever_it_is_cut(tmp_path, edm, kind):
    content = whole(tmp_path, edm, kind)
    for part in range(40):
        path = written(tmp_path / "cut", content[: len(content) * part // 40])
        with pytest.raises(CheckpointError) as refusal:
            read(path)
        assert "\n" not in str(refusal.value)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_read_or_refused_and_nothing_else(tmp_path, edm, kind):
    content, chance = whole(tmp_path, edm, kind), random.Random(7)
    refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(3):
            damaged[chance.randrange(min(len(content), 4000))] = chance.randrange(256)
        try:
            read(written(tmp_path / "damaged", bytes(damaged)))
        except CheckpointError:
            refused += 1
    assert refused > 20


def test_what_is_no_checkpoint_is_said_in_one_line(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        read(tmp_path / "missing")
    with pytest.raises(CheckpointError, match="directory"):
        read(tmp_path)
    with pytest.raises(CheckpointError, match="empty"):
        read(written(tmp_path / "empty", b""))
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        read(written(tmp_path / "text", b"<html>404: Not Found</html>"))
    with pytest.raises(CheckpointError, match="holds a list"):
        read(written(tmp_path / "list", pickle.dumps([1])))
    with (tmp_path / "huge").open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(LARGEST + 1)
    with pytest.raises(CheckpointError, match="16 GiB is more than any checkpoint"):
        read(tmp_path / "huge")
