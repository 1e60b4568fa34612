"""Extension files: what is said of one that fails, and how it is known again."""

import sys

import pytest

import diffbench
from diffbench.cli.command import reason
from diffbench.specs.errors import PlanError, UserError
from diffbench.specs.registry import content_hash, load_extension, load_used, named_once
from diffbench.store import files


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write an extension file; what it left in ``sys.modules`` is forgotten."""
    monkeypatch.chdir(tmp_path)

    def write(text, name="failing.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    yield write
    for name in [name for name in sys.modules if name.startswith("diffbench_extension_failing")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\ny = x.nothing\n", r"failing\.py:2 cannot be imported: AttributeError"),
        ("x = 1\n\ndef f(:\n", r"failing\.py:3 cannot be imported: SyntaxError"),
        ("import sys\nsys.exit(3)\n", r"failing\.py:2 cannot be imported: SystemExit: 3"),
        ("assert False\n", r"failing\.py:1 cannot be imported: AssertionError"),
    ],
)
def test_an_extension_that_cannot_be_imported_is_named_with_its_line(written, text, said):
    with pytest.raises(PlanError, match=said):
        load_extension(written(text))


def test_an_error_inside_an_extension_is_told_with_file_and_line(written):
    module = load_extension(written("def f(x):\n    return x.nothing\n"))
    try:
        module.f(1)
    except AttributeError as error:
        assert reason(error).startswith("failing.py:2: 'int' object has no attribute")
    try:
        int("a")
    except ValueError as error:
        assert reason(error).startswith("invalid literal")


def test_two_extensions_of_one_name_are_refused(written):
    first, second = written("", "a/failing.py"), written("", "b/failing.py")
    assert named_once([first, first]) == {"failing.py": first}
    with pytest.raises(PlanError, match=r"a/failing\.py and b/failing\.py have one name"):
        named_once([first, second])


def test_an_extension_is_compared_with_what_made_the_results(written):
    path = written("VALUE = 1\n")
    used = {path.name: content_hash(path)}
    load_used(used, [path], "--extension")
    assert sys.modules["diffbench_extension_failing"].VALUE == 1
    with pytest.raises(PlanError, match=r"uses failing\.py: give its path with --extension"):
        load_used(used, [], "--extension")
    written("VALUE = 2\n")
    with pytest.raises(PlanError, match="has changed since the plan was made"):
        load_used(used, [path], "--extension")


def sidecar(folder, spec):
    """Write a model's sidecar."""
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / "spec.json", {"spec": spec, "sha256": {"model.safetensors": "0"}})


def test_a_notebook_is_refused_as_the_command_line_is(written, tmp_path):
    """A folder that is none, a spec that is none, and an extension that is missing, changed or not given."""
    folder = tmp_path / "results" / "x" / "runs" / "vp" / "seed0"
    with pytest.raises(PlanError, match="there is no such folder of a run"):
        diffbench.load(folder)
    for spec in ([], 3, {"process": 3}):
        sidecar(folder, spec)
        with pytest.raises(UserError, match=r"seed0/spec\.json"):
            diffbench.load(folder)
    path = written("")
    sidecar(folder, {"extensions": {path.name: content_hash(path)}, "process": {"name": "mine"}})
    with pytest.raises(PlanError, match=r"uses failing\.py: give its path with diffbench\.load"):
        diffbench.load(folder)
    written("x = 1\n")
    with pytest.raises(PlanError, match="has changed since"):
        diffbench.load(folder, extensions=[path])
