"""The papers' numbers: the package's copy of them, what differs from it, and where their sources are."""

import csv

import pytest
from commands import REPOSITORY

from diffbench.reporting import layout, published
from diffbench.reporting.published import KEY, PublishedValues, address, differences, packaged


def test_the_packages_copy_is_the_repositorys_file():
    file = REPOSITORY / layout.PUBLISHED
    copy = REPOSITORY / "diffbench" / "reporting" / "published.csv"
    assert copy.read_bytes() == file.read_bytes(), f"cp {file} {copy}"
    values = PublishedValues(file)
    assert values.rows == packaged()
    assert differences(values.rows, packaged()) == []


def test_each_packaged_value_has_a_key_of_its_own():
    keys = [tuple(row[name] for name in KEY) for row in packaged()]
    assert len(keys) == len(set(keys))


def rows(*values):
    key = dict.fromkeys(KEY, "") | {"paper": "p", "table": "Table 1", "metric": "FID"}
    return [key | {"method": method, "value": value} for method, value in values]


KNOWN = rows(("a", "1.0"), ("b", "2.0"))


@pytest.mark.parametrize(
    ("mine", "wanted"),
    [
        (rows(("b", "2.0"), ("a", "1.0")), []),
        (rows(("a", "1.5"), ("b", "2.0")), [("changed", "a", "value is '1.5', packaged '1.0'")]),
        (rows(("a", "1.0")), [("missing", "b", "the packaged value is 2.0")]),
        ([*KNOWN, *rows(("c", "3.0"))], [("added", "c", "not one of the packaged values")]),
        # A second row for a number: a table would refuse to choose, and it is not what the paper says.
        ([*KNOWN, *rows(("a", "9.0"))], [("changed", "a", "value is '9.0', packaged '1.0'")]),
        ([{**KNOWN[0], "remark": "a column more"}, KNOWN[1]], []),
        (
            [],
            [("missing", m, f"the packaged value is {v}") for m, v in (("a", "1.0"), ("b", "2.0"))],
        ),
    ],
)
def test_what_differs_is_named_with_both_values(mine, wanted):
    found = [(each["what"], each["row"], each["said"]) for each in differences(mine, KNOWN)]
    assert found == [(what, f"p, Table 1, {method}, FID", said) for what, method, said in wanted]


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("arXiv:2006.11239", "https://arxiv.org/abs/2006.11239"),
        ("score_sde_pytorch README and arXiv:2011.13456", "https://arxiv.org/abs/2011.13456"),
        ("github issue ermongroup/ddim#3 (author)", "https://github.com/ermongroup/ddim/issues/3"),
        ("NVlabs/edm README", "https://github.com/NVlabs/edm"),
        ("javascript:alert(1)//arXiv README", None),
        ("tutorial on diffusion models", None),
    ],
)
def test_a_source_is_found_on_the_web(source, wanted):
    assert address(source).get("address") == wanted


def test_a_chosen_value_has_its_whole_row(tmp_path):
    path = tmp_path / "published.csv"
    row = rows(("a", "1.0"))[0] | {"source": "arXiv:2006.11239", "certainty": "paper"}
    row |= dict.fromkeys(("version", "trained_in", "sampled_in"), "")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    found = published.PublishedValues(path).choose({"method": "a"}).row
    assert found == {
        **{name: text for name, text in row.items() if text},
        "address": "https://arxiv.org/abs/2006.11239",
    }
