import math

import pytest
import yaml
from commands import REPOSITORY

from diffbench.plan.document import composed, scalar
from diffbench.plan.reading import Tree, nearest, overriding, read
from diffbench.specs.errors import PlanError


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Tree:
        path = tmp_path / "bench.yaml"
        path.write_text(text)
        return read(path)

    return write


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1e2", 100.0),
        (".5", 0.5),
        ("-3", -3),
        ("010", 10),
        ("0x10", 16),
        ("0o10", 8),
        ("true", True),
        ("no", "no"),
        ("on", "on"),
        ("none", "none"),
        ("~", None),
        ("", None),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2011-11-28", "2011-11-28"),
        ("-.inf", -math.inf),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


def test_nan_is_read_as_a_number():
    assert math.isnan(scalar(".nan"))


def test_what_both_yaml_versions_agree_on_is_read_as_pyyaml_does(file):
    text = "a: {b: [1, 2.5, 'x', \"1\"], c: true}\nd:\n- e: null\n- &anchor {f: g}\n- *anchor\n"
    assert file(text).value == yaml.safe_load(text)


def test_origins_are_lines(file):
    tree = file("name: x\ntraining:\n  steps: 1\n  lr:\n    2\n")
    assert tree.where(("training", "lr")) == "bench.yaml:4"
    assert tree.where(("training", "steps")) == "bench.yaml:3"
    assert tree.where(("training", "absent")) == "bench.yaml:2"
    assert tree.part("training").where(("steps",)) == "bench.yaml:3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"bench\.yaml:3: a: the key 'a' appears twice"),
        ("a:\n  b: 1\n  b: 2\n", r"bench\.yaml:3: a\.b: the key 'b' appears twice"),
        ("a: [1, 2\n", r"bench\.yaml:\d: not YAML"),
        ("- 1\n", r"bench\.yaml: must be a mapping"),
        ("", r"bench\.yaml: must be a mapping"),
        ("a: !!python/name:os.system ''\n", r"bench\.yaml:1: a: the tag .*python.* is not known"),
        ("a: !thing 1\n", r"the tag !thing is not known"),
        ("? [1, 2]\n: 3\n", r"bench\.yaml:1: .*a key must be a word"),
        ("a: &a\n  b: *a\n", r"an alias contains itself"),
        pytest.param("a: " + 9_000 * "[" + 9_000 * "]", r"nest too deep", id="deep"),
        pytest.param("a: " + 300_000 * "[" + 300_000 * "]", r"nest too deep", id="deepest"),
        pytest.param("a: " + 300_000 * "- " + "b", r"nest too deep|not YAML", id="deep in a line"),
    ],
)
def test_what_is_no_configuration_is_refused_in_one_line(file, text, message):
    with pytest.raises(PlanError, match=message) as error:
        file(text)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PlanError, match=r"^nowhere\.yaml: no such file"):
        read(tmp_path / "nowhere.yaml")


def test_merging_keeps_what_is_not_overridden_and_its_origin(file):
    tree = file("training: {lr: 1, steps: 2}\n").under(overriding({"training": {"lr": 3}}))
    assert tree.value == {"training": {"lr": 3, "steps": 2}}
    assert tree.where(("training", "lr")) == "--config"
    assert tree.where(("training", "steps")) == "bench.yaml:1"


def test_dotted_overrides_are_nested_ones():
    dotted = overriding({"training.lr": 3, "training.steps": 4, "only": ["vp"]})
    assert dotted.value == overriding({"training": {"lr": 3, "steps": 4}, "only": ["vp"]}).value
    assert dotted.where(("training", "lr")) == "--config"


def test_another_name_replaces_the_choice_and_its_parameters():
    below = overriding({"denoiser": {"name": "network", "predict": "eps"}})
    assert below.under(overriding({"denoiser": {"name": "empirical"}})).value == {
        "denoiser": {"name": "empirical"}
    }
    assert below.under(overriding({"denoiser": {"predict": "v"}})).value == {
        "denoiser": {"name": "network", "predict": "v"}
    }


def test_merging_changes_neither_tree():
    below, over = overriding({"a": {"b": 1}}), overriding({"a": {"c": 2}})
    below.under(over)
    assert (below.value, over.value) == ({"a": {"b": 1}}, {"a": {"c": 2}})


def test_nearest_suggests_or_lists():
    assert nearest("seads", ["seeds", "samples"]) == "; did you mean 'seeds'?"
    assert nearest("zzz", ["b", "a"]) == "; known: a, b"


def test_both_parsers_read_the_shipped_files_alike() -> None:
    files = sorted((REPOSITORY / "config").glob("*.yaml"))
    assert len(files) > 20
    for file in files:
        text = file.read_text()
        fast, slow = composed(text), yaml.compose(text, yaml.SafeLoader)
        # `serialize` writes tags and values; lines stand in messages.
        assert yaml.serialize(fast) == yaml.serialize(slow)
        assert seen_of(fast) == seen_of(slow)


def seen_of(node: yaml.Node) -> list[tuple[int, bool]]:
    """The line of a node and whether it is quoted, and those of all nodes in it."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    inner = [each for pair in pairs for each in pair]
    if isinstance(node, yaml.SequenceNode):
        inner = node.value
    quoted = isinstance(node, yaml.ScalarNode) and bool(node.style)
    return [(node.start_mark.line, quoted), *(seen for each in inner for seen in seen_of(each))]
