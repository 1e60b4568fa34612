"""Concerns about the numbers of an export: what someone should look at before they believe them.

    error      a job failed
    warning    a number that is not likely to be right, or that cannot be compared with its neighbours
    note       a number that says less than it seems to

A concern is no proof.  Each names its cell and says what was expected.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from diffbench.reporting import inference
from diffbench.reporting.cells import cells_of
from diffbench.reporting.exports import Export, lines
from diffbench.reporting.formats import Grid
from diffbench.reporting.numbers import plain

Severity = Literal["error", "warning", "note"]
#: By how much the time of an evaluation may differ from that of its siblings.
SLOWER = 5.0
#: The fewest siblings whose median is compared with.
SIBLINGS = 4
#: The fewest seeds of which one can be said to be unlike the others: of two others the deviation says next to nothing.
SEEDS = 4
SECONDS = "sample_seconds"


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
        yield Concern("note", "all", f"{count} of {len(found)} jobs have no numbers")


def _outside_the_controls(export: Export, rows: Rows) -> Iterator[Concern]:
    """Scores of samples worse than noise, or better than real images."""
    kinds = {
        name: spec["control"]["name"]
        for name, spec in export.about["variants"].items()
        if spec.get("control")
    }
    spans: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in _good(rows, "sample"):
        if kinds.get(row["variant"]) in ("noise", "split"):
            spans[row["metric"]][kinds[row["variant"]]].append(row["value"])
    means = _means(row for row in _good(rows, "sample") if row["variant"] not in kinds)
    for (variant, stage, item, metric), value in means.items():
        known = export.about["metrics"].get(metric, {})
        better = known.get("better") if known.get("ranks") else None
        if better is None or not spans[metric]["noise"] or not spans[metric]["split"]:
            continue
        sign = 1 if better == "lower" else -1
        noise = max(sign * each for each in spans[metric]["noise"])
        real = min(sign * each for each in spans[metric]["split"])
        name = f"{_named(variant, stage, item)} {metric}"
        if sign * value > noise:
            yield Concern(
                "warning", name, f"{plain(value)} is worse than noise, {plain(sign * noise)}"
            )
        elif sign * value < real:
            yield Concern(
                "note", name, f"{plain(value)} is better than real images, {plain(sign * real)}"
            )


def _unlike_its_siblings(export: Export, rows: Rows) -> Iterator[Concern]:
    """Seconds of a network's evaluation far from the median of all samples, and calls that differ between seeds."""
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
    middle = {key: statistics.median(each) for key, each in rates.items()}
    if len(middle) >= SIBLINGS:
        usual = statistics.median(middle.values())
        for key, rate in middle.items():
            if not 1 / SLOWER <= rate / usual <= SLOWER:
                times = f"{plain(rate / usual, 2)} times the median of all samples"
                yield Concern("warning", _named(*key), f"an evaluation took {times}")
    for key, found in calls.items():
        if max(found) > 2 * min(found):
            said = f"{min(found):g} to {max(found):g} calls of the network, by seed"
            yield Concern("note", _named(*key), said)


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
    """Cells that real images might have scored, together for each metric and floor."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (variant, stage, item, metric), cell in cells_of(export.frame).items():
        if cell.at_floor and cell.mean is not None and cell.floor is not None:
            shown = f"{_named(variant, stage, item)} ({plain(cell.mean)})"
            found[metric, plain(cell.floor)].append(shown)
    for (metric, floor), cells in found.items():
        said = f"at the floor, {floor}, so that they say nothing about quality: {', '.join(cells)}"
        yield Concern("note", metric, said)


def _several_protocols(export: Export, rows: Rows) -> Iterator[Concern]:
    """Scores of samples that were measured in several ways, or over several numbers of images; not of controls."""
    controls = {name for name, spec in export.about["variants"].items() if spec.get("control")}
    for column, what in (("protocol", "protocols"), ("samples", "numbers of samples")):
        held: dict[str, dict[str, str]] = defaultdict(dict)
        for row in _good(rows, "sample"):
            if row["variant"] not in controls and not row["metric"].endswith("_seconds"):
                shown = f"{row[column]:g}" if isinstance(row[column], float) else row[column]
                # The precision of a network is its variant's own.
                shown = shown.partition(", network in ")[0]
                name = _named(row["variant"], row["stage"], row["item"])
                held[row["metric"]].setdefault(shown, name)
        metrics: dict[str, list[str]] = defaultdict(list)
        for metric, found in held.items():
            if len(found) > 1:
                said = "; ".join(f"{cell}: {value or 'none'}" for value, cell in found.items())
                metrics[f"{len(found)} {what} in one column: {said}"].append(metric)
        for said, names in metrics.items():
            yield Concern("warning", ", ".join(names), said)


Rule = Callable[[Export, Rows], Iterator[Concern]]
RULES: tuple[Rule, ...] = (
    _unfinished,
    _outside_the_controls,
    _unlike_its_siblings,
    _one_seed_unlike_the_others,
    _several_protocols,
    _at_the_floor,
)


def _good(rows: Rows, stage: str = "") -> Iterator[Mapping[str, Any]]:
    """Yield the rows with a number, of one stage where it is named."""
    for row in rows:
        if row["status"] == "ok" and row["value"] == row["value"] and stage in ("", row["stage"]):
            yield row


def _means(rows: Iterator[Mapping[str, Any]]) -> dict[tuple[str, str, str, str], float]:
    """Return the mean over seeds of each cell."""
    found: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    for row in rows:
        found[row["variant"], row["stage"], row["item"], row["metric"]].append(row["value"])
    return {key: statistics.fmean(values) for key, values in found.items()}


def _named(variant: str, stage: str, item: str) -> str:
    return f"{variant} {item or stage}"


def grid(found: Sequence[Concern]) -> Grid:
    """Return concerns as a grid for people."""
    rows = [[each.severity, each.cell, each.message] for each in found]
    return Grid(["severity", "cell", "what"], rows, labels=3)
