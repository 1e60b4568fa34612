"""The JSON schema of benchmark files: it takes every file of the repository, and no misspelt key."""

import json

import fast_yaml
import jsonschema
import pytest
from commands import REPOSITORY, TINY, run, said

from diffbench.plan.schema import documented
from diffbench.specs.data import FolderSpec

#: Files of config/ that are no benchmarks.
OTHERS = {
    f"{name}.yaml"
    for name in ("tables", "claims", "methods", "settings", "coverage", "papers", "checkpoints")
}
BENCHMARKS = [
    TINY,
    *(path for path in sorted((REPOSITORY / "config").glob("*.yaml")) if path.name not in OTHERS),
]
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.yaml"))
SCHEMA = REPOSITORY / "config" / "schema.json"
CHECK = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_bytes()))


def mistakes(value):
    return [list(each.absolute_path) for each in CHECK.iter_errors(value)]


def read(path):
    return fast_yaml.load(path.read_text())


def test_it_is_a_schema_and_the_repository_has_it():
    """Made by a process of its own: other tests define specs, which would be in it."""
    CHECK.check_schema(CHECK.schema)
    done = run("schema", cwd=REPOSITORY)
    assert done.stdout == SCHEMA.read_text(), "diffbench schema --write config/schema.json"


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_the_benchmarks_of_the_repository_fit(path):
    assert not mistakes(read(path))


@pytest.mark.parametrize("path", [*BENCHMARKS, *EXAMPLES], ids=lambda path: path.stem)
def test_every_file_names_it_in_its_first_line(path):
    name = "schema.json" if path.parent.name == "config" else "../config/schema.json"
    assert path.read_text().startswith(f"# yaml-language-server: $schema={name}\n")
    assert (path.parent / name).is_file()


def test_all_methods_fit():
    methods = read(REPOSITORY / "config" / "methods.yaml")
    assert not mistakes({"methods": methods})
    # A key that is misspelt in any of them is found.
    for name, method in methods.items():
        for key in method:
            changed = {name: {f"{each}x" if each == key else each: v for each, v in method.items()}}
            assert mistakes({"methods": changed}), (name, key)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sede": 1},
        {"training": {"stepz": 5}},
        {"training": {"precision": "fp8"}},
        {"training": {"steps": "many"}},
        {"network": {"name": "unet", "chanels": 16}},
        {"network": "unett"},
        {"solvers": {"a": {"name": "heun", "stpes": 5}}},
        {"solvers": {"a": {"name": "huen"}}},
        {"overrides": {"vp": {"solvers": {"heun-18": {"corrector": {"srn": 1}}}}}},
        {"overrides": {"vp": {"process": {"beta_mx": 1}}}},
        {"restorations": {"tasks": {"a": {"operator": {"name": "mri", "accelerate": 2}}}}},
        {"classifier": {"training": {"stepz": 5}}},
        {"data": {"name": "folder", "pth": "x"}},
    ],
)
def test_a_misspelt_key_or_name_is_found(wrong):
    assert mistakes(wrong)


@pytest.mark.parametrize(
    "right",
    [
        {"seeds": 3, "samples": "1e3", "training": {"lr": "1e-4", "clip": "none"}},
        {"overrides": {"vp": {"solvers": {"em-100": "none", "heun-18": {"steps": 9}}}}},
        {"base": "digits.yaml", "variants": "ddpm-*"},
        {"methods": {"a-{p}": {"sweep": {"p": [1, 2]}, "objective": {"label_dropout": "{p}"}}}},
    ],
)
def test_parts_and_short_forms_fit(right):
    assert not mistakes(right)


def test_keys_have_the_words_of_the_docstring():
    words = documented(FolderSpec)
    assert words["classes"].startswith(
        "the number of classes, for plans made before the data are there"
    )
    assert words.keys() <= FolderSpec.model_fields.keys()
    found = CHECK.schema["properties"]
    assert found["shards"]["description"].startswith("how many jobs share the chunks")
    assert "name" in found and found["base"]["type"] == "string"


def test_a_file_may_bring_names_of_its_own(tmp_path):
    """Of an example: its solver is no name for the repository's schema, and one for its own."""
    example = REPOSITORY / "examples" / "new_method.yaml"
    assert mistakes(read(example))
    target = tmp_path / "schema.json"
    done = run("schema", "--config", example, "--write", target, cwd=REPOSITORY)
    assert (done.returncode, done.stdout) == (0, ""), said(done)
    own = jsonschema.Draft202012Validator(json.loads(target.read_text()))
    assert not list(own.iter_errors(read(example)))
