import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import pytest
from commands import REPOSITORY, TINY

from diffbench import cli
from diffbench.cli.command import COMMANDS, GROUPS
from diffbench.cli.command import parser as command_parser
from diffbench.plan.loading import load_plan
from diffbench.plan.matrix import matrix
from diffbench.specs.errors import Stopped
from diffbench.specs.jobs import STAGES
from diffbench.specs.solvers import SolverSpec
from diffbench.store import paths, status
from diffbench.store.products import status_of, write_product

HEAVY = {"torch", "numpy", "pandas", "matplotlib", "sklearn", "torchvision", "torch_fidelity"}


def run(*arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-m", "diffbench", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
    )


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The tiny benchmark's plan, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return load_plan([TINY], {}, REPOSITORY)


def stage(job, *more):
    return [job.stage, "--root", str(job.root), "--spec", job.spec.canonical(), *more]


@pytest.mark.parametrize(
    "modules",
    [
        "diffbench",
        "diffbench.cli",
        "diffbench.cli.jobs",
        "diffbench.store.state, diffbench.store.run_record, diffbench.store.manifest",
        "diffbench.plan.loading, diffbench.plan.findings, diffbench.plan.matrix",
        "diffbench.specs.benchmark",
        "diffbench.reporting",
    ],
)
def test_the_light_layers_load_nothing_heavy(modules):
    code = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert not HEAVY & set(done.stdout.split())


def test_the_command_line_starts_at_once(tmp_path):
    def cpu_seconds():
        before = os.times()
        assert run("--help", cwd=tmp_path).returncode == 0
        after = os.times()
        return after.children_user + after.children_system - before[2] - before[3]

    assert min(cpu_seconds() for _ in range(3)) < 0.3


def test_the_help_has_every_command_with_an_example_what_users_call_first_at_the_top(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    printed = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"\n  {name} " in printed
        assert command.example.split()[0] == name
        assert f"diffbench {command.example}\n" in printed
        assert len(command.summary) < 100
    assert {each.group for each in COMMANDS.values()} | {"jobs"} == set(GROUPS)
    places = [printed.index(f"\n{title}\n") for title in GROUPS.values()]
    assert places == sorted(places)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=list(COMMANDS))
def test_the_arguments_of_an_example_are_right(command):
    options = command_parser(COMMANDS.values()).parse_args(command.example.split())
    assert options.call is command.call


def test_every_stage_has_a_command_and_a_line(capsys):
    for stage in STAGES:
        with pytest.raises(SystemExit, match="0"):
            cli.main([stage, "--help"])
        assert f"diffbench {stage} --root" in capsys.readouterr().out
    assert cli.main(["list", "stages", "--config", str(TINY)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(STAGES)
    assert all(len(line.split()) > 2 for line in lines)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train"], "diffbench train: --root and --spec are required"),
        (["train", "--root", "results/x", "--spec", "{"], "diffbench train: --spec is not JSON"),
        (
            ["train", "--root", "results/x", "--spec", '{"variant": 3}'],
            "diffbench train: --spec: variant: must be text, not 3",
        ),
        (
            ["sample", "--root", "results/x", "--spec", '{"extensions": {"mine.py": "0"}}'],
            "diffbench sample: the spec uses mine.py: give its path with --extension",
        ),
        (["check-config", "nowhere.yaml"], "diffbench check-config: nowhere.yaml: no such file"),
        (["show", "vq"], "diffbench show: no variant 'vq' in"),
        (["list", "--set", "sede=1"], "--set: sede: unknown key 'sede'"),
        (["manifest", "results/nowhere"], "results/nowhere: there is no such results folder"),
    ],
)
def test_a_mistake_is_one_line_and_status_1(tmp_path, monkeypatch, capsys, arguments, named):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 1
    printed = capsys.readouterr()
    assert named in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_a_mistake_in_a_file_leaves_the_process_with_status_1(tmp_path):
    (tmp_path / "bench.yaml").write_text(TINY.read_text() + "sede: 1\n")
    done = run("check-config", "bench.yaml", cwd=tmp_path)
    line = len(TINY.read_text().splitlines()) + 1
    assert done.returncode == 1
    assert done.stderr.startswith(f"diffbench check-config: bench.yaml:{line}: sede: unknown key")
    assert done.stderr.endswith("did you mean 'seeds'?\n")


def test_a_results_folder_that_cannot_be_written_is_refused_before_any_work(tiny, capsys):
    Path("results").write_text("a file")
    assert cli.main(stage(tiny.job("data"))) == 1
    assert "results cannot be written" in capsys.readouterr().err


def test_check_config_says_what_noise_levels_are_in_the_units_of_a_process(capsys):
    """Older files had them in these units."""
    config = REPOSITORY / "config" / "digits-sde.yaml"
    assert cli.main(["check-config", str(config)]) == 0
    assert "ve, churn-9: churn_min 0.05 is 0.025 for data in [0, 1]" in capsys.readouterr().out


def test_check_config_counts_jobs(tiny, capsys):
    assert cli.main(["check-config", str(TINY)]) == 0
    counts = ", ".join(f"{len(tiny.of(stage))} {stage}" for stage in STAGES)
    assert f"{len(tiny.variants)} variants on cpu; jobs: {counts}" in capsys.readouterr().out


def test_list_and_show_print_what_is_configured(tiny, capsys):
    import fast_yaml

    assert cli.main(["list", "processes"]) == 0
    assert "\nvp " in capsys.readouterr().out
    assert cli.main(["list", "--config", str(TINY)]) == 0
    assert capsys.readouterr().out.split()[0] == "ddpm-cosine"
    assert cli.main(["show", "edm", "--config", str(TINY), "--set", "training.lr=1e-2"]) == 0
    shown = fast_yaml.load(capsys.readouterr().out)["edm"]
    assert shown["training"]["lr"] == 0.01
    assert list(shown["solvers"]) == list(tiny.variants["edm"].solvers)


def test_what_runs_no_job_does_without_the_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    paths = ["--set", "data={name: parquet, path: gone}"]
    for command in (["show", "edm"], ["list"], ["doctor"], ["clean"], ["table"]):
        assert cli.main([*command, "--config", str(TINY), *paths]) == 0, command
    assert "gone" not in capsys.readouterr().err
    assert cli.main(["check-config", str(TINY), *paths]) == 1
    assert "data.path: there is no file or folder 'gone'" in capsys.readouterr().err


def test_solvers_are_listed_with_the_processes_they_serve(tiny, capsys):
    assert cli.main(["list", "solvers"]) == 0
    first, _, second = capsys.readouterr().out.partition("\n\nparameters\n")
    assert first == str(matrix())
    assert [line.split()[0] for line in second.splitlines()] == sorted(SolverSpec.known)
    assert "steps" in second


def test_a_solver_of_an_extension_is_listed_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("of_mine.py").write_text(
        "from typing import Literal\n"
        "from diffbench.specs.solvers import SolverSpec\n"
        "class OfMineSpec(SolverSpec):\n"
        "    name: Literal['of-mine'] = 'of-mine'\n"
    )
    Path("mine.yaml").write_text(TINY.read_text() + "extensions: [of_mine.py]\n")
    try:
        assert cli.main(["list", "solvers", "--config", "mine.yaml"]) == 0
    finally:
        SolverSpec.known.pop("of-mine", None)
        sys.modules.pop("diffbench_extension_of_mine", None)
    assert capsys.readouterr().out.count("\nof-mine ") == 2


def test_a_spec_without_a_docstring_is_listed_too(capsys):
    class Bare(SolverSpec):
        name: Literal["bare"] = "bare"

    try:
        assert cli.main(["list", "solvers"]) == 0
    finally:
        SolverSpec.known.pop("bare")
    assert "\nbare " in "\n" + capsys.readouterr().out


def test_a_failing_stage_leaves_its_reason_for_the_tables(tiny, capsys):
    job = tiny.job("sample", "control-test", 0, "draw")
    assert cli.main(stage(job)) == 1
    error = capsys.readouterr().err
    found = status.read_status(paths.state(tiny.root, job.spec))
    assert found["stage"] == "sample"
    assert error == f"diffbench sample: {found['reason']}\n"
    assert "levels.npz" in found["reason"]
    assert "Traceback" in found["traceback"]


def test_a_stop_takes_the_place_of_an_earlier_failure(tiny, monkeypatch):
    job = tiny.job("score", "edm")
    folder = paths.state(tiny.root, job.spec)

    class Stage:
        @staticmethod
        def run(spec, root, device_name):
            assert (spec, root, device_name) == (job.spec, tiny.root, "cpu")
            raise Stopped(line="stopped at step 3")

    monkeypatch.setattr("importlib.import_module", lambda name: Stage)
    status.record_failure(folder, "score", "earlier")
    assert cli.main(stage(job, "--device", "cpu")) == 85
    assert status.quoted(status.read_status(folder)) == "stopped at step 3 (attempt 2)"


def test_partial_scoring_runs_where_samples_are_and_scores_are_not(tiny, monkeypatch):
    scored = []

    class Stage:
        @staticmethod
        def run(spec, root, device, partial):
            scored.append((spec.variant, partial))

    monkeypatch.setattr("importlib.import_module", lambda name: Stage)
    for variant, item in [("ddpm-cosine", "ddim-5"), ("control-test", "draw")]:
        job = tiny.job("sample", variant, 0, item)
        write_product(job.product, b"images", job.spec)
    done = tiny.job("score", "control-test")
    write_product(done.product, b"{}", done.spec)
    assert cli.main(["score", "--partial", "--config", str(TINY)]) == 0
    assert scored == [("ddpm-cosine", True)]


def test_manifest_prints_as_sha256sum(tiny, capsys):
    job = tiny.job("reference")
    for path in job.products:
        write_product(path, b"content", job.spec)
    assert cli.main(["manifest", str(tiny.root)]) == 0
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 4
    Path("sums").write_text(printed)
    subprocess.run(["sha256sum", "--check", "--quiet", "../../sums"], cwd=tiny.root, check=True)


def test_doctor_finds_and_removes_what_is_not_as_planned(tiny, capsys):
    whole, stale, corrupt = (
        tiny.job("sample", variant, 0, item)
        for variant, item in [
            ("edm", "heun-3"),
            ("ddpm-cosine", "ddim-5"),
            ("control-test", "draw"),
        ]
    )
    other = stale.spec.model_copy(update={"samples": 7})
    for job, spec in [(whole, whole.spec), (stale, other), (corrupt, corrupt.spec)]:
        write_product(job.product, b"images", spec)
    corrupt.product.write_bytes(b"imagez")
    arguments = ["doctor", "--config", str(TINY)]
    assert cli.main(arguments) == 1
    printed = capsys.readouterr().out
    assert "stale" in printed and "samples = 7, and 64 is expected" in printed
    assert "corrupt" in printed and "sha256" in printed
    # The whole one has no run record.
    assert "1 products whole" in printed and "3 wrong" in printed
    assert f"lost     {paths.run_record(whole.product)}" in printed
    assert cli.main([*arguments, "--fix"]) == 0
    found = [status_of(job.product, job.spec) for job in (whole, stale, corrupt)]
    assert found == ["ok", "missing", "missing"]
    assert cli.main(arguments) == 0


def test_doctor_finds_torn_training_states(tiny, capsys):
    folder = paths.state(tiny.root, tiny.job("train", "edm").spec)
    folder.mkdir(parents=True)
    torn = folder / "state-000000001-0123456789abcdef.safetensors"
    torn.write_bytes(b"half")
    assert cli.main(["doctor", "--config", str(TINY)]) == 1
    assert f"torn     {torn}" in capsys.readouterr().out


def test_clean_removes_states_that_no_job_has_whatever_only_says(tiny, capsys):
    kept = paths.state(tiny.root, tiny.job("train", "edm").spec)
    old = paths.states(tiny.root) / "0123456789abcdef"
    for folder in (kept, old):
        folder.mkdir(parents=True)
        (folder / "spec.json").write_text("{}")
    unfinished = tiny.root / "runs" / ".tmp.samples.npz"
    unfinished.parent.mkdir()
    unfinished.touch()
    arguments = ["clean", "--config", str(TINY), "--set", "only=control-test"]
    assert cli.main([*arguments, "--dry-run"]) == 0
    assert capsys.readouterr().out.split() == [str(old), str(unfinished)]
    assert old.exists()
    assert cli.main(arguments) == 0
    assert (kept.exists(), old.exists(), unfinished.exists()) == (True, False, False)


def test_an_extension_that_changed_since_the_plan_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("VALUE = 1\n")
    spec = json.dumps({"extensions": {"mine.py": "0" * 64}})
    assert cli.main(["train", "--root", "r", "--spec", spec, "--extension", "mine.py"]) == 1
    assert "mine.py has changed since the plan was made" in capsys.readouterr().err


def test_the_data_stage_runs_from_the_command_line(tiny, tmp_path):
    job = tiny.job("data")
    start = time.time()
    done = run(*stage(job), cwd=tmp_path, DIFFBENCH_DEVICE="cpu")
    said = ["data: reading digits", "data: storing 1,797 images"]
    assert (done.returncode, done.stderr.splitlines()) == (0, said)
    assert [status_of(path, job.spec) for path in job.products] == ["ok"]
    record = json.loads(paths.run_record(job.product).read_text())
    assert 0 < record["seconds"] < time.time() - start


def test_a_shell_completes_the_commands(tmp_path, capsys):
    assert cli.main(["completion", "bash"]) == 0
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)
    asked = "COMP_WORDS=(diffbench comp); COMP_CWORD=1; _shtab_diffbench; echo ${COMPREPLY[@]}"
    done = subprocess.run(
        ["bash", "-c", f"source {script}; {asked}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["compare", "completion"]


def test_open_shows_the_page_or_says_how_to_make_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert cli.main(["open", "--config", str(TINY)]) == 1
    assert "there is no results/tiny/index.html yet: run snakemake" in capsys.readouterr().err
    page = tmp_path / "results" / "tiny" / "index.html"
    page.parent.mkdir(parents=True)
    page.touch()
    assert cli.main(["open", "--config", str(TINY)]) == 0
    assert capsys.readouterr().out == "results/tiny/index.html\n"
    assert opened == [page.as_uri()]
