"""What a spec needs of the process, the denoiser and the operator that it is used with.

A plan offers a process and, as far as they are known, a denoiser and an operator.  The class of a spec states its
``needs``; those of its base classes are checked after its own.  The first need that is not met is the reason why the
plan refuses the spec: one line, which a user reads in a footnote.

Most needs are facts, listed here with the reason for each.  ``where`` restricts a need to some values of a key.  A need
that is decided by numbers, or that belongs to one class only, is a ``Rule``:

    needs = (GAUSSIAN, view("x0"), LEARNED.where("variance", "learned"), Rule(steps_are_short))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from diffbench.specs.base import Spec

if TYPE_CHECKING:
    from diffbench.specs.denoisers import DenoiserSpec
    from diffbench.specs.operators import OperatorSpec
    from diffbench.specs.processes import ProcessSpec


class Offer(NamedTuple):
    """What a spec is to be used with; a part is None where it is not known or does not exist."""

    process: ProcessSpec | None = None
    denoiser: DenoiserSpec | None = None
    operator: OperatorSpec | None = None


Part = Literal["process", "denoiser", "operator"]


@dataclass(frozen=True)
class Need:
    """A fact that must hold for one part of an offer; it is not checked where the part is None.

    about: the name of the part.
    holds: a function that says whether the fact holds for a part.
    reason: what a user reads where it does not, with ``{asker}`` for what needs the fact and ``{it}`` for the part.
    hint: what would be right; it follows the reason.
    key, values: the need is checked only where this attribute of the spec has one of these values; without values,
        where it is not None.
    """

    about: Part
    holds: Callable[[Any], bool]
    reason: str
    hint: str = ""
    key: str = ""
    values: tuple[object, ...] = ()

    def where(self, key: str, *values: object) -> Need:
        """Return this need, restricted to some values of a key; without values, to any value but None."""
        return replace(self, key=key, values=values)

    def hinting(self, hint: str) -> Need:
        """Return this need with a hint."""
        return replace(self, hint=hint)

    def unmet(self, spec: HasNeeds, offer: Offer) -> str | None:
        """Return why the offer does not meet the need; None when it does."""
        it = getattr(offer, self.about)
        if it is None or not self._is_asked_by(spec) or self.holds(it):
            return None
        reason = self.reason.format(asker=self._asker(spec), it=it)
        return f"{reason}; {self.hint}" if self.hint else reason

    def _is_asked_by(self, spec: HasNeeds) -> bool:
        if not self.key:
            return True
        value = getattr(spec, self.key)
        return value in self.values if self.values else value is not None

    def _asker(self, spec: HasNeeds) -> str:
        if not self.key:
            return spec.asker.format(spec)
        value = getattr(spec, self.key)
        told = f"{value:g}" if isinstance(value, float) else str(value)
        return f"{self.key}: {told.lower() if isinstance(value, bool) else told}"


@dataclass(frozen=True)
class Rule:
    """A need that is decided by numbers, or that belongs to one class only.

    ask: a function of the spec and of parts of the offer that returns a reason, or None where the need is met.
    about: the names of these parts; the rule is not checked where the first of them is None.
    """

    ask: Callable[..., str | None]
    about: tuple[Part, ...] = ("process",)

    def unmet(self, spec: HasNeeds, offer: Offer) -> str | None:
        """Return why the offer does not meet the need; None when it does."""
        parts = [getattr(offer, each) for each in self.about]
        return None if parts and parts[0] is None else self.ask(spec, *parts)


Needs = tuple[Need | Rule, ...]


class HasNeeds(Spec):
    """A spec that has needs, and is refused where one is not met."""

    #: The needs of this class; those of its base classes are checked too.
    needs: ClassVar[Needs] = ()
    #: The words in a reason for what has the needs; ``{0}`` is the spec.
    asker: ClassVar[str] = "{0.name}"

    def refusal(
        self,
        process: ProcessSpec | None = None,
        denoiser: DenoiserSpec | None = None,
        operator: OperatorSpec | None = None,
    ) -> str | None:
        """Return why this cannot serve what is offered; None when it can, as far as that is known."""
        return first_unmet(self.all_needs(), self, Offer(process, denoiser, operator))

    @classmethod
    def all_needs(cls) -> Iterable[Need | Rule]:
        """Return the needs of this class, then those of its base classes."""
        return (need for each in cls.__mro__ for need in vars(each).get("needs", ()))


def first_unmet(needs: Iterable[Need | Rule], spec: HasNeeds, offer: Offer) -> str | None:
    """Return the reason of the first need that an offer does not meet; None when it meets all."""
    reasons = (need.unmet(spec, offer) for need in needs)
    return next((reason for reason in reasons if reason), None)


def inside(key: str, *about: Part, called: str = "") -> Rule:
    """Return the rule that these parts serve the spec under a key; ``called`` is the key in its reason."""

    def ask(spec: HasNeeds, *parts: Any) -> str | None:
        inner = getattr(spec, key)
        reason = None if inner is None else inner.refusal(*parts)
        return under(called or key, inner, reason) if reason else None

    return Rule(ask, about)


def under(key: str, inner: Spec, reason: str) -> str:
    """Return the reason of a spec with its key before it: for ``solver``, ``solver.steps: ..`` or ``solver: ..``."""
    named = reason.partition(":")[0].partition(".")[0]
    return f"{key}{'.' if named in type(inner).model_fields else ': '}{reason}"


# Needs of a process.

GAUSSIAN = Need(
    "process",
    lambda process: process.family == "gaussian",
    "{asker} needs a Gaussian process, and {it.name} is {it.family}",
)
ONE_ALPHA = Need(
    "process",
    lambda process: process.alpha == "scalar",
    "{asker} divides by alpha, and {it.name} has one alpha per coordinate",
)
#: A process with several alphas has a range of ratios where one alpha represents it: that of blurring, without blur.
ONE_RATIO = replace(
    ONE_ALPHA,
    holds=lambda process: process.alpha == "scalar" or process.ratios is not None,
)
CONTINUOUS = Need(
    "process",
    lambda process: process.time == "continuous",
    "{asker} needs continuous time, and {it.name} has integer times",
)
LEVELS = Need(
    "process",
    lambda process: process.time == "discrete",
    "{asker} needs integer times, and {it.name} is continuous",
)
GROWING = Need(
    "process",
    lambda process: process.noise == "growing",
    "{asker} needs noise that grows, and {it.name}'s is constant",
)
#: These two reasons do not name the process, so that one footnote serves all processes.
CONSTANT = Need(
    "process",
    lambda process: process.noise == "constant",
    "{asker} needs constant noise, and the noise of {it.name} grows",
)
KERNEL = Need(
    "process",
    lambda process: process.bounded,
    "{asker} follows the kernel between walls, and {it.name} has no walls",
)
WALLS = Need(
    "process", lambda process: process.bounded, "{asker} needs walls, and {it.name} has none"
)


def view(name: str) -> Need:
    """Return the need that a prediction has a view."""
    return Need(
        "process",
        lambda process: name in process.views,
        f"{{asker}} needs the view {name}, and {{it.name}} has no {name}: {{it.viewless}}",
    )


def sde(growing: str, constant: str) -> tuple[Need, Need]:
    """Return the needs that there is an SDE, and so an ODE.

    Args:
        growing: what to use instead where noise grows.
        constant: what to use instead where noise is constant.
    """

    def lacking(noise: str, instead: str) -> Need:
        return Need(
            "process",
            lambda process: process.time == "continuous" or process.noise != noise,
            "integer times have no SDE or ODE",
            f"use {instead}",
        )

    return lacking("growing", growing), lacking("constant", constant)


# Needs of a denoiser.

LEARNED = Need(
    "denoiser",
    lambda denoiser: denoiser.learns_variance,
    "{asker} needs denoiser.variance: learned",
)
LABELS = Need(
    "denoiser",
    lambda denoiser: denoiser.takes_labels,
    "{asker} needs denoiser.conditional: true, and this model is unconditional",
)
MASKS = Need(
    "denoiser",
    lambda denoiser: denoiser.takes_masks,
    "{asker} needs a model with denoiser.masks: true",
)

# Needs of an operator.

LINEAR = Need(
    "operator",
    lambda operator: operator.linear,
    "{asker} needs a linear operator, and {it.name} is not linear",
)
PIXELS = Need(
    "operator",
    lambda operator: operator.masks_pixels,
    "{asker} needs a mask of pixels, not {it.name}",
)
