"""Concerns about the numbers of an export: what someone should look at before they believe them.

    error      a job failed
    warning    a number that is not likely to be right, or that cannot be compared with its neighbours
    note       a number that says less than it seems to

A concern is no proof.  Each names its cell and says what was expected.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from diffbench.reporting import inference
from diffbench.reporting.cells import DASH, Cell
from diffbench.reporting.exports import Export, lines
from diffbench.reporting.formats import Grid
from diffbench.reporting.numbers import plain

K = TypeVar("K")
Severity = Literal["error", "warning", "note"]
#: By how much the time of an evaluation, or of a training step's image, may differ from that of its siblings.
SLOWER = 5.0
#: By how much the calls of the network may differ between models with the same solver.
MORE_CALLS = 5.0
#: The fewest siblings whose median is compared with.
SIBLINGS = 4
#: The fewest seeds of which one can be said to be unlike the others: of two others the deviation says next to nothing.
SEEDS = 4
SECONDS, TRAINED = "sample_seconds", "train_seconds"


@dataclass(frozen=True)
class Concern:
    """What someone should look at: how severe it is, in which cell, and what was expected."""

    severity: Severity
    cell: str
    message: str


Rows = Sequence[Mapping[str, Any]]


def concerns(export: Export) -> list[Concern]:
    """Return all concerns about an export, the most severe first."""
    order = ("error", "warning", "note")
    rows = lines(export.frame)
    found = [each for rule in RULES for each in rule(export, rows)]
    return sorted(found, key=lambda each: order.index(each.severity))


def jobs(rows: Rows) -> dict[tuple[str, str, str, int], Mapping[str, Any]]:
    """Return a row of each job (variant, stage, item, seed): one without a number, where it has such a row."""
    found: dict[tuple[str, str, str, int], Mapping[str, Any]] = {}
    for row in rows:
        key = row["variant"], row["stage"], row["item"], row["seed"]
        # The time of samples may be there, and their scores not.
        if key not in found or row["status"] != "ok":
            found[key] = row
    return found


def _unfinished(export: Export, rows: Rows) -> Iterator[Concern]:
    """Jobs without numbers: which, with which seeds, and why."""
    found = jobs(rows)
    bad: dict[tuple[str, str, str, str, str], list[int]] = defaultdict(list)
    for (variant, stage, item, seed), row in found.items():
        if row["status"] != "ok":
            bad[variant, stage, item, row["status"], row["reason"]].append(seed)
    for (variant, stage, item, status, reason), seeds in bad.items():
        said = f"{status}, seed {', '.join(map(str, seeds))}{f': {reason}' if reason else ''}"
        yield Concern(
            "error" if status == "failed" else "warning", _named(variant, stage, item), said
        )
    if bad:
        count = sum(map(len, bad.values()))
        share = f"{plain(100 * count / len(found), 2)} %"
        yield Concern("note", "all", f"{count} of {len(found)} jobs have no numbers ({share})")


def _outside_the_controls(export: Export, rows: Rows) -> Iterator[Concern]:
    """Scores of samples worse than noise, or better than real images, by more than their standard errors allow."""
    kinds = _controls(export)
    scores = {
        key: cell
        for key, cell in export.cells.items()
        if key[1] == "sample" and cell.mean is not None
    }
    for metric, known in export.about["metrics"].items():
        found = {key: cell for key, cell in scores.items() if key[3] == metric}
        better = known.get("better") if known.get("ranks") else None
        sign = {"lower": 1, "higher": -1, None: 0}[better]
        spans = {
            kind: [cell for key, cell in found.items() if kinds.get(key[0]) == kind]
            for kind in ("noise", "split")
        }
        if not sign or not all(spans.values()):
            continue
        noise = max(spans["noise"], key=lambda cell: sign * (cell.mean or 0.0))
        real = min(spans["split"], key=lambda cell: sign * (cell.mean or 0.0))
        for (variant, stage, item, _), cell in found.items():
            name = f"{_named(variant, stage, item)} {metric}"
            if variant in kinds:
                continue
            if sign * _beyond(cell, noise) > 0:
                said = f"{_mean(cell)} is worse than noise, {_mean(noise)}"
                yield Concern("warning", name, said)
            elif sign * _beyond(cell, real) < 0:
                said = f"{_mean(cell)} is better than real images, {_mean(real)}"
                yield Concern("note", name, said)


def _mean(cell: Cell) -> str:
    return DASH if cell.mean is None else plain(cell.mean)


def _beyond(cell: Cell, limit: Cell) -> float:
    """Return by how much a number differs from another beyond the 95 % interval of the difference; 0 within it."""
    assert cell.mean is not None and limit.mean is not None
    apart = cell.mean - limit.mean
    half = inference.half_width_of_one(((cell.se or 0.0) ** 2 + (limit.se or 0.0) ** 2) ** 0.5)
    return math.copysign(max(abs(apart) - half, 0.0), apart)


def _unlike_its_siblings(export: Export, rows: Rows) -> Iterator[Concern]:
    """Seconds of an evaluation far from the median of all samples; calls that differ between seeds or models."""
    networks = {name for name, spec in export.about["variants"].items() if spec.get("network")}
    rates: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    calls: dict[tuple[str, str, str], set[float]] = defaultdict(set)
    known = {
        (row["variant"], row["item"], row["seed"]): row["nfe"] * row["samples"]
        for row in _good(rows, "sample")
        if row["nfe"] > 0
    }
    for row in _good(rows, "sample"):
        key = row["variant"], row["stage"], row["item"]
        if row["nfe"] > 0:
            calls[key].add(row["nfe"])
        work = known.get((row["variant"], row["item"], row["seed"]))
        if row["metric"] == SECONDS and work and row["variant"] in networks:
            rates[key].append(row["value"] / work)
    for key, times in _apart(rates, SLOWER).items():
        said = f"an evaluation took {plain(times, 2)} times the median of all samples"
        yield Concern("warning", _named(*key), said)
    solvers: dict[str, dict[tuple[str, str, str], list[float]]] = defaultdict(dict)
    for key, found in calls.items():
        solvers[key[2]][key] = list(found)
        if max(found) > 2 * min(found):
            said = f"{min(found):g} to {max(found):g} calls of the network, by seed"
            yield Concern("note", _named(*key), said)
    for item, each in solvers.items():
        for key, times in _apart(each, MORE_CALLS).items():
            said = f"{plain(times, 2)} times as many calls of the network as the median of {item}"
            yield Concern("warning", _named(*key), said)


def _slow_trainings(export: Export, rows: Rows) -> Iterator[Concern]:
    """Trainings whose time for an image is far from the median of all trainings."""
    budgets = {
        name: spec["training"]["steps"] * spec["training"]["batch"]
        for name, spec in export.about["variants"].items()
        if spec.get("training")
    }
    rates: dict[str, list[float]] = defaultdict(list)
    for row in _good(rows, "train"):
        if row["metric"] == TRAINED and row["variant"] in budgets:
            rates[row["variant"]].append(row["value"] / budgets[row["variant"]])
    for variant, times in _apart(rates, SLOWER).items():
        said = f"an image took {plain(times, 2)} times the median of all trainings"
        yield Concern("warning", f"{variant} train", said)


def _apart(values: Mapping[K, Sequence[float]], most: float) -> dict[K, float]:
    """Return siblings whose median is more than ``most`` times that of all, or less than its inverse, with the ratio.

    There are none where there are fewer than ``SIBLINGS``.
    """
    middle = {key: statistics.median(each) for key, each in values.items()}
    if len(middle) < SIBLINGS or not (usual := statistics.median(middle.values())):
        return {}
    times = {key: each / usual for key, each in middle.items()}
    return {key: each for key, each in times.items() if not 1 / most <= each <= most}


def _one_seed_unlike_the_others(export: Export, rows: Rows) -> Iterator[Concern]:
    """A seed outside what the others predict, by Student's t over the others, adjusted for all seeds of all cells."""
    values: dict[tuple[str, str, str, str], dict[int, float]] = defaultdict(dict)
    for row in _good(rows):
        if not row["metric"].endswith("_seconds"):
            key = row["variant"], row["stage"], row["item"], row["metric"]
            values[key][row["seed"]] = row["value"]
    tests = {
        (key, seed): inference.outlier(value, [each for s, each in found.items() if s != seed])
        for key, found in values.items()
        if len(found) >= SEEDS
        for seed, value in found.items()
    }
    for (key, seed), p in inference.holm(tests).items():
        if p <= inference.LEVEL:
            others = [plain(value) for s, value in sorted(values[key].items()) if s != seed]
            said = f"seed {seed} has {plain(values[key][seed])}, the others {', '.join(others)}"
            yield Concern("warning", f"{_named(*key[:3])} {key[3]}", said)


def _at_the_floor(export: Export, rows: Rows) -> Iterator[Concern]:
    """Cells that real images might have scored, together for each metric and floor; not of controls."""
    controls = _controls(export)
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (variant, stage, item, metric), cell in export.cells.items():
        if variant in controls or cell.mean is None or cell.floor is None:
            continue
        if cell.at_floor:
            shown = f"{_named(variant, stage, item)} ({plain(cell.mean)})"
            found[metric, plain(cell.floor)].append(shown)
    for (metric, floor), cells in found.items():
        said = f"at the floor, {floor}, so that they say nothing about quality: {', '.join(cells)}"
        yield Concern("note", metric, said)


def _several_protocols(export: Export, rows: Rows) -> Iterator[Concern]:
    """Numbers of one column that were measured in several ways, or over several numbers of images; not of controls.

    A column has one metric: of all samples, of the restorations of one task, of one likelihood or one analysis.
    """
    controls = _controls(export)
    for column, what in (("protocol", "protocols"), ("samples", "numbers of samples")):
        held: dict[str, dict[str, str]] = defaultdict(dict)
        for row in _good(rows):
            if row["variant"] not in controls and not row["metric"].endswith("_seconds"):
                shown = f"{row[column]:g}" if isinstance(row[column], float) else row[column]
                # The precision of a network is its variant's own.
                shown = shown.partition(", network in ")[0]
                name = _named(row["variant"], row["stage"], row["item"])
                part = "" if row["stage"] == "sample" else f"{row['item'].partition('/')[0]} "
                held[f"{part}{row['metric']}"].setdefault(shown, name)
        metrics: dict[str, list[str]] = defaultdict(list)
        for metric, found in held.items():
            if len(found) > 1:
                said = "; ".join(f"{cell}: {value or 'none'}" for value, cell in found.items())
                metrics[f"{len(found)} {what} in one column: {said}"].append(metric)
        for said, names in metrics.items():
            yield Concern("warning", ", ".join(names), said)


def _other_published_values(export: Export, rows: Rows) -> Iterator[Concern]:
    """Rows of ``config/published.csv`` that are not as the package has them: added, changed or missing."""
    for each in export.about.get("published", ()):
        severity: Severity = "note" if each["what"] == "added" else "warning"
        yield Concern(severity, f"published.csv: {each['row']}", f"{each['what']}: {each['said']}")


Rule = Callable[[Export, Rows], Iterator[Concern]]
RULES: tuple[Rule, ...] = (
    _unfinished,
    _outside_the_controls,
    _unlike_its_siblings,
    _slow_trainings,
    _one_seed_unlike_the_others,
    _several_protocols,
    _at_the_floor,
    _other_published_values,
)


def _good(rows: Rows, stage: str = "") -> Iterator[Mapping[str, Any]]:
    """Yield the rows with a number, of one stage where it is named."""
    for row in rows:
        if row["status"] == "ok" and row["value"] == row["value"] and stage in ("", row["stage"]):
            yield row


def _controls(export: Export) -> dict[str, str]:
    """Return the kind of each control."""
    variants = export.about["variants"].items()
    return {name: spec["control"]["name"] for name, spec in variants if spec.get("control")}


def _named(variant: str, stage: str, item: str) -> str:
    return f"{variant} {item or stage}"


def grid(found: Sequence[Concern]) -> Grid:
    """Return concerns as a grid for people."""
    rows = [[each.severity, each.cell, each.message] for each in found]
    return Grid(["severity", "cell", "what"], rows, labels=3)
