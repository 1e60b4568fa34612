"""Extension sources: what is said of one that fails, how it is known again, and the three kinds of them."""

import hashlib
import importlib
import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from commands import REPOSITORY

import diffbench
from diffbench import cli
from diffbench.cli.command import reason
from diffbench.cli.jobs import read_spec
from diffbench.plan.loading import load_plan
from diffbench.specs.errors import PlanError, UserError
from diffbench.specs.extensions import PREFIX, load_used, named_once, source
from diffbench.specs.processes import ProcessSpec
from diffbench.store import files


@pytest.fixture(autouse=True)
def forgotten():
    """What extensions left in ``sys.modules`` and among the processes is forgotten."""
    modules, known = set(sys.modules), dict(ProcessSpec.known)
    yield
    for name in set(sys.modules) - modules:
        if name.startswith((PREFIX, "gently")):
            del sys.modules[name]
    ProcessSpec.known.clear()
    ProcessSpec.known.update(known)


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write a file of an extension."""
    monkeypatch.chdir(tmp_path)

    def write(text, name="failing.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
        return path

    return write


def refused(named, folder=Path()):
    """The one line that a source is refused with."""
    with pytest.raises(PlanError) as error:
        source(named, folder).load()
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix("extensions: ")


# One file.


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
        source(written(text)).load()


def test_an_error_inside_an_extension_is_told_with_file_and_line(written):
    source(written("def f(x):\n    return x.nothing\n")).load()
    try:
        sys.modules["diffbench_extension_failing"].f(1)
    except AttributeError as error:
        assert reason(error).startswith("failing.py:2: 'int' object has no attribute")
    try:
        int("a")
    except ValueError as error:
        assert reason(error).startswith("invalid literal")


def test_two_extensions_of_one_name_are_refused(written):
    first, second = (source(written("", f"{each}/failing.py")) for each in "ab")
    assert named_once([first, first]) == {"failing.py": first}
    with pytest.raises(PlanError, match=r"a/failing\.py and b/failing\.py have one name"):
        named_once([first, second])
    # A file and a folder that would be imported by one name.
    third = source(written("", "failing/__init__.py").parent)
    with pytest.raises(PlanError, match=r"a/failing\.py and failing have one name"):
        named_once([first, third])


def test_an_extension_is_compared_with_what_made_the_results(written):
    path = written("VALUE = 1\n")
    used = {path.name: hashlib.sha256(b"VALUE = 1\n").hexdigest()}
    load_used(used, [path], "--extension")
    assert sys.modules["diffbench_extension_failing"].VALUE == 1
    with pytest.raises(PlanError, match=r"uses failing\.py: give its path with --extension"):
        load_used(used, [], "--extension")
    written("VALUE = 2\n")
    with pytest.raises(PlanError, match="has changed since the plan was made"):
        load_used(used, [path], "--extension")


def test_a_link_to_a_file_is_known_by_its_own_name(written):
    path = written("VALUE = 1\n", "kept/blob")
    Path("failing.py").symlink_to(path)
    link = source("failing.py")
    assert (link.name, Path(link.words).name) == ("failing.py", "failing.py")
    link.load()


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
    sidecar(folder, {"extensions": {path.name: source(path).digest}, "process": {"name": "mine"}})
    with pytest.raises(PlanError, match=r"uses failing\.py: give its path with diffbench\.load"):
        diffbench.load(folder)
    written("x = 1\n")
    with pytest.raises(PlanError, match="has changed since"):
        diffbench.load(folder, extensions=[path])


# What the three kinds have in common: a package of three modules with a process, and a file of numbers.

SPECS = """\
from typing import ClassVar, Literal
from diffbench.specs.processes import VPSpec
from .classes import Gentle

class GentleSpec(VPSpec):
    name: Literal["gentle"] = "gentle"
    implementation: ClassVar[str | type] = Gentle
"""
CLASSES = """\
from pathlib import Path
from diffbench.diffusion.processes.continuous import VP

SHARE = float(Path(__file__).with_name("share.txt").read_text())

class Gentle(VP):
    def failing(self):
        return self.nothing
"""
PACKAGE = {
    "__init__.py": "from . import specs\n",
    "specs.py": SPECS,
    "classes.py": CLASSES,
    "share.txt": "0.5\n",
}
POINTS = "[diffbench.extensions]\ngentle = gently\n"
PROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "gently-noised"
version = "1.2.0"
[project.entry-points."diffbench.extensions"]
gentle = "gently"
[tool.setuptools.packages.find]
include = ["gently"]
[tool.setuptools.package-data]
gently = ["share.txt"]
"""
BENCHMARK = """\
name: three-kinds
data: {{name: digits}}
extensions: [{named}]
extractor: {{epochs: 12}}
network: {{name: unet, channels: 8, inner_channels: 8, heads: 2, embedding: 16}}
training: {{steps: 20, batch: 32, lr: 1e-3}}
device: cpu
samples: 64
chunk: 64
variants: [vp, gently]
methods:
  gently:
    process: {{name: gentle}}
    denoiser: {{predict: eps}}
    objective: {{name: simple}}
    solvers: {{heun-3: {{name: heun, steps: 3}}}}
"""


def package(folder):
    """Write the package into a folder, and return the folder."""
    folder.mkdir(parents=True)
    for name, text in PACKAGE.items():
        (folder / name).write_text(text)
    return folder


def distribution(site, name="gently-noised", version="1.2.0", points=POINTS, packages=("gently",)):
    """Write a distribution as an installer does: its packages, and its metadata with a list of the files."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(points)
    for each in packages:
        package(site / each)
    listed = sorted(each.relative_to(site).as_posix() for each in site.rglob("*") if each.is_file())
    (info / "RECORD").write_text("".join(f"{each},,\n" for each in [*listed, "../../bin/gently"]))
    return info


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed distributions."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture(params=["folder", "installed", "linked"])
def named(request, site, tmp_path):
    """One extension as a folder, as an installed distribution, and as one that is installed by a link."""
    if request.param == "folder":
        package(tmp_path / "gentle")
        return "./gentle"
    distribution(site, packages=("gently",) if request.param == "installed" else ())
    if request.param == "linked":
        package(tmp_path / "src" / "gently")
        sys.path.insert(
            1, str(tmp_path / "src")
        )  # as a .pth file does; undone by the fixture's monkeypatch
    return "gentle"


def planned(named):
    Path("bench.yaml").write_text(BENCHMARK.format(named=named))
    return load_plan(["bench.yaml"], {}, REPOSITORY)


def where(named):
    """The folder of the package."""
    return source(named).folder


def test_it_is_in_the_specs_that_use_it_alone(named):
    plan = planned(named)
    (found,) = plan.extensions
    for job in plan.jobs:
        used = {"gentle": found.digest} if job.variant == "gently" else {}
        assert job.spec.extensions == used, job
    assert found.digest.startswith("gently-noised==1.2.0 ") != (named == "./gentle")
    assert len(found.digest.rpartition(" ")[2]) == 64


def test_a_job_takes_it_by_the_words_of_the_plan_in_any_folder(named, tmp_path, monkeypatch):
    plan = planned(named)
    spec = plan.job("train", "gently").spec
    del ProcessSpec.known["gentle"]
    sys.modules.pop("gently", None), sys.modules.pop("gently.specs", None)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "gentle").mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    words = [each.words for each in plan.extensions]
    found = read_spec("train", spec.canonical(), words)
    assert found.canonical() == spec.canonical()
    assert type(found.process).__name__ == "GentleSpec"


def test_the_laws_are_asked_of_it(named, capsys):
    assert cli.main(["conform", named]) == 0
    said = capsys.readouterr().out
    assert "process gentle\n" in said and ", 0 failed, " in said
    (source(named).folder / "classes.py").write_text(
        CLASSES + "    def alpha(self, t):\n        return self.nothing\n"
    )
    for each in [each for each in sys.modules if each.startswith("gently")]:
        del sys.modules[each]
    assert cli.main(["conform", named]) == 1
    assert "classes.py:10: AttributeError: 'Gentle' object has no" in capsys.readouterr().out


def test_its_errors_name_file_and_line(named):
    source(named).load()
    process = ProcessSpec.choose("gentle")
    with pytest.raises(AttributeError) as error:
        process.implementation(process).failing()
    assert reason(error.value).partition(": ")[0].endswith("classes.py:8")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\ny = x.nothing\n", "classes.py:2 cannot be imported: AttributeError"),
        ("x = 1\n\ndef f(:\n", "classes.py:3 cannot be imported: SyntaxError"),
        ("from diffbench.stages import sample\n", "diffbench.stages.sample is now diffbench.jobs."),
    ],
)
def test_a_module_that_cannot_be_imported_is_named(named, text, said):
    (where(named) / "classes.py").write_text(text)
    assert said in refused(named)
    # What is mended is imported.
    (where(named) / "classes.py").write_text(CLASSES)
    source(named).load()


@pytest.mark.parametrize(
    ("name", "text", "counts"),
    [
        ("classes.py", CLASSES + "# A remark.\n", True),
        ("share.txt", "0.25\n", True),
        ("inner/more.py", "", True),
        ("__pycache__/classes.cpython-311.pyc", "", False),
        (".hidden/notes.txt", "", False),
        ("classes.py~", "", False),
    ],
)
def test_each_file_that_counts_changes_the_digest(named, name, text, counts):
    """Of an installed distribution only the files that its installer listed are its own."""
    before = source(named).digest
    path = where(named) / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    listed = named == "./gentle" or name in PACKAGE or "src" in path.parts
    assert (source(named).digest != before) == (counts and listed)


def test_it_is_compared_with_what_made_the_results(named):
    used = {"gentle": source(named).digest}
    load_used(used, [named], "--extension")
    with pytest.raises(PlanError) as error:
        load_used(used, [], "--extension")
    which = (
        "gentle: give its path" if named == "./gentle" else "gently-noised==1.2.0: give its name"
    )
    assert which in str(error.value)
    (where(named) / "share.txt").write_text("0.125\n")
    with pytest.raises(PlanError, match=r"has (changed since|other files than when) the plan was"):
        load_used(used, [named], "--extension")


# A folder.


def test_a_folder_is_imported_anew_with_all_its_modules(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = package(tmp_path / "gentle")
    source("./gentle").load()
    (folder / "share.txt").write_text("0.25\n")
    source("gentle").load()
    assert sys.modules["diffbench_extension_gentle.classes"].SHARE == 0.25


def test_a_folder_that_is_no_package_is_refused(tmp_path):
    (tmp_path / "gentle").mkdir()
    assert refused("gentle", tmp_path).endswith(
        "gentle is a folder without __init__.py, which makes it a package; it may be empty"
    )
    assert refused("nothing/", tmp_path).startswith("there is no file ")
    (tmp_path / "notes.txt").write_text("")
    assert refused("./notes.txt", tmp_path).endswith("notes.txt is not a Python file")


def test_a_module_that_looks_for_its_sibling_outside_is_told_how(tmp_path):
    (package(tmp_path / "gentle") / "specs.py").write_text("\nimport gentle.classes\n")
    assert refused("gentle", tmp_path).endswith(
        "gentle/specs.py:2 cannot be imported: ModuleNotFoundError: No module named 'gentle'; modules of the folder "
        "import each other by `from .other import ..`"
    )


def test_a_link_to_a_folder_is_refused(tmp_path):
    (package(tmp_path / "gentle") / "more").symlink_to(package(tmp_path / "other"))
    assert "gentle/more is a link to a folder" in refused("gentle", tmp_path)


def test_a_benchmark_and_its_results_lie_outside_the_package(tmp_path, monkeypatch):
    """Their every change would be one of the package."""
    monkeypatch.chdir(package(tmp_path / "gentle"))
    with pytest.raises(PlanError, match=r"bench\.yaml:3: .*this benchmark file would lie in the"):
        planned(".")
    Path("bench.yaml").rename("../bench.yaml")
    with pytest.raises(PlanError, match=r"--config: .*the results would lie in the package"):
        load_plan(["../bench.yaml"], {"extensions": ["gentle"]}, REPOSITORY)


# An installed distribution.


def test_nothing_is_imported_or_looked_up_unless_the_file_names_it(site, monkeypatch):
    distribution(site)
    with monkeypatch.context() as patch:
        patch.setattr(metadata, "entry_points", None)
        without = load_plan([REPOSITORY / "examples" / "tiny.yaml"], {}, REPOSITORY)
    assert without.extensions == () and "gently" not in sys.modules
    plan = planned("gentle")
    assert [each.words for each in plan.extensions] == ["installed:gentle"]
    assert "gently" in sys.modules
    # A job that does not use it does not import it, though it is told of it.
    for name in [each for each in sys.modules if each.startswith("gently")]:
        del sys.modules[name]
    spec = plan.job("train", "vp").spec.canonical()
    assert read_spec("train", spec, ["installed:gentle", "installed:nothing"]).extensions == {}
    assert "gently" not in sys.modules


def test_pips_installation_is_known_by_its_files(tmp_path, site):
    """pip's list has its own notes and compiled files too; the same files give the same digest wherever they lie."""
    project = tmp_path / "project"
    package(project / "gently")
    (project / "pyproject.toml").write_text(PROJECT)
    options = [
        "--no-index",
        "--no-build-isolation",
        "--no-deps",
        "--quiet",
        "--disable-pip-version-check",
    ]
    found = []
    for place in (site, tmp_path / "again"):
        target = ["--target", str(place), str(project)]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *target], check=True)
    for place in (site, tmp_path / "again"):
        sys.path[sys.path.index(str(site))] = str(place)
        importlib.invalidate_caches()
        one = source("gentle")
        assert sorted(one.files) == sorted(f"gently/{name}" for name in PACKAGE)
        found.append(one.digest)
        sys.path[sys.path.index(str(place))] = str(site)
    listed = {
        f"gently/{name}": hashlib.sha256(text.encode()).hexdigest()
        for name, text in PACKAGE.items()
    }
    contents = hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()
    assert found == [f"gently-noised==1.2.0 {contents}"] * 2
    source("gentle").load()
    assert "gentle" in ProcessSpec.known


def test_a_link_to_its_folder_is_known_as_its_copy_is(site, tmp_path, monkeypatch):
    """So results of a package under development stay those of its release."""
    linked = distribution(site, packages=())
    package(tmp_path / "src" / "gently")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(tmp_path / "src"))
        digest = source("gentle").digest
    shutil.rmtree(linked)
    distribution(site)
    assert source("gentle").digest == digest


def test_a_module_that_is_a_file_is_known_by_it(site):
    distribution(site, packages=())
    (site / "gently.py").write_text("VALUE = 1\n")
    assert (list(source("gentle").files), where("gentle")) == (["gently.py"], None)
    source("gentle").load()
    assert sys.modules["gently"].VALUE == 1


def test_another_version_is_named(site):
    info = distribution(site)
    used = {"gentle": source("gentle").digest}
    info.rename(info.with_name("gently_noised-1.3.0.dist-info"))
    written = site / "gently_noised-1.3.0.dist-info" / "METADATA"
    written.write_text(written.read_text().replace("1.2.0", "1.3.0"))
    with pytest.raises(
        PlanError, match=r"gentle of gently-noised==1\.3\.0 is not .*==1\.2\.0, with"
    ):
        load_used(used, ["gentle"], "--extension")


def test_what_changes_after_its_import_needs_a_new_process(site):
    distribution(site)
    source("gentle").load()
    (site / "gently" / "share.txt").write_text("0.25\n")
    assert "has changed since this process imported it: start Python again" in refused("gentle")


def test_all_packages_of_a_distribution_are_its_own(site):
    """The entry point is in one of them, and the spec's class in another."""
    distribution(site, packages=("gently", "gently_more"))
    (site / "gently" / "__init__.py").write_text("import gently_more\n")
    plan = planned("gentle")
    assert {job.variant for job in plan.jobs if job.spec.extensions} == {"gently"}


def test_a_module_in_a_folder_that_distributions_share(site):
    """Its package is the outermost that has files of its own; a link is not followed to find it."""
    distribution(site, points="[diffbench.extensions]\ngentle = gently.by_us.specs\n", packages=())
    package(site / "gently" / "by_us")
    assert where("gentle") == site / "gently" / "by_us"
    assert sorted(source("gentle").files) == sorted(f"gently/by_us/{name}" for name in PACKAGE)
    source("gentle").load()


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ("gentle = gently:process", "is 'gently:process', and must be a module, such as gently"),
        ("gentle = not there", "is 'not there', and must be a module"),
        ("gentle = gently_not", "names the module gently_not, which is not installed"),
        ("gentle = gently.not_there", "cannot be imported: ModuleNotFoundError: No module named"),
        ("other = gently", "no installed package has an entry point 'gentle' of the group diffbench.extensions; "
         "installed: other"),
    ],
)  # fmt: skip
def test_an_entry_point_that_is_no_extension_is_one_line(site, points, said):
    distribution(site, points=f"[diffbench.extensions]\n{points}\n")
    assert said in refused("gentle")
    assert said in refused("installed:gentle")


def test_one_name_in_two_distributions_is_refused(site):
    distribution(site)
    distribution(site, "more-gently", packages=())
    said = refused("gentle")
    assert "gentle is an entry point of " in said and ": uninstall all but one of them" in said
    assert "gently-noised" in said and "more-gently" in said


def test_a_name_of_both_a_folder_and_an_entry_point_is_refused(site, tmp_path):
    distribution(site)
    folder = package(tmp_path / "gentle")
    assert refused("gentle") == (
        "'gentle' is gentle and an entry point of gently-noised: write './gentle' for the path, 'installed:gentle' "
        "for the other"
    )
    assert (
        source("./gentle").folder.resolve() == folder.resolve() == source(folder).folder.resolve()
    )
    assert source("installed:gentle").folder == site / "gently"
    with pytest.raises(PlanError, match="gentle and gentle of gently-noised==1.2.0 have one name"):
        planned("./gentle, 'installed:gentle'")
