"""What a plan notes without refusing it: what is left out, what is the same twice, what this machine lacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from diffbench.plan import devices, pictures
from diffbench.plan.jobs import Plan
from diffbench.specs.base import Spec


def remarks(plan: Plan) -> Iterator[str]:
    """Yield the remarks on a plan, a line each."""
    if remark := devices.remark(plan.benchmark.device):
        yield remark
    yield from plan.located.notes
    yield from pictures.remarks(plan.located.here)
    for refusal in plan.refusals:
        yield f"{refusal.variant}: {refusal.item} is left out: {refusal.reason}"
    for name, variant in plan.variants.items():
        if variant.training is not None and (note := variant.training.note):
            yield f"{name}, training: {note}"
        for item, solver in variant.solvers.items():
            if variant.process is not None and (note := solver.note(variant.process)):
                yield f"{name}, {item}: {note}"
        for items in (variant.solvers, variant.likelihoods, variant.restorers, variant.analyses):
            for item, other in same(items):
                yield f"{name}: {item} is the same as {other}, and is computed again"


def same(items: Mapping[str, Spec]) -> Iterator[tuple[str, str]]:
    """Yield the ids of items that are the same as an earlier one, with that one's."""
    first: dict[str, str] = {}
    for item, spec in items.items():
        known = first.setdefault(spec.canonical(), item)
        if known != item:
            yield item, known
