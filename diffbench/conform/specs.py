"""The law of all specs: what is stored is what is read."""

from __future__ import annotations

from diffbench.conform.law import demand, law
from diffbench.specs.base import Registered
from diffbench.specs.registry import implementation


@law(Registered, "spec round trip", "read(canonical(spec)) = spec, of the same digest")
def round_trip(spec: Registered) -> None:
    """Results are known by the spec that they store."""
    kind = type(spec)
    again = kind.read(spec.canonical())
    demand(again == spec, f"{spec.canonical()} is read as {again.canonical()}")
    chosen = kind.choose(spec.model_dump(mode="json"))
    demand(chosen.digest() == spec.digest(), f"the digest changes with {chosen.canonical()}")
    if hasattr(spec, "implementation"):
        demand(isinstance(implementation(spec), type), f"{spec.implementation} is not a class")
