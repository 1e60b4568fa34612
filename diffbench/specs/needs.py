"""What a spec needs of what it is used with, and the one function that asks.

A plan offers a process and, as far as they are known, a denoiser and an operator.  The class of a spec states
``needs``; those of its bases are asked after its own.  The first that is not met is why the plan refuses the spec: one
line, which a user reads in a footnote.

Most needs are facts, listed here with the reason for each.  ``where`` asks one for some values of a key alone, and what
takes numbers to decide, or belongs to one class alone, is a ``Rule``:

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
    """What a spec is to be used with; None for what is not known, or not there."""

    process: ProcessSpec | None = None
    denoiser: DenoiserSpec | None = None
    operator: OperatorSpec | None = None


Part = Literal["process", "denoiser", "operator"]


@dataclass(frozen=True)
class Need:
    """A fact that must hold of one part of an offer.  It is not asked where that part is None.

    about: the part.
    holds: whether the fact holds of it.
    reason: what a user reads where it does not, with ``{asker}`` for who needs it and ``{it}`` for the part.
    hint: what would be right, said after the reason.
    key, values: asked only where this attribute of the spec has one of these values, or is not None if there are none.
    """

    about: Part
    holds: Callable[[Any], bool]
    reason: str
    hint: str = ""
    key: str = ""
    values: tuple[object, ...] = ()

    def where(self, key: str, *values: object) -> Need:
        """The same need of a key alone: of some of its values, or of any but None."""
        return replace(self, key=key, values=values)

    def hinting(self, hint: str) -> Need:
        """The same need with a hint."""
        return replace(self, hint=hint)

    def unmet(self, spec: HasNeeds, offer: Offer) -> str | None:
        """Why the offer does not meet the need; None when it does."""
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
    """A need that takes numbers to decide, or that belongs to one class alone.

    ask: from the spec and parts of the offer to a reason; None where the need is met.
    about: those parts.  It is not asked where the first of them is None.
    """

    ask: Callable[..., str | None]
    about: tuple[Part, ...] = ("process",)

    def unmet(self, spec: HasNeeds, offer: Offer) -> str | None:
        """Why the offer does not meet the need; None when it does."""
        parts = [getattr(offer, each) for each in self.about]
        return None if parts and parts[0] is None else self.ask(spec, *parts)


Needs = tuple[Need | Rule, ...]


class HasNeeds(Spec):
    """A spec that may be refused."""

    #: Its own; those of its bases are asked too.
    needs: ClassVar[Needs] = ()
    #: Who needs them, in a reason; ``{0}`` is the spec.
    asker: ClassVar[str] = "{0.name}"

    def refusal(
        self,
        process: ProcessSpec | None = None,
        denoiser: DenoiserSpec | None = None,
        operator: OperatorSpec | None = None,
    ) -> str | None:
        """Why this cannot serve what is offered; None when it can, as far as that is known."""
        return first_unmet(self.all_needs(), self, Offer(process, denoiser, operator))

    @classmethod
    def all_needs(cls) -> Iterable[Need | Rule]:
        """Its own needs, then those of its bases."""
        return (need for each in cls.__mro__ for need in vars(each).get("needs", ()))


def first_unmet(needs: Iterable[Need | Rule], spec: HasNeeds, offer: Offer) -> str | None:
    """The reason of the first need that an offer does not meet; None when it meets all."""
    reasons = (need.unmet(spec, offer) for need in needs)
    return next((reason for reason in reasons if reason), None)


def inside(key: str, *about: Part, called: str = "") -> Rule:
    """What the spec under a key needs of these parts; a reason begins with the key, as users call it."""

    def ask(spec: HasNeeds, *parts: Any) -> str | None:
        inner = getattr(spec, key)
        reason = None if inner is None else inner.refusal(*parts)
        return under(called or key, inner, reason) if reason else None

    return Rule(ask, about)


def under(key: str, inner: Spec, reason: str) -> str:
    """The reason of a spec that stands under a key: of ``solver``, ``solver.steps: ..`` or ``solver: ..``."""
    named = reason.partition(":")[0].partition(".")[0]
    return f"{key}{'.' if named in type(inner).model_fields else ': '}{reason}"


# Of a process.

GAUSSIAN = Need(
    "process",
    lambda process: process.family == "gaussian",
    "{asker} needs a Gaussian process, and {it.name} is {it.family}",
)
ONE_ALPHA = Need(
    "process",
    lambda process: process.alpha == "scalar",
    "{asker} divides by alpha, which {it.name} has one of per coordinate",
)
#: Of several alphas one may stand for the process (blurring's, without the blur): then it has a range of ratios.
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
#: The process is not named in these two: one footnote serves all that lack it.
CONSTANT = Need(
    "process",
    lambda process: process.noise == "constant",
    "{asker} is of blur under constant noise, and here noise grows",
)
KERNEL = Need(
    "process",
    lambda process: process.bounded,
    "{asker} follows the kernel between walls, and here are none",
)
WALLS = Need(
    "process", lambda process: process.bounded, "{asker} needs walls, and {it.name} has none"
)


def view(name: str) -> Need:
    """That a prediction has a view."""
    return Need(
        "process",
        lambda process: name in process.views,
        f"{{asker}} needs the view {name}, and {{it.name}} has no {name}: {{it.viewless}}",
    )


def sde(growing: str, constant: str) -> tuple[Need, Need]:
    """That there is an SDE, hence an ODE; and what to use instead where noise grows, or is constant."""

    def lacking(noise: str, instead: str) -> Need:
        return Need(
            "process",
            lambda process: process.time == "continuous" or process.noise != noise,
            "integer times have no SDE or ODE",
            f"use {instead}",
        )

    return lacking("growing", growing), lacking("constant", constant)


# Of a denoiser.

LEARNED = Need(
    "denoiser",
    lambda denoiser: denoiser.learns_variance,
    "{asker} needs denoiser.variance: learned",
)
LABELS = Need(
    "denoiser",
    lambda denoiser: denoiser.takes_labels,
    "{asker} is asked of an unconditional model; it needs denoiser.conditional: true",
)
MASKS = Need(
    "denoiser",
    lambda denoiser: denoiser.takes_masks,
    "{asker} needs a model with denoiser.masks: true",
)

# Of an operator.

LINEAR = Need(
    "operator",
    lambda operator: operator.linear,
    "{asker} needs a linear operator, and {it.name} is not",
)
PIXELS = Need(
    "operator",
    lambda operator: operator.masks_pixels,
    "{asker} needs a mask of pixels, not {it.name}",
)
