"""Commands that show the configuration."""

from __future__ import annotations

import argparse
import importlib
from typing import TYPE_CHECKING, Any

from diffbench.cli.command import (
    CONFIG,
    SET,
    WRITE,
    argument,
    command,
    deliver,
    load,
    repository,
)

if TYPE_CHECKING:
    from diffbench.plan.jobs import Plan

#: What can be listed: a kind of registered specs, or something with rows of its own (`ROWS`).
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
    "image-measures": "image_measures:ImageMeasureSpec",
    "analyses": "analyses:AnalysisSpec",
    "networks": "networks:NetworkSpec",
    "classifiers": "networks:ClassifierNetworkSpec",
    "data": "data:DataSpec",
    "extractors": "extractors:ExtractorSpec",
    "measures": "measures:MeasureSpec",
    "controls": "controls:ControlSpec",
    "averages": "averages:AverageSpec",
    "augmentations": "augmentations:AugmentationSpec",
    "families": "",
    "checkpoints": "",
    "stages": "",
}

Rows = list[tuple[str, str]]


@command(
    "look",
    "list solvers",
    argument("kind", nargs="?", choices=KINDS, default="variants"),
    CONFIG,
    SET,
)
def list_names(options: argparse.Namespace) -> int:
    """List the variants of a benchmark, or what can be named in one: solvers, processes and the like.

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


def registered(kind: str) -> Rows:
    """Return the names of a kind of `KINDS` with a line about each."""
    module, _, name = KINDS[kind].partition(":")
    chosen = getattr(importlib.import_module(f"diffbench.specs.{module}"), name)
    return [(key, _summary(each)) for key, each in sorted(chosen.known.items())]


def _registered(plan: Plan, kind: str) -> Rows:
    return registered(kind)


def _summary(spec: type[Any]) -> str:
    fields = [name for name in spec.model_fields if name != "name"]
    line = (spec.__doc__ or "").strip().partition("\n")[0].rstrip(".")
    return f"{line} [{', '.join(fields)}]".lstrip() if fields else line


def _variants(plan: Plan, kind: str) -> Rows:
    return [
        (name, ", ".join(each.solvers or each.restorers or each.analyses) or "draw")
        for name, each in plan.variants.items()
    ]


def _networks(plan: Plan, kind: str) -> Rows:
    """Return networks with their numbers of parameters at their default sizes, for CIFAR-10's images."""
    from diffbench.networks.parameters import parameters_of
    from diffbench.specs.networks import NetworkSpec

    rows = []
    for name, text in _registered(plan, kind):
        spec = NetworkSpec.choose(name)
        fixed, learned = (f"{parameters_of(spec, outputs):,}" for outputs in (1, 2))
        rows.append((name, f"{fixed:>11}  {learned:>11}  {text}"))
    heads = f"{'parameters':>11}  {'with var.':>11}  for 3x32x32 images; with learned variances"
    return [("", heads), *rows]


def _families(plan: Plan, kind: str) -> Rows:
    from diffbench.pretrained.families import FAMILIES

    return [(name, f"{each.title}  {each.source}") for name, each in sorted(FAMILIES.items())]


def _checkpoints(plan: Plan, kind: str) -> Rows:
    from diffbench.pretrained.cards import cards

    return [
        (name, f"{each.about}; {each.family}, sha256 {each.sha256[:7]}  {each.url}")
        for name, each in sorted(cards(repository()).items())
    ]


def _stages(plan: Plan, kind: str) -> Rows:
    from diffbench.specs.jobs import STAGES

    return [(name, stage.summary()) for name, stage in STAGES.items()]


#: The functions that list what is not simply a kind of specs.
ROWS = {
    "variants": _variants,
    "networks": _networks,
    "families": _families,
    "checkpoints": _checkpoints,
    "stages": _stages,
}


@command("look", "open --config config/digits.yaml", CONFIG, SET)
def open_page(options: argparse.Namespace) -> int:
    """Open the page of a benchmark's results in the browser, and print where it is."""
    import webbrowser

    from diffbench.specs.errors import PlanError
    from diffbench.store import paths

    page = paths.page(load(options, needs_files=False).root)
    if not page.is_file():
        raise PlanError(f"there is no {page} yet: run snakemake or diffbench table first")
    print(page)
    webbrowser.open(page.resolve().as_uri())
    return 0


@command(
    "look",
    "show vp/0/heun-18 --config config/digits.yaml",
    argument(
        "variant",
        help="a variant; or variant/seed/item, for where a number came from and how to make it again",
    ),
    CONFIG,
    SET,
)
def show(options: argparse.Namespace) -> int:
    """Print a variant with everything merged into it, or where a number of it came from."""
    import yaml

    from diffbench.plan.reading import refuse_unknown

    plan = load(options, needs_files=False)
    if "/" in options.variant:
        from diffbench.reporting.provenance import named, provenance
        from diffbench.reporting.results import Results

        results = Results(plan, plan.root)
        found = {job.stage: provenance(results, job) for job in named(plan, options.variant)}
        print(yaml.safe_dump(found, sort_keys=False, width=100, allow_unicode=True), end="")
        return 0
    refuse_unknown("variant", options.variant, plan.variants, plan.config)
    variant = plan.variants[options.variant].model_dump(mode="json", exclude_none=True)
    print(yaml.safe_dump({options.variant: variant}, sort_keys=False), end="")
    for refusal in plan.refusals:
        if refusal.variant == options.variant:
            print(f"# no {refusal.item}: {refusal.reason}")
    return 0


@command("look", "schema --write config/schema.json", WRITE, CONFIG, SET)
def schema(options: argparse.Namespace) -> int:
    """Print the JSON schema of benchmark files, by which editors complete and check keys.

    With --config, the extensions of that file are in it.
    """
    from diffbench.plan.schema import schema
    from diffbench.store import files

    if options.config:
        load(options, needs_files=False)
    return deliver(files.json_bytes(schema()).decode(), options.write)


@command("look", "completion bash", argument("shell", choices=("bash", "zsh", "tcsh")))
def completion(options: argparse.Namespace) -> int:
    """Print the script by which a shell completes commands and options.

    bash: diffbench completion bash > ~/.local/share/bash-completion/completions/diffbench
    """
    import shtab

    from diffbench.cli import every
    from diffbench.cli.command import parser

    print(shtab.complete(parser(every()), options.shell))
    return 0
