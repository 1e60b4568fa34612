"""From ``methods.yaml`` and a benchmark file to variants with everything merged into them.

Each key of a trained variant comes from the last of these that states it:

    the benchmark's network, training and sampling; its defaults; the variant; the benchmark's overrides

A ``sweep`` makes one variant of each combination of its values: ``{sigma_max}`` in the id and in
any value of ``blurring-s{sigma_max}`` is replaced.  Exact denoisers, controls and variants of only analyses
and restorers take no defaults, because defaults are about networks.  Imported models take only the benchmark's
sampling, because their folder says what they are (`pretrained`).
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from pydantic import TypeAdapter

from diffbench.plan import pretrained
from diffbench.plan.effects import Effects
from diffbench.plan.pictures import classes_of, shape_of
from diffbench.plan.reading import Tree, dotted, nearest, validated
from diffbench.specs.analyses import AnalysisSpec
from diffbench.specs.benchmark import ABOUT, ALONE, BenchmarkSpec, Id, VariantSpec, seeds_of
from diffbench.specs.data import DataSpec
from diffbench.specs.denoisers import DenoiserSpec
from diffbench.specs.errors import PlanError
from diffbench.specs.jobs import weights_refusal
from diffbench.specs.likelihoods import LikelihoodSpec
from diffbench.specs.networks.network import NetworkSpec
from diffbench.specs.objectives import ObjectiveSpec
from diffbench.specs.restorers import RestorerSpec
from diffbench.specs.solvers import SolverSpec
from diffbench.specs.weights import OfWeights

Choice = SolverSpec | LikelihoodSpec | AnalysisSpec | RestorerSpec
_ID = TypeAdapter(Id)
#: The most variants of one sweep.
MOST_SWEPT = 1000
#: The most runs, a variant with a seed each, of a benchmark.
MOST_RUNS = 10_000
#: The keys of a variant that hold items by their ids, which an override removes by ``none``.
ITEMS = ("solvers", "likelihoods", "restorers", "analyses")
NOTHING = Tree({})
_SPECIAL = re.compile(r"[*?[]")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def joined(methods: Tree, own: Tree) -> Tree:
    """Add a benchmark's own methods to the shared ones.

    Raises:
        PlanError: when an id is in both.
    """
    for name in own.value:
        if name in methods.value:
            raise PlanError(
                f"{own.where((name,))}: methods.{name}: {name!r} is in {methods.where((name,))} too; change that "
                "variant by overrides, or choose another name"
            )
    return methods.under(own)


def expanded(
    methods: Tree, overrides: Tree, defaults: Tree = NOTHING, layers: Sequence[Tree] = ()
) -> dict[str, Tree]:
    """Apply overrides and expand sweeps: one tree for each variant id.

    ``layers`` are the files and options that the overrides were merged from: one may remove what another has added.

    Raises:
        PlanError: when an override matches no variant, or removes what none of them has, or two variants have one id.
    """
    variants: dict[str, Tree] = {}
    unused: dict[tuple[str, ...], None] = {
        (pattern, *keys): None
        for pattern in overrides.value
        for keys in [(), *_given(overrides, pattern, removed=True)]
    }
    for layer in layers:
        for pattern in _items(layer, "overrides"):
            for added in _given(layer.part("overrides"), pattern, removed=False):
                unused.pop((pattern, *added), None)
    for template in methods.value:
        tree = _overridden(methods.part(template), template, overrides, unused, defaults)
        for name, variant in _swept(template, tree):
            if name in variants:
                raise PlanError(
                    f"{tree.where(())}: {template}: two variants have the name {name!r}"
                )
            if name != template:
                variant = _overridden(variant, name, overrides, unused, defaults)
            variants[name] = variant
    for keys in unused:
        raise PlanError(f"{overrides.where(keys)}: overrides.{_without_effect(keys, variants)}")
    return variants


def _without_effect(keys: tuple[str, ...], variants: Mapping[str, Tree]) -> str:
    """Return what is wrong with an override that matches no variant, or that removes an item that none of them has."""
    pattern, *removed = keys
    if not removed:
        return f"{pattern}: no variant {pattern!r}{nearest(pattern, variants)}"
    key, item = removed
    trees = (tree for name, tree in variants.items() if matches(name, pattern))
    known = {each for tree in trees for each in _items(tree, key)} - {item}
    return f"{dotted(keys)}: none removes {item!r}, and there is none{nearest(item, known)}"


def _items(tree: Tree, key: str) -> dict[str, Any]:
    """Return the mapping under a key, before it is validated; an empty one where there is none."""
    value = tree.part(key).value
    return value if isinstance(value, dict) else {}


def _given(overrides: Tree, pattern: str, *, removed: bool) -> Iterator[tuple[str, str]]:
    """Yield the keys of all items that an override removes, or those that it adds or changes."""
    for key in ITEMS:
        for item, value in _items(overrides.part(pattern), key).items():
            if (value == "none") is removed:
                yield key, item


def _overridden(
    tree: Tree, name: str, overrides: Tree, unused: dict[tuple[str, ...], None], defaults: Tree
) -> Tree:
    for pattern in overrides.value:
        if not matches(name, pattern):
            continue
        for key, item in [each[1:] for each in unused if each[0] == pattern and len(each) > 1]:
            if item in _items(tree, key) or item in _items(defaults, key):
                unused.pop((pattern, key, item))
        tree = tree.under(overrides.part(pattern))
        unused.pop((pattern,), None)
    return tree


def matches(name: str, pattern: str) -> bool:
    """Say whether an id is what a user wrote, or matches it as a pattern."""
    return pattern == name or (_SPECIAL.search(pattern) is not None and fnmatchcase(name, pattern))


def _swept(template: str, tree: Tree) -> Iterable[tuple[str, Tree]]:
    sweep = tree.part("sweep").value
    origin = tree.where(("sweep",))
    if not isinstance(tree.value, dict):
        raise PlanError(f"{origin}: {template}: a variant must be a mapping, not {tree.value!r}")
    if not isinstance(sweep, dict):
        raise PlanError(f"{origin}: {template}.sweep: must be a mapping of lists, not {sweep!r}")
    if wrong := [key for key, values in sweep.items() if not isinstance(values, list)]:
        place = f"{tree.where(('sweep', wrong[0]))}: {template}.sweep.{wrong[0]}"
        raise PlanError(f"{place}: must be a list of values, not {sweep[wrong[0]]!r}")
    if empty := [key for key, values in sweep.items() if not values]:
        raise PlanError(f"{tree.where(('sweep', empty[0]))}: {template}.sweep.{empty[0]}: is empty")
    if (count := math.prod(map(len, sweep.values()))) > MOST_SWEPT:
        raise PlanError(f"{origin}: {template}.sweep: {count:,} variants; at most {MOST_SWEPT:,}")
    bare = tree.without("sweep")
    for values in itertools.product(*sweep.values()):
        chosen = dict(zip(sweep, values, strict=True))
        name = _filled(chosen, template, origin, template)
        yield str(name), bare.mapped(partial(_filled, chosen, template, origin))


def _filled(chosen: Mapping[str, Any], template: str, origin: str, value: Any) -> Any:
    """Replace ``{name}`` in a value; a value that is only ``{name}`` gets the type of what replaces it."""
    if not isinstance(value, str):
        return value
    for name in _PLACEHOLDER.findall(value):
        if name not in chosen:
            raise PlanError(
                f"{origin}: {template}: {{{name}}} is not a key of sweep{nearest(name, chosen)}"
            )
    whole = _PLACEHOLDER.fullmatch(value)
    if whole:
        return chosen[whole[1]]
    return _PLACEHOLDER.sub(lambda match: str(chosen[match[1]]), value)


def selected(
    known: Iterable[str], tree: Tree, key: str, prefix: str = "", what: str = "variant"
) -> list[str]:
    """Return the names that the patterns under ``key`` choose, in the patterns' order.

    Args:
        known: all names.
        tree: the mapping that has the key.
        key: the key of the patterns.
        prefix: the keys above it, each with a dot behind it, for messages.
        what: what the names are of, for messages.

    Raises:
        PlanError: when a pattern chooses none.
    """
    names, found = dict.fromkeys(known), dict[str, None]()
    patterns = tree.value[key]
    for index, pattern in enumerate(patterns):
        plain = pattern in names and not _SPECIAL.search(pattern)
        chosen = [pattern] if plain else [name for name in names if matches(name, pattern)]
        if not chosen:
            origin = tree.where((key, index))
            start = pattern.rstrip("*")
            # A pattern is compared with the beginnings that it could have meant.
            near = {f"{name[: len(start)]}*" for name in names} if start != pattern else names
            hint = nearest(pattern, near)
            raise PlanError(f"{origin}: {prefix}{key}: no {what} {pattern!r}{hint}")
        found |= dict.fromkeys(chosen)
    return list(found)


def resolve(
    name: str, tree: Tree, benchmark: Tree, data: DataSpec, effects: Effects | None = None
) -> VariantSpec:
    """Merge and validate one variant.

    Args:
        name: its id.
        tree: its own keys, overrides applied.
        benchmark: the benchmark file.
        data: its data set.
        effects: to which the variant's settings are added.

    Raises:
        PlanError: for the first mistake, where it was written.
    """
    if _is_trained(tree.value):
        base = _shared(benchmark, tree, "network", "training", "sampling")
        tree = base.under(benchmark.part("defaults")).under(tree)
        _check_shared(name, tree, benchmark)
    elif "pretrained" in tree.value:
        tree = _shared(benchmark, tree, "sampling").under(tree)
    _check_filled(name, tree)
    tree = pretrained.filled(name, tree)
    for key in ITEMS:
        tree = _dropped(tree, key)
    validated(_ID.validate_python, Id, Tree(name, {(): tree.where(())}), (name,))
    variant = validated(VariantSpec.model_validate, VariantSpec, tree, (name,))
    _check_trainable(name, variant, tree, data)
    _check_served(name, variant, tree, data)
    if effects is not None:
        effects.add(variant, tree, (name,))
    return variant


def _check_shared(name: str, tree: Tree, benchmark: Tree) -> None:
    """Refuse a trained variant for which neither it nor the benchmark says the network or the training."""
    if "process" not in tree.value or "denoiser" not in tree.value:
        return
    for key in ("network", "training"):
        if key not in tree.value:
            raise PlanError(
                f"{benchmark.where(())}: {key}: this key is missing, and {name} is trained without one of its own"
            )


def _check_filled(name: str, tree: Tree) -> None:
    """Refuse a key of a variant that was left empty, where it was."""
    for key, value in tree.value.items():
        if value is None:
            raise PlanError(
                f"{tree.where((key,))}: {name}.{key}: is empty; leave the key out, or write its value"
            )


def _shared(benchmark: Tree, tree: Tree, *keys: str) -> Tree:
    """Return the benchmark's keys among some, which are for all networks."""
    shared = {key: benchmark.part(key) for key in keys if key in benchmark.value}
    return Tree({}, {(): tree.where(())}).having(shared)


def _check_trainable(name: str, variant: VariantSpec, tree: Tree, data: DataSpec) -> None:
    """Refuse a denoiser that cannot serve its process or data, and an objective that cannot train it."""
    process, denoiser, objective = variant.process, variant.denoiser, variant.objective
    shape = shape_of(data)
    if process is None or denoiser is None:
        return
    reasons: list[tuple[str, str | None]] = [("denoiser", denoiser.refusal(process))]
    if variant.pretrained is not None:
        classes = classes_of(data) if variant.pretrained.classes else 0
        of_data = variant.pretrained.refusal(shape, classes, data.name)
        reasons.insert(0, ("pretrained", of_data))
    elif variant.network is not None and shape is not None:
        reasons.append(("network", variant.network.refusal(shape)))
        reasons.append(("denoiser", _network_refusal(variant.network, denoiser, shape[0])))
    if denoiser.takes_labels:
        reasons.append(("denoiser", _classes_refusal("conditional: true", data)))
    if objective is not None:
        reasons.append(("objective", objective.refusal(process, denoiser)))
        reasons.append(("objective", _augmentation_refusal(objective, variant.network)))
        if objective.needs_levels and variant.dequantise != "none":
            given = f"dequantise: {variant.dequantise}"
            reasons.append(
                ("objective", f"{given}, but {objective.name} needs grey levels; use none")
            )
    for key, reason in reasons:
        if reason:
            # The reason begins with the key that it is about: `predict: mean needs ..`, `denoiser.variance: ..`.
            named = tuple(reason.partition(":")[0].split("."))
            keys = named if named[0] in tree.value else (key, *named)
            raise PlanError(f"{tree.where(keys)}: {name}.{key}: {reason}")


def _network_refusal(network: NetworkSpec, denoiser: DenoiserSpec, channels: int) -> str | None:
    """Return why the network cannot be used as the denoiser does; None when it can."""
    if denoiser.takes_labels and not network.labels:
        return f"conditional: true, but {network.name} takes no class labels; leave conditional out"
    taken, given = denoiser.inputs(channels), denoiser.outputs * channels
    if network.channels_vary or taken == given == channels:
        return None
    return (
        f"needs a network from {taken} channels to {given}, and {network.name} has those of an image, {channels}; "
        "take another network, or a denoiser without masks, learned variance or several outputs"
    )


def _augmentation_refusal(objective: ObjectiveSpec, network: NetworkSpec | None) -> str | None:
    """Return why the network cannot be told of the objective's augmentation; None when it can."""
    if objective.augmentation is None or network is None:
        return None
    wanted, given = objective.augmentation.labels, network.augmentation_labels
    if wanted == given:
        return None
    return (
        f"augmentation: {objective.augmentation.name} tells the network {wanted} numbers, but {network.name} takes "
        f"{given}"
    )


def _check_served(name: str, variant: VariantSpec, tree: Tree, data: DataSpec) -> None:
    """Refuse a solver, likelihood, restorer or analysis of the variant's own that cannot serve it."""
    own: list[tuple[str, str, Choice]]
    own = [("solvers", item, choice) for item, choice in variant.solvers.items()]
    own += [("likelihoods", item, choice) for item, choice in variant.likelihoods.items()]
    own += [("restorers", item, choice) for item, choice in variant.restorers.items()]
    own += [("analyses", item, choice) for item, choice in variant.analyses.items()]
    for key, item, choice in own:
        if variant.process is None or not (reason := refusal(choice, variant, data)):
            continue
        field, keys = reason.partition(":")[0], f"{name}.{key}.{item}"
        if field in type(choice).model_fields:
            raise PlanError(f"{tree.where((key, item, field))}: {keys}.{reason}")
        named = tuple(field.split("."))
        if named[0] in tree.value:
            raise PlanError(f"{tree.where(named)}: {keys}: {reason}")
        raise PlanError(
            f"{tree.where((key, item))}: {keys}: {choice.name!r} cannot serve the process "
            f"{variant.process.name!r}: {reason}"
        )


def refusal(choice: Choice, variant: VariantSpec, data: DataSpec) -> str | None:
    """Return why a solver, likelihood, restorer or analysis cannot serve a variant; None when it can."""
    assert variant.process is not None
    if isinstance(choice, OfWeights) and (reason := weights_refusal(variant, choice)):
        return reason
    if reason := choice.refusal(variant.process, variant.denoiser):
        return reason
    if isinstance(choice, AnalysisSpec) and choice.trains and variant.pretrained:
        return f"{choice.name} trains the network, but an imported model is not trained"
    return _labels_refusal(choice, variant, data) if isinstance(choice, SolverSpec) else None


def _labels_refusal(solver: SolverSpec, variant: VariantSpec, data: DataSpec) -> str | None:
    """Return why a solver cannot use labels: there are no such classes, or the null class was not trained."""
    if not solver.uses_labels:
        return None
    given = [key for key in ("w", "classifier_scale", "labels") if getattr(solver, key) is not None]
    if reason := _classes_refusal(f"{given[0]}: {getattr(solver, given[0])}", data):
        return reason
    classes = classes_of(data)
    if wrong := [label for label in solver.labels or () if classes and label >= classes]:
        return (
            f"labels: {wrong[0]} is not a class of {data.name}; its classes are 0 to {classes - 1}"
        )
    if solver.w and variant.pretrained:
        return f"w: {solver.w:g} needs a null class, but imported models were trained without one"
    if solver.w and variant.objective and variant.objective.label_dropout == 0:
        return (
            "objective.label_dropout: 0 never trains the null class, which "
            f"w: {solver.w:g} needs; 0.1 is usual"
        )
    return None


def _classes_refusal(wanted_by: str, data: DataSpec) -> str | None:
    """Return why labels cannot be used; None where they can, or where it is not known yet."""
    classes = classes_of(data)
    if classes == 0 or classes >= 2:
        return None
    return f"{wanted_by} needs at least two classes, and the data set {data.name} has fewer"


def _is_trained(value: Mapping[str, Any]) -> bool:
    denoiser = value.get("denoiser", {})
    name = denoiser.get("name") if isinstance(denoiser, dict) else denoiser
    chosen = DenoiserSpec.known.get(str(name or DenoiserSpec.default_name), DenoiserSpec)
    exact = chosen is not DenoiserSpec and not getattr(chosen, "trained", True)
    own = set(value) - ABOUT
    return not {"control", "pretrained"} & own and not (own and own <= ALONE) and not exact


def _dropped(tree: Tree, key: str) -> Tree:
    """Return a variant without the solvers, likelihoods and so on that an override sets to ``none``."""
    part = tree.part(key)
    if not isinstance(part.value, dict):
        return tree
    for name in [name for name, value in part.value.items() if value == "none"]:
        part = part.without(name)
    if not part.value:
        return tree.without(key)
    return tree.without(key).having({key: part})


def _solvers(variant: Tree, benchmark: Tree) -> list[str]:
    """Return the ids of a variant's solvers before it is resolved."""
    named = [each.part("solvers").value for each in (benchmark.part("defaults"), variant)]
    return [solver for each in named if isinstance(each, dict) for solver in each]


def variants_of(
    benchmark: BenchmarkSpec,
    tree: Tree,
    methods: Tree,
    data: DataSpec,
    layers: Sequence[Tree] = (),
) -> tuple[dict[str, VariantSpec], frozenset[str]]:
    """Return id -> variant, with everything merged into it, of the variants that a benchmark chooses, and what is left.

    The second is the ids of chosen variants that ``only`` or the seeds leave out.

    Args:
        benchmark: the benchmark.
        tree: its file, merged from ``layers``.
        methods: the variants of ``methods.yaml``.
        data: its data set, with the paths of its files.
        layers: the files and options.
    """
    every = expanded(
        joined(methods, tree.part("methods")),
        tree.part("overrides"),
        tree.part("defaults"),
        layers,
    )
    whole = Tree({"variants": benchmark.variants, "only": benchmark.only}, tree.origins)
    names = selected(every, whole, "variants")
    restorations = benchmark.restorations
    patterns = Tree({"variants": restorations.variants}, tree.part("restorations").origins)
    selected(every, patterns, "variants", "restorations.")
    if benchmark.trajectory is not None:
        solvers = [f"{name}/{solver}" for name in every for solver in _solvers(every[name], tree)]
        patterns = Tree({"of": benchmark.trajectory.of}, tree.part("trajectory").origins)
        selected(solvers, patterns, "of", "trajectory.", "variant/solver")
    all_chosen = frozenset(names)
    if benchmark.only:
        kept = set(selected(names, whole, "only"))
        names = [name for name in names if name in kept]
    effects = Effects(methods, layers)
    effects.add(benchmark, tree)
    resolved = {name: resolve(name, every[name], tree, data, effects) for name in names}
    variants = {name: each for name, each in resolved.items() if seeds_of(benchmark, each)}
    if not variants:
        origin, seeds = tree.where(("seeds",)), ", ".join(map(str, benchmark.seeds))
        raise PlanError(f"{origin}: seeds: none of the chosen variants has a seed among {seeds}")
    runs = sum(len(seeds_of(benchmark, each)) for each in variants.values())
    if runs > MOST_RUNS:
        raise PlanError(
            f"{tree.where(('seeds',))}: seeds: {runs:,} runs of {len(variants):,} variants and their seeds; at most "
            f"{MOST_RUNS:,} in one benchmark: split it"
        )
    left_out = all_chosen - set(variants)
    if not left_out:
        effects.check()
    return variants, left_out
