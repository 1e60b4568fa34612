"""Pickles read as data: what plain ones hold, and that nothing in a hostile one runs."""

import collections
import pickle

import numpy as np
import pytest
from archives import Runs, python2, random_images

from diffbench.data.unpickling import read_dictionary


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
    made = pickle.dumps({"x": np.zeros(200, np.uint8)}, 4)
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
        with pytest.raises(ValueError, match="no whole pickle of a dictionary"):
            read_dictionary(pickle.dumps(value), "it")
