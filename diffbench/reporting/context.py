"""What readers must know beside the numbers: protocol, data, budget, and what was left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from diffbench.plan import treatments
from diffbench.plan.jobs import Plan, Refusal
from diffbench.reporting.cells import Record
from diffbench.reporting.formats import AT_FLOOR, BEST
from diffbench.reporting.layout import BITS, Metrics
from diffbench.reporting.numbers import plain
from diffbench.specs.base import Registered
from diffbench.specs.benchmark import VariantSpec
from diffbench.specs.training import TrainingSpec


def score_protocol(protocol: Mapping[str, Any] | None) -> str:
    """Return how scores were made, in a few words; empty without scores."""
    if not protocol or "extractor" not in protocol:
        return ""
    digest = str(protocol.get("extractor_sha256", ""))[:8]
    counts = protocol.get("reference_counts") or {}
    split = protocol.get("reference_split", "")
    images = f" ({counts[split]} images)" if split in counts else ""
    if published := protocol.get("reference_sha256"):
        neighbours = protocol.get("reference_neighbours", "unknown")
        images = f" by a published file (sha256 {published[:8]}; {neighbours} images for precision and recall)"
    conversion = f" ({protocol['conversion']})" if protocol.get("conversion") else ""
    return (
        f"extractor {protocol['extractor']}{f' sha256 {digest}' if digest else ''}{conversion}, "
        f"reference {split}{images}, torch-fidelity {protocol.get('torch_fidelity', 'unknown')}"
    )


def sample_protocol(protocol: Mapping[str, Any] | None) -> str:
    """Return how scores and their samples were made, in a few words; empty without scores."""
    scored, precision = score_protocol(protocol), (protocol or {}).get("precision")
    return f"{scored}, network in {precision}" if scored and precision else scored


def likelihood_protocol(protocol: Mapping[str, Any] | None) -> str:
    """Return how a likelihood was evaluated, in a few words."""
    return ", ".join(f"{key} {value}" for key, value in (protocol or {}).items())


def protocol(metric: str, protocol: Mapping[str, Any] | None) -> str:
    """Return how a metric was measured, in a few words."""
    return likelihood_protocol(protocol) if metric == BITS else sample_protocol(protocol)


def protocols(records: Iterable[Record]) -> list[str]:
    """Return the protocols of the scores: one line, unless results of several protocols are shown."""
    scored = [record.cell.protocol for record in records if record.cell.status in ("ok", "partial")]
    return list(dict.fromkeys(filter(None, map(score_protocol, scored))))


def data_line(plan: Plan, items: Iterable[tuple[str, str]] = ()) -> str:
    """Return the name of the data set and how many images are used.

    Args:
        plan: the benchmark.
        items: (variant, item) of what a table shows: the restored images are counted where there are restorations among
            them, and the sampling budget unless there is nothing else.
    """
    wanted, asked = set(items), plan.benchmark.restorations
    stages = {job.stage for job in plan.jobs if (job.variant, job.item) in wanted}
    counted = [] if stages == {"restore"} else [f"N = {plan.benchmark.samples} samples"]
    if "restore" in stages:
        each = f"the first {asked.images} test images, {asked.draws} restorations of each"
        counted.append(f"{each}, N = {asked.images * asked.draws}")
    seeds = ", ".join(map(str, plan.benchmark.seeds))
    data = plan.benchmark.data
    called = "" if data.title == data.name else f"{data.title}, read by "
    return (
        f"Data: {called}{described(data.unplaced)}, {data.levels} grey levels; "
        f"{'; '.join(counted)}; {'seeds' if ',' in seeds else 'seed'} {seeds}."
    )


def described(chosen: Registered) -> str:
    """Return the name of a registered choice with its parameters, without those that are none or off."""
    name, values = chosen.model_dump()["name"], chosen.model_dump(mode="json", exclude={"name"})
    given = {
        key: value for key, value in values.items() if value is not None and value is not False
    }
    options = ", ".join(f"{key} {value}" for key, value in given.items())
    return f"{name} ({options})" if options else name


def budget_lines(plan: Plan, variants: Iterable[str] | None = None) -> list[str]:
    """Return lines on budget, precision, network, parameterisation, times and dequantisation, with their variants.

    Args:
        plan: the benchmark.
        variants: the variants that a table shows; all when not given.
    """
    shown = plan.variants if variants is None else set(variants)
    trained = {name: each for name, each in plan.variants.items() if each.trained and name in shown}
    if not trained:
        return []
    return [
        f"Training: {_grouped(trained, _trained)}.",
        f"Precision: {_grouped(trained, _precision)}.",
        f"Network: {_grouped(trained, _network)}.",
        f"Predicted: {_grouped(trained, _predicted)}.",
        *treatments.remarks(trained),
        f"Training times: {_grouped(trained, _times)}.",
        f"Dequantisation of training data: {_grouped(trained, _dequantised)}.",
    ]


def budget(training: TrainingSpec | None) -> str:
    """Return a training budget in a few words."""
    return f"{training.steps} steps of {training.batch} images" if training else "none"


def made_by(variant: VariantSpec) -> str:
    """Return what a model was trained with, its budget and its network, in a few words; empty for what has none."""
    return f"{_trained(variant)}, {_network(variant)}" if variant.trained else ""


def _trained(variant: VariantSpec) -> str:
    """Return the training budget, or the family and the checksum of an imported checkpoint."""
    taken = variant.pretrained
    if taken is None:
        return budget(variant.training)
    return f"{CHECKPOINT}, imported (family {taken.family}, sha256 {taken.checkpoint[:16]})"


def _precision(variant: VariantSpec) -> str:
    """Return the network's precision in training and in sampling.  Solvers that control their error use fp32."""
    sampled = variant.sampling.precision
    trained = CHECKPOINT if variant.training is None else variant.training.precision
    return sampled if trained == sampled else f"training {trained}, sampling {sampled}"


def _dequantised(variant: VariantSpec) -> str:
    return CHECKPOINT if variant.pretrained else variant.dequantise


def _network(variant: VariantSpec) -> str:
    assert variant.network is not None
    network = variant.network.model_dump(mode="json")
    fourier = ", ".join(f"{each:g}" for each in network.pop("fourier", ()))
    sizes = ", ".join(f"{k} {network[k]}" for k in ("channels", "inner_channels") if k in network)
    described = f"{variant.network.name}{f' ({sizes})' if sizes else ''}"
    return f"{described} with {f'Fourier features {fourier}' if fourier else 'no input features'}"


#: What is said of an imported model: the checkpoint's authors know how it was trained.
CHECKPOINT = "the official checkpoint's"
#: The input of a network that tells it the time, and what it is by default.
INPUTS = {"input_scale": "unit", "noise_input": "log-ratio", "levels": 1000}


def _predicted(variant: VariantSpec) -> str:
    """Return the denoiser's native quantity, and whether a skip connection is inside."""
    assert variant.denoiser is not None
    denoiser = variant.denoiser.model_dump(mode="json")
    skip = denoiser.get("skip", "none")
    words = [f"{variant.denoiser.predicts}{f' with skip {skip}' if skip != 'none' else ''}"]
    words += [
        f"{key.replace('_', ' ')} {denoiser[key]}"
        for key, usual in INPUTS.items()
        if denoiser.get(key, usual) != usual
    ]
    if variant.denoiser.learns_variance:
        bounds = " without bounds" if variant.denoiser.variance_of_levels else ""
        words.append(f"learned variance{bounds}")
    if variant.denoiser.takes_labels:
        words.append("class-conditional")
    if variant.denoiser.takes_labels and variant.objective is not None:
        words.append(f"label dropout {variant.objective.label_dropout:g}")
    return ", ".join(words)


def _times(variant: VariantSpec) -> str:
    """Return how training times are drawn; mixed ones are weighted back to uniform."""
    if variant.objective is None:
        return CHECKPOINT
    times = variant.objective.times.model_dump(mode="json")
    name, draw = times.pop("name"), times.pop("draw")
    shown = ", ".join(f"{key} {value:g}" for key, value in times.items() if value is not None)
    return f"{name} ({shown}){f', {draw}' if draw != 'independent' else ''}"


def _grouped(variants: Mapping[str, VariantSpec], describe: Callable[[VariantSpec], str]) -> str:
    """Return what holds for all variants, or each description with the variants that it holds for."""
    groups: dict[str, list[str]] = {}
    for name, variant in variants.items():
        groups.setdefault(describe(variant), []).append(name)
    if len(groups) == 1:
        return f"{next(iter(groups))} (all models)"
    return "; ".join(f"{what} ({', '.join(names)})" for what, names in groups.items())


def refusal_lines(refusals: Iterable[Refusal]) -> list[str]:
    """Return the solvers and likelihoods that cannot serve a variant, a line for each reason."""
    groups: dict[str, list[str]] = {}
    for each in refusals:
        groups.setdefault(each.reason, []).append(f"{each.variant} with {each.item}")
    return [f"Not possible: {', '.join(who)}: {reason}." for reason, who in groups.items()]


#: What the error of a single seed is taken over.
OVER = "its samples (FID and IS: bootstrap) or over the test images (bits/dim)"


def spread_lines(records: Iterable[Record], over: str = OVER) -> list[str]:
    """Return the explanation of the errors that the table shows."""
    cells = [record.cell for record in records if record.cell.mean is not None]
    lines = []
    if any(cell.sd is not None for cell in cells):
        lines.append("a ± b: mean and standard deviation over seeds.")
    if any(cell.sd is None and cell.se is not None for cell in cells):
        lines.append(f"a (b): one seed, and the standard error over {over}.")
    return lines


def mark_lines(records: Iterable[Record], metrics: Metrics, among: str = "its column") -> list[str]:
    """Return the floors of a table, and the explanation of its marks; a best cell is the best of ``among``."""
    numbers = [record for record in records if record.cell.mean is not None]
    floors: dict[str, None] = {}
    for record in numbers:
        floor, protocol = record.cell.floor, record.cell.protocol or {}
        if floor is not None:
            drawn = protocol.get("floors", {}).get("redraws", "several")
            shown = plain(floor * metrics[record.metric].scale)
            floors[
                f"{metrics[record.metric].head} {shown} (N = {record.cell.images}, {drawn} redraws)"
            ] = None
    lines = []
    if floors:
        lines.append(
            f"Floors, the mean and twice the standard deviation of real images' scores: {', '.join(floors)}."
        )
    if any(record.cell.at_floor for record in numbers):
        lines.append(
            f"{AT_FLOOR} at the floor: the lower end of its 95 % interval lies under the floor, so real images "
            "might have scored it; it says nothing about quality and is not ranked."
        )
    if any(record.cell.best for record in numbers):
        lines.append(
            f"{BEST} the best of {among} among trained models above the floor; claims say whether it is better than "
            "the next."
        )
    return lines
