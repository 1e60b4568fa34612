"""Pickles read as data: what plain ones hold, and that nothing in a hostile one runs."""

import codecs
import collections
import copyreg
import os
import pickle

import numpy as np
import pytest
from archives import Runs, python2, random_images

from diffbench.data.pickled_arrays import read_dictionary


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_and_arrays_come_back(protocol):
    wanted = {
        "text": "grey \u2013 level",
        "bytes": b"\x00\xff",
        "numbers": [0, -1, 255, 70000, 2**40, 1.5, True, None],
        "nested": {"tuple": (1, (2, 3, 4, 5)), "empty": [(), {}, ""]},
        "u1": np.arange(12, dtype=np.uint8).reshape(3, 4),
        "i8": np.array([-(2**40), 7]),
        "big-endian": np.arange(3, dtype=">i4"),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    }
    found = read_dictionary(pickle.dumps(wanted, protocol), "it")
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert (
            np.array_equal(found[key], value)
            if isinstance(value, np.ndarray)
            else (found[key] == value)
        )


def test_shared_values_are_read_through_the_memo():
    label = "a long enough label"
    assert read_dictionary(pickle.dumps({"x": [label] * 3}), "it") == {"x": [label] * 3}


def test_a_batch_of_python_2_is_read_as_python_reads_it():
    rows = random_images(0, 2).reshape(2, -1)
    content = python2(rows, [3, 4])
    found = read_dictionary(content, "it")
    pickled = pickle.loads(content, encoding="bytes")
    assert np.array_equal(found["data"], rows) and np.array_equal(pickled[b"data"], rows)
    assert found["labels"] == pickled[b"labels"] == [3, 4]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("nested", [False, True])
def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path, protocol, nested):
    made = tmp_path / "made"
    bomb = {"data": [Runs(made)]} if nested else Runs(made)
    content = pickle.dumps(bomb, protocol)
    pickle.loads(content)
    assert made.is_dir(), "the pickle is hostile: Python runs it"
    made.rmdir()
    with pytest.raises(ValueError, match="it is refused") as error:
        read_dictionary(content, "it")
    assert not made.exists() and "\n" not in str(error.value)


def test_a_name_by_an_alias_is_refused():
    """numpy.core.multiarray is allowed, what else it can reach is not."""
    for name in ("os", "fromstring", "_reconstruct.__globals__"):
        content = b"\x80\x04cnumpy.core.multiarray\n" + name.encode() + b"\n."
        with pytest.raises(ValueError, match=f"names numpy.core.multiarray.{name}"):
            read_dictionary(content, "it")


@pytest.mark.parametrize("value", [collections.OrderedDict(a=1), {1, 2}, np.array([{}, None])])
def test_other_objects_are_refused_by_name(value):
    with pytest.raises(ValueError, match="it is refused: it (names|has)"):
        read_dictionary(pickle.dumps({"x": value}), "it")


def test_persistent_ids_and_extension_codes_are_refused():
    for content, code in ((b"\x80\x02}U\x01aQ.", "BINPERSID"), (b"\x80\x02\x82\x01.", "EXT1")):
        with pytest.raises(ValueError, match=f"instruction {code}"):
            read_dictionary(content, "it")


def test_an_extension_code_that_python_has_met_is_refused(monkeypatch):
    """Python's unpickler takes the object of a code that was met before from a cache, without asking for its name."""
    monkeypatch.setitem(copyreg._extension_cache, 77, os.mkdir)
    content = b"\x80\x02\x82M."
    assert pickle.loads(content) is os.mkdir
    with pytest.raises(ValueError, match="instruction EXT1"):
        read_dictionary(content, "it")


@pytest.mark.parametrize("name", [b"numpy\ndtype", b"_codecs\nencode"])
def test_what_stands_for_a_name_cannot_be_changed(name):
    """A state for a function would become its attributes: its defaults, for whoever calls it next."""
    for state in (b"}U\x0c__defaults__)s", b"N}U\x0c__defaults__)s\x86"):
        with pytest.raises(ValueError, match="it is refused"):
            read_dictionary(b"\x80\x02}U\x01xc" + name + b"\n" + state + b"bs.", "it")
    whole = {"x": np.arange(3, dtype=np.uint8), b"y": b"z"}
    assert read_dictionary(pickle.dumps(whole, 2), "it")["y"] == b"z"


@pytest.mark.parametrize(
    "state", [b"}", b"N", b"(K\x01K\x02K\x03K\x04K\x05t", b"}}\x86", b"N}U\x05shapeK\x01s\x86"]
)
@pytest.mark.parametrize(
    "value", [b"]", b"}", b"U\x01a", b")", b"K\x01", b"N", b"c_codecs\nencode\n"]
)
def test_a_state_for_a_plain_value_changes_nothing(value, state):
    content = b"\x80\x02}U\x01x" + value + state + b"bs."
    try:
        found = read_dictionary(content, "it")["x"]
    except ValueError as error:
        assert "it is refused" in str(error)
    else:
        assert state in (b"}", b"N", b"}}\x86") and found in ([], {}, "a", (), 1, None)


def test_code_by_which_a_codec_decodes_is_refused():
    for coding in ("unicode_escape", "rot13", "zlib", "idna"):
        with pytest.raises(ValueError, match="something else than latin-1"):
            read_dictionary(pickle.dumps({"x": Encodes("a", coding)}, 2), "it")


class Encodes:
    """Unpickled, it is some text, encoded."""

    def __init__(self, *args):
        self.args = args

    def __reduce__(self):
        return codecs.encode, self.args


def test_a_number_in_the_memo_beyond_what_is_there_is_refused():
    """The memo would grow to it: ten bytes would fill the memory."""
    for index in (3, 2**31 - 1):
        content = b"\x80\x02}r" + index.to_bytes(4, "little") + b"."
        with pytest.raises(ValueError, match=f"under the number {index}"):
            read_dictionary(content, "it")
    many = {"x": [f"{i} is long enough" for i in range(1000)]}
    assert read_dictionary(pickle.dumps(many, 2), "it") == many


@pytest.mark.parametrize("code", [b"\x8e", b"\x96", b"B", b"\x8d", b"X", b"T"])
def test_a_length_beyond_the_content_is_refused(code):
    """Python's unpickler would ask for that much memory before it reads."""
    for length in (100, 2**31 - 1) + (2**40, 2**63 - 1) * (code in b"\x8e\x96\x8d"):
        size = length.to_bytes(8 if code in b"\x8e\x96\x8d" else 4, "little")
        with pytest.raises(ValueError, match="it is refused: it is cut"):
            read_dictionary(b"\x80\x05}U\x01x" + code + size + b"abcs.", "it")


@pytest.mark.parametrize("fill", [b"%sK\x01s", b"(%sK\x01u", b"U\x01aK\x01s(%sK\x01u"])
@pytest.mark.parametrize("after", [b"", b"Nb", b"(e", b"(u"])
def test_no_tuple_is_a_key(fill, after):
    """To hash one whose values are shared, each twice in the next, takes time without end."""
    shared = b")q\x00" + b"".join(b"h%c\x86q%c" % (i, i + 1) for i in range(9))
    doubled = b")" + 100 * b"q\x000h\x00h\x00\x86"
    for key in (b")", b"K\x01\x85", doubled, shared):
        with pytest.raises(ValueError, match="it has a key of type tuple"):
            read_dictionary(b"\x80\x02}" + fill % (key + after) + b".", "it")


def test_values_that_are_shared_are_read_once():
    """Written out, this list has 2**150 numbers."""
    value = [1, 2]
    for _ in range(150):
        value = [value, value]
    found = read_dictionary(pickle.dumps({"x": value}, 4), "it")["x"]
    assert found[0] is found[1] and found[0][1][0] is found[1][0][1]


def test_long_lists_and_dictionaries_are_no_deep_ones():
    """They are pickled in pieces of a thousand values, each put into what is there."""
    long = {"list": list(range(202_000)), "names": {f"{i}": i for i in range(1000)}}
    long["names"]["itself"] = long["names"]
    found = read_dictionary(pickle.dumps(long, 4), "it")
    assert found["list"] == long["list"] and found["names"]["itself"] is found["names"]


def test_an_array_whose_bytes_do_not_fit_its_shape_is_refused():
    content = pickle.dumps({"x": np.zeros((3, 5), np.uint8)}, 4)
    assert content.count(b"K\x03K\x05") == 1
    forged = content.replace(b"K\x03K\x05", b"K\x09K\x05")
    with pytest.raises(ValueError, match="15 bytes for an array of shape"):
        read_dictionary(forged, "it")


def test_every_torn_pickle_is_one_line():
    content = pickle.dumps({"data": np.zeros((2, 3), np.uint8), "labels": [1, 2]}, 2)
    for length in range(len(content)):
        with pytest.raises(ValueError, match="it is refused: it is cut") as error:
            read_dictionary(content[:length], "it")
        assert "\n" not in str(error.value)


def test_nesting_without_end_is_refused():
    """To hash it, to print it or to compare it would overflow the interpreter's stack."""
    deep = b")" + 200_000 * b"\x85"
    for content in (
        b"}" + deep + b"K\x01s.",
        b"}" + deep + b")R.",
        b"}" + deep + b"}b.",
        b"cnumpy\ndtype\n" + deep + b"\x85R.",
        b"c_codecs\nencode\nU\x01a" + deep + b"\x86R.",
    ):
        with pytest.raises(ValueError, match="it is refused"):
            read_dictionary(b"\x80\x02" + content, "it")


def test_a_number_of_bytes_is_no_content_of_an_array():
    """`bytes(n)` makes n of them: a few instructions would fill the memory."""
    # Of protocol 3: later ones say how long the whole is.
    made = pickle.dumps({"x": np.zeros(200, np.uint8)}, 3)
    content = b"C\xc8" + bytes(200)
    assert made.count(content) == 1
    with pytest.raises(ValueError, match="it is refused: it has an array without content"):
        read_dictionary(made.replace(content, b"K\xc8"), "it")


def test_a_line_break_in_a_name_is_escaped():
    content = b"\x80\x04\x8c\x04o\ns\n\x8c\x05mkdir\x93."
    with pytest.raises(ValueError, match=r"names o\\ns\\n\.mkdir"):
        read_dictionary(content, "it")


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_no_flipped_byte_is_more_than_one_line():
    rng = np.random.RandomState(0)
    contents = [python2(random_images(0, 1).reshape(1, -1)[:, :40], [3])]
    contents += [pickle.dumps({"a": np.arange(5), "b": [1, "x", (2, None)]}, p) for p in (2, 4, 5)]
    for _ in range(4000):
        content = bytearray(contents[rng.randint(4)])
        for at in rng.randint(0, len(content), 1 + rng.randint(3)):
            content[at] = rng.randint(256)
        try:
            found = read_dictionary(bytes(content), "it")
        except ValueError as error:
            assert str(error).startswith("it is ") and len(str(error)) < 1000
        else:
            assert isinstance(found, dict)


def test_what_is_no_dictionary_of_names_is_refused():
    for value in ([1], 3, {4: 5}):
        with pytest.raises(ValueError, match="not a complete pickle of a dictionary"):
            read_dictionary(pickle.dumps(value), "it")
