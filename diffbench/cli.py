"""The command line: one thin front, each command a function elsewhere.

    diffbench data|reference|train|classifier|shard|sample|score|likelihood|restore|analysis
                                            one job: --root results/digits --spec JSON
    diffbench score --partial | table       what a whole benchmark needs at its end
    diffbench import FAMILY FILE            take a paper's checkpoint
    diffbench list | show | check-config    look at the configuration
    diffbench estimate                      time a few steps of it
    diffbench coverage                      which published numbers are filled
    diffbench settings                      which settings are the papers', and why others are not
    diffbench manifest | doctor | clean     look after the results

Mistakes of the user leave as one line on stderr and status 1.  A failing stage also leaves its
reason, for the tables to quote, in ``status.json`` of its state folder, with the traceback;
DIFFBENCH_DEBUG=1 prints it. A stage that was asked to stop leaves with status 85: its state is
saved, call it again.

torch is imported by the stages alone, when one runs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffbench.specs.errors import UserError

if TYPE_CHECKING:
    from diffbench.plan.jobs import Plan
    from diffbench.reporting.formats import Table
    from diffbench.specs.jobs import StageSpec

STAGES = {
    "data": "read the data set",
    "reference": "measure the data set with the feature extractor",
    "train": "train one variant, resuming where it was stopped",
    "classifier": "train a classifier of noisy images, for guidance",
    "shard": "draw one part of the samples of one solver",
    "sample": "draw samples with one solver, or gather those of its shards",
    "score": "score the samples of one run",
    "likelihood": "evaluate one likelihood of one run",
    "restore": "restore degraded test images with one method",
    "analysis": "measure something of one variant",
}
#: Stages that several processes can share.
SHARED = ("train", "classifier")
KINDS = {
    "variants": "",
    "solvers": "solvers:SolverSpec",
    "processes": "processes:ProcessSpec",
    "denoisers": "denoisers:DenoiserSpec",
    "objectives": "objectives:ObjectiveSpec",
    "times": "objectives:TimesSpec",
    "likelihoods": "likelihoods:LikelihoodSpec",
    "operators": "operators:OperatorSpec",
    "restorers": "restorers:RestorerSpec",
    "analyses": "analyses:AnalysisSpec",
    "networks": "networks:NetworkSpec",
    "classifiers": "networks:ClassifierNetworkSpec",
    "data": "data:DataSpec",
    "extractors": "extractors:ExtractorSpec",
    "controls": "controls:ControlSpec",
    "averages": "averages:AverageSpec",
    "augmentations": "augmentations:AugmentationSpec",
    "families": "",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except BrokenPipeError:
        # The reader (head, less) has gone; Python would complain once more while closing stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, RuntimeError, OSError) as error:
        return fail(options.name, error)


def fail(name: str, error: BaseException) -> int:
    """Print the reason in one line (and the traceback if DIFFBENCH_DEBUG is set)."""
    if os.environ.get("DIFFBENCH_DEBUG"):
        traceback.print_exception(error)
    print(f"diffbench {name}: {reason(error)}", file=sys.stderr)
    return 1


def reason(error: BaseException) -> str:
    """Return what went wrong in one line, its type added unless it was written for users."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text
    return f"{text} ({type(error).__name__})" if text else type(error).__name__


def parser() -> argparse.ArgumentParser:
    """Make the parser; each command's function is in ``command``."""
    top = argparse.ArgumentParser(prog="diffbench", description="Benchmark diffusion models.")
    top.add_argument("--version", action=Version, nargs=0, help="print the version")
    commands = top.add_subparsers(required=True, metavar="COMMAND", dest="name")

    def add(name: str, help: str, command: Callable[[argparse.Namespace], int]) -> Any:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(command=command)
        return sub

    for stage in STAGES:
        sub = add(stage, STAGES[stage], run_stage)
        sub.add_argument("--root", type=Path, help="the results folder, e.g. results/digits")
        sub.add_argument("--spec", help="the job's spec as JSON, as the plan makes it")
        sub.add_argument("--device", default=os.environ.get("DIFFBENCH_DEVICE", "auto"))
        sub.add_argument("--extension", type=Path, action="append", default=_extensions())
        if stage == "sample":
            default = os.environ.get("DIFFBENCH_SHARDS", "1")
            sub.add_argument("--shards", type=int, default=default, help="gather that many")
            sub.set_defaults(command=sample)
        if stage in SHARED:
            sub.add_argument(
                "--processes", type=int, default=1, help="started by torchrun (0: one)"
            )
        if stage == "score":
            sub.add_argument("--partial", action="store_true", help="score what a failed run left")
            _plan_options(sub)
            sub.set_defaults(command=score)
    _plan_options(add("table", "make the tables from whatever results exist", table))
    listing = add("list", "list variants, solvers, processes, ...", list_names)
    listing.add_argument("kind", nargs="?", choices=KINDS, default="variants")
    _plan_options(listing)
    importing = add(
        "import", "turn a paper's checkpoint into weights that a variant can name", import_
    )
    importing.add_argument("family", help="its layout: see diffbench list families")
    importing.add_argument("file", type=Path)
    importing.add_argument("--to", type=Path, metavar="FOLDER", help="default: models/NAME")
    importing.add_argument("--name", dest="called", default="", help="default: the file's name")
    importing.add_argument(
        "--denoiser",
        type=_setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="what the weights do not say and the family takes otherwise (predict=eps)",
    )
    showing = add("show", "print a variant with everything merged into it", show)
    showing.add_argument("variant")
    _plan_options(showing)
    checking = add("check-config", "check a benchmark file and say what it would run", check_config)
    checking.add_argument("file", type=Path)
    _plan_options(checking)
    costing = add("estimate", "say what a benchmark would cost on this machine", estimate)
    costing.add_argument("file", type=Path)
    costing.add_argument("--steps", type=_count, default=3, help="of each kind that are timed")
    costing.add_argument("--shape", type=_shape, metavar="C,H,W", help="of images, if not known")
    _plan_options(costing)
    covering = add(
        "coverage", "say which published number which cell fills, or why none does", cover
    )
    covering.add_argument("--write", type=Path, metavar="FILE", help="to a file, not the screen")
    setting = add("settings", "lay the papers' settings beside those of their benchmarks", settings)
    setting.add_argument("--write", type=Path, metavar="FILE", help="to a file, not the screen")
    recording = add(
        "record", "keep a finished benchmark's numbers in docs/records, for the docs", record
    )
    recording.add_argument("file", type=Path)
    _plan_options(recording)
    migrating = add(
        "migrate", "rewrite files of tables and claims from the spelling of before", migrate
    )
    migrating.add_argument("files", type=Path, nargs="+", metavar="FILE")
    writing = add("pages", "check that README and docs say what docs/records has", write_pages)
    writing.add_argument("--write", action="store_true", help="write them from docs/templates")
    hashing = add("manifest", "print the SHA-256 of every product", print_manifest)
    hashing.add_argument("root", type=Path)
    curing = add("doctor", "verify every product and training state", doctor)
    curing.add_argument("--fix", action="store_true", help="remove what is stale, corrupt or torn")
    _plan_options(curing)
    cleaning = add("clean", "remove training states that no variant needs", clean)
    cleaning.add_argument("--dry-run", action="store_true", help="only print what would go")
    _plan_options(cleaning)
    return top


class Version(argparse.Action):
    """Prints the version, looked up only then: reading metadata would slow every start."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        import diffbench

        parser.exit(message=f"diffbench {diffbench.__version__}\n")


def _extensions() -> list[Path]:
    return [Path(p) for p in os.environ.get("DIFFBENCH_EXTENSIONS", "").split(os.pathsep) if p]


def _plan_options(sub: argparse.ArgumentParser) -> None:
    if not any(action.dest == "file" for action in sub._actions):
        sub.add_argument("--config", type=Path, help="benchmark file (default config/digits.yaml)")
    sub.add_argument(
        "--set",
        type=_setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the benchmark file (training.lr=1e-3), or many as a JSON mapping",
    )


def _setting(text: str) -> dict[str, Any]:
    if text.startswith("{"):
        return dict(json.loads(text))
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: KEY=VALUE is wanted")
    import yaml

    return {key: yaml.safe_load(value)}


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a number from 1 on is wanted")
    return int(text)


def _shape(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if len(parts) != 3:
        raise argparse.ArgumentTypeError(f"{text!r}: C,H,W is wanted, such as 3,32,32")
    return tuple(_count(part.strip()) for part in parts)


def repository() -> Path:
    """Return the folder of the Snakefile and config: this checkout, else the working directory."""
    checkout = Path(__file__).resolve().parent.parent
    return checkout if (checkout / "Snakefile").is_file() else Path.cwd()


def load(options: argparse.Namespace, config: Path | None = None, needs_files: bool = True) -> Plan:
    """Load the plan that the options name; what runs no job does without the files that the jobs read."""
    from diffbench.plan.loading import load_plan

    chosen = config or options.config
    overrides = {key: value for setting in options.set for key, value in setting.items()}
    return load_plan([chosen] if chosen else [], overrides, repository(), "--set", needs_files)


def stage_spec(stage: str, text: str, extensions: Sequence[Path]) -> StageSpec:
    """Parse a job's spec after importing the extensions it uses.

    Raises:
        PlanError: when an extension is not given or has changed since the plan was made.
    """
    from diffbench.plan.reading import Tree, validated
    from diffbench.specs import jobs
    from diffbench.specs.errors import PlanError
    from diffbench.specs.registry import content_hash, load_extension

    try:
        value = json.loads(text)
    except ValueError as error:
        raise PlanError(f"--spec is not JSON: {error}") from None
    files = {path.name: path for path in extensions}
    for name, wanted in (value.get("extensions") or {}).items():
        if name not in files:
            raise PlanError(f"the spec uses {name}: give its path with --extension")
        if content_hash(files[name]) != wanted:
            raise PlanError(f"{files[name]} has changed since the plan was made: plan again")
        load_extension(files[name])
    model = jobs.STAGES[stage]
    spec: StageSpec = validated(model.model_validate, model, Tree(value, {(): "--spec"}))
    return spec


def sample(options: argparse.Namespace) -> int:
    """Draw samples, or gather those of shards."""
    return run_stage(options, **({"shards": options.shards} if options.shards > 1 else {}))


def run_stage(options: argparse.Namespace, **extra: Any) -> int:
    """Run one job from its spec."""
    if options.root is None or options.spec is None:
        raise ValueError("--root and --spec are wanted; the Snakefile shows how (snakemake -np)")
    from diffbench.plan.devices import resolved

    spec = stage_spec(options.name, options.spec, options.extension)
    device = resolved(options.device)
    if getattr(options, "processes", 1) > 1 and getattr(spec, "training", None):
        from diffbench.training import launch

        if not launch.launched():
            return launch_job(options, spec, device)
    return run_job(options.name, spec, options.root, device, **extra)


def launch_job(options: argparse.Namespace, spec: StageSpec, device: str) -> int:
    """Run one job in several processes."""
    from diffbench.plan.loading import check_writable
    from diffbench.store import paths
    from diffbench.training import launch

    check_writable(options.root)
    words = [options.name, "--root", str(options.root), "--spec", options.spec, "--device", device]
    for file in options.extension:
        words += ["--extension", str(file)]
    state = paths.state(options.root, spec)
    return launch.launch(options.processes, words, state, on_gpus=device == "cuda")


def run_job(stage: str, spec: StageSpec, root: Path, device: str, **extra: Any) -> int:
    """Run a stage; record why it failed, or forget an earlier failure."""
    from diffbench.plan.loading import check_writable
    from diffbench.store import paths, status
    from diffbench.training import launch

    check_writable(root)
    folder = paths.state(root, spec)
    if not (extra.get("partial") or launch.launched()):
        # Scoring what a failed run left must not forget why it failed, nor one of several processes, of which the
        # launcher has forgotten it already, why another one has just failed.
        status.clear(folder)
    try:
        importlib.import_module(f"diffbench.jobs.{stage}").run(spec, root, device, **extra)
    except Exception as error:
        # A full disk may be the reason; then the status cannot be written either.
        # Of several processes the first to fail has the reason; the others lost it.
        with suppress(OSError):
            if not (launch.launched() and status.read_status(folder)):
                status.record_failure(folder, stage, reason(error), traceback.format_exc())
        return fail(stage, error)
    return 0


def score(options: argparse.Namespace) -> int:
    """Score one run from its spec, or, with --partial, whatever samples of a benchmark exist."""
    return score_partial(load(options)) if options.partial else run_stage(options)


def score_partial(plan: Plan) -> int:
    """Score the samples of those runs that have some but are not scored; 1 if any failed."""
    from diffbench.specs.jobs import ScoreSpec
    from diffbench.store.products import status_of

    failed = 0
    for run in plan.of("score"):
        assert isinstance(run.spec, ScoreSpec)
        samples = [plan.run("sample", run.variant, run.seed, item) for item in run.spec.samples]
        some = any(status_of(each.product, each.spec) == "ok" for each in samples)
        if some and status_of(run.product, run.spec) != "ok":
            failed |= run_job("score", run.spec, plan.root, plan.device, partial=True)
    return failed


def table(options: argparse.Namespace) -> int:
    """Make the tables."""
    from diffbench.store import paths

    plan = load(options, needs_files=False)
    # Snakemake's rule sets this mark again; without it, a later run makes the tables anew.
    paths.tables_complete(plan.root).unlink(missing_ok=True)
    for path in importlib.import_module("diffbench.reporting.tables").make(plan, plan.root):
        print(path)
    return 0


def list_names(options: argparse.Namespace) -> int:
    """List the variants of a benchmark, or what is registered of a kind.

    Solvers come with a matrix of the processes that they and the likelihoods serve.
    """
    plan = load(options, needs_files=False)
    if options.kind == "solvers":
        from diffbench.plan.matrix import matrix

        print(matrix(), "", "parameters", sep="\n")
    rows = ROWS.get(options.kind, _registered)(plan, options.kind)
    width = max((len(name) for name, _ in rows), default=0)
    for name, text in rows:
        print(f"{name:{width}}  {text}")
    return 0


def _registered(plan: Plan, kind: str) -> list[tuple[str, str]]:
    module, _, name = KINDS[kind].partition(":")
    chosen = getattr(importlib.import_module(f"diffbench.specs.{module}"), name)
    return [(key, _summary(each)) for key, each in sorted(chosen.known.items())]


def _variants(plan: Plan, kind: str) -> list[tuple[str, str]]:
    return [
        (name, ", ".join(each.solvers or each.restorers or each.analyses) or "draw")
        for name, each in plan.variants.items()
    ]


def _networks(plan: Plan, kind: str) -> list[tuple[str, str]]:
    """Networks with their numbers of parameters at their default sizes, for CIFAR-10's images."""
    from diffbench.networks.parameters import parameters_of
    from diffbench.specs.networks import NetworkSpec

    rows = []
    for name, text in _registered(plan, kind):
        spec = NetworkSpec.choose(name)
        fixed, learned = (f"{parameters_of(spec, outputs):,}" for outputs in (1, 2))
        rows.append((name, f"{fixed:>11}  {learned:>11}  {text}"))
    heads = f"{'parameters':>11}  {'with var.':>11}  for 3x32x32 images; with learned variances"
    return [("", heads), *rows]


def _families(plan: Plan, kind: str) -> list[tuple[str, str]]:
    from diffbench.pretrained.families import FAMILIES

    return [(name, f"{each.title}  {each.source}") for name, each in sorted(FAMILIES.items())]


#: What is listed in a way of its own.
ROWS = {"variants": _variants, "networks": _networks, "families": _families}


def _summary(spec: type[Any]) -> str:
    fields = [name for name in spec.model_fields if name != "name"]
    line = (spec.__doc__ or "").strip().partition("\n")[0].rstrip(".")
    return f"{line} [{', '.join(fields)}]".lstrip() if fields else line


def import_(options: argparse.Namespace) -> int:
    """Import an official checkpoint."""
    import_checkpoint = importlib.import_module("diffbench.pretrained.importing").import_checkpoint
    denoiser = {key: value for setting in options.denoiser for key, value in setting.items()}
    folder, spec = import_checkpoint(
        options.family, options.file, options.to, options.called, denoiser
    )
    channels, height, width = spec.image_shape
    averaged = ", averaged" if spec.ema else ""
    print(
        f"{folder}: {spec.network.name} of {spec.family}, {spec.parameters:,} parameters{averaged}, for "
        f"{height}x{width} images with {channels} channel{'s' if channels > 1 else ''}"
    )
    return 0


def show(options: argparse.Namespace) -> int:
    """Print a variant as YAML, defaults and overrides merged into it."""
    import yaml

    from diffbench.plan.reading import nearest
    from diffbench.specs.errors import PlanError

    plan = load(options, needs_files=False)
    if options.variant not in plan.variants:
        hint = nearest(options.variant, plan.variants)
        raise PlanError(f"no variant {options.variant!r} in {plan.config}{hint}")
    variant = plan.variants[options.variant].model_dump(mode="json", exclude_none=True)
    print(yaml.safe_dump({options.variant: variant}, sort_keys=False), end="")
    for refusal in plan.refusals:
        if refusal.variant == options.variant:
            print(f"# no {refusal.item}: {refusal.reason}")
    return 0


def check_config(options: argparse.Namespace) -> int:
    """Say what a benchmark file would run, or what is wrong with it."""
    from diffbench.reporting import tables

    plan = load(options, options.file)
    tables.check(plan)
    jobs = ", ".join(f"{len(plan.of(stage))} {stage}" for stage in STAGES)
    print(f"{options.file}: {len(plan.variants)} variants on {plan.device}; jobs: {jobs}")
    for refusal in plan.refusals:
        print(f"  {refusal.variant} without {refusal.item}: {refusal.reason}")
    for name, variant in plan.variants.items():
        for item, solver in variant.solvers.items():
            if variant.process is not None and (note := solver.note(variant.process)):
                print(f"  {name}, {item}: {note}")
    return 0


def estimate(options: argparse.Namespace) -> int:
    """Time a few steps of what a benchmark would run, and say what all of it would cost."""
    plan = load(options, options.file, needs_files=False)
    estimates = importlib.import_module("diffbench.estimate.report")
    module = importlib.import_module("diffbench.estimate.estimate")
    print(estimates.text(module.estimate(plan, options.steps, options.shape)), end="")
    return 0


def cover(options: argparse.Namespace) -> int:
    """Print, or write, the table of all published numbers of the data sets that benchmarks are about."""
    from diffbench.reporting.coverage import coverage

    return _page(coverage(repository()), options.write)


def settings(options: argparse.Namespace) -> int:
    """Print, or write, the tables of the papers' settings and ours."""
    from diffbench.reporting.settings import settings

    return _page(settings(repository()), options.write)


def _page(table: Table, path: Path | None) -> int:
    from diffbench.reporting.formats import to_markdown
    from diffbench.store import files

    text = to_markdown(table)
    if path:
        files.write(path, text.encode())
    else:
        print(text, end="")
    return 0


def record(options: argparse.Namespace) -> int:
    """Record a finished benchmark."""
    from diffbench.reporting import recorded

    plan = load(options, options.file, needs_files=False)
    for path in recorded.write(plan, plan.root, repository()):
        print(path)
    return 0


def migrate(options: argparse.Namespace) -> int:
    """Rewrite files of tables and claims from the spelling of before, and say what was changed."""
    from diffbench.reporting.migrate import migrate

    for file in options.files:
        made = migrate(file, repository())
        changes = ", ".join(f"{what} ({count})" for what, count in made.items())
        print(f"{file}: {changes or 'nothing to change'}")
    return 0


def write_pages(options: argparse.Namespace) -> int:
    """Write the pages of README and docs, or say which are not what their templates make; status 1 then."""
    from diffbench.reporting.pages import pages
    from diffbench.store import files

    wrong = []
    for place, text in pages(repository()).items():
        path = repository() / place
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        wrong.append(place)
        if options.write:
            files.write(path, text.encode())
    for place in wrong:
        print(f"{place}: {'written' if options.write else 'is not what its template makes'}")
    return int(bool(wrong) and not options.write)


def print_manifest(options: argparse.Namespace) -> int:
    """Print the manifest of a results folder as sha256sum does."""
    from diffbench.store.manifest import manifest

    if not options.root.is_dir():
        raise ValueError(f"there is no results folder {options.root}")
    for path, digest in manifest(options.root).items():
        print(f"{digest}  {path}")
    return 0


def doctor(options: argparse.Namespace) -> int:
    """Verify all results of a plan; status 1 when something is wrong and stays so."""
    from diffbench.plan.upkeep import examine

    plan = load(options, needs_files=False)
    found = list(examine(plan))
    wrong = [finding for finding in found if finding.status != "missing"]
    for finding in wrong:
        print(finding.line())
        if options.fix:
            finding.remove()
    missing, whole = len(found) - len(wrong), sum(len(run.products) for run in plan.runs)
    whole -= sum(finding.status != "torn" for finding in found)
    action = "removed: run snakemake to remake them" if options.fix else "wrong"
    print(f"{plan.root}: {whole} products whole, {missing} missing, {len(wrong)} {action}")
    return int(bool(wrong) and not options.fix)


def clean(options: argparse.Namespace) -> int:
    """Remove training states of specs that the benchmark no longer has, and unfinished files."""
    from diffbench.plan.upkeep import remove, unneeded

    options.set.append({"only": []})
    for path in unneeded(load(options, needs_files=False)):
        print(path)
        if not options.dry_run:
            remove(path)
    return 0
