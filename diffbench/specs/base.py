"""What every specification shares: strict, frozen, torch-free pydantic models.

A *spec* is the complete description of one thing the benchmark can build: a process, a solver, a
training run.  Defaults live here and nowhere else.  Unknown keys are refused; numbers are finite, are
never booleans, and may be written ``1e-4`` or ``1e2`` whatever YAML makes of them; "nothing" is written
``none``.

A *registered* spec also has a ``name`` under which configuration files choose it, a ``kind`` (process,
solver, ...) and the class it describes, as ``"module:Class"``, imported only when it is built.
Defining the subclass registers it, so an extension file needs no further call.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, ClassVar, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

#: The largest whole number: arrays, tables and files keep 64 bits.
LARGEST_INT = 2**63 - 1
#: Numbers meet float32, whose largest is (2 - 2^-23) 2^127, and whose smallest above 0 is 2^-149.
LARGEST_FLOAT, SMALLEST_FLOAT = (2 - 2.0**-23) * 2.0**127, 2.0**-149
#: The most steps of a solver or levels of a process.  A step evaluates the network, in 0.1 ms at best: a million take
#: minutes for each chunk of images.  The longest of the papers has 4,000.
MOST_STEPS = 10**6
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def number(value: object) -> object:
    """Turn ``"1e-4"`` into a number; refuse booleans, nan and infinities."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {str(value).lower()}")
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value.strip()):
            raise ValueError(f"must be a finite number, not {value!r}")
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"must be a finite number, not {value}")
    return value


def whole(value: object) -> object:
    """Turn ``"1e3"`` into a number that 64 bits hold."""
    value = number(value)
    if isinstance(value, int | float) and abs(value) > LARGEST_INT:
        raise ValueError("must be below 2^63 (9.2e18)")
    return value


def real(value: object) -> object:
    """Turn ``"1e-4"`` into a number that float32 holds."""
    value = number(value)
    if isinstance(value, int | float) and value and abs(value) > LARGEST_FLOAT:
        raise ValueError("must be at most 3.4e38, the largest number of float32")
    if isinstance(value, int | float) and value and abs(value) < SMALLEST_FLOAT:
        raise ValueError("is 0 in float32, whose smallest number is 1.4e-45")
    return value


def nothing(value: object) -> object:
    """Turn the configuration's word for nothing, ``none``, into None."""
    return None if value == "none" else value


Int = Annotated[int, BeforeValidator(whole)]
PositiveInt = Annotated[Int, Field(gt=0)]
NonNegativeInt = Annotated[Int, Field(ge=0)]
StepCount = Annotated[PositiveInt, Field(le=MOST_STEPS)]
LevelCount = Annotated[Int, Field(ge=2, le=MOST_STEPS)]
#: The most images that are computed at a time.  The smallest, 8 x 8 numbers of float32, have 256 bytes, and a layer of
#: 64 channels has 16,384 bytes of each: of 2^20 images one layer has 17 GB, and a network keeps several.
MOST_TOGETHER = 2**20
TogetherCount = Annotated[PositiveInt, Field(le=MOST_TOGETHER)]
Float = Annotated[float, BeforeValidator(real), Field(allow_inf_nan=False)]
PositiveFloat = Annotated[Float, Field(gt=0)]
NonNegativeFloat = Annotated[Float, Field(ge=0)]
Fraction = Annotated[Float, Field(ge=0, le=1)]


class Only(NamedTuple):
    """A key that has an effect only beside one of some values of another key.

    values: the other's values; without values, all but None, 0, false and what is empty.
    words: what users write to have one of these values, where the other is not a key.
    """

    key: str
    beside: str
    values: tuple[object, ...] = ()
    words: str = ""

    def holds(self, spec: Spec) -> bool:
        """Return whether the other key has such a value."""
        value = getattr(spec, self.beside)
        return value in self.values if self.values else bool(value)

    def reason(self, spec: Spec) -> str:
        """Return why the key's value has no effect, in one line."""
        value, wanted = _told(getattr(spec, self.key)), " or ".join(map(_told, self.values))
        lacking = f"{self.beside}: {wanted}" if wanted else self.beside
        here = f"{lacking}, and {self.beside} is {_told(getattr(spec, self.beside))}"
        return (
            f"{self.key}: {value} has no effect without {self.words or here}; leave {self.key} out"
        )


class OnlyFor(NamedTuple):
    """A key that has an effect only for some processes, in the spec of a variant that has one.

    holds: a function of the process's spec that says whether the key has an effect.
    words: what these processes are.
    """

    key: str
    holds: Callable[[Any], bool]
    words: str

    def reason(self, spec: Spec, process: Any) -> str:
        """Return why the key's value has no effect, in one line."""
        value = _told(getattr(spec, self.key))
        here = f"with process: {process.name}, only with {self.words}"
        return f"{self.key}: {value} has no effect {here}; leave {self.key} out"


def _told(value: object) -> str:
    """Return a value as users write it; of a list or a mapping its size."""
    if value is None:
        return "none"
    if isinstance(value, list | tuple | dict):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    return f"{value:g}" if isinstance(value, float) else str(value)


class Spec(BaseModel):
    """A frozen model that refuses keys it does not know."""

    #: Keys of this class that have an effect only beside others, or for some processes; those of its base classes count
    #: too.
    belonging: ClassVar[tuple[Only | OnlyFor, ...]] = ()

    # A model's checks are made when it is first used: most of the specs are not used by a command.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    def dependent(self, process: Any = None) -> Iterator[tuple[str, list[str], str | None]]:
        """Yield each key in ``belonging`` that is not at its default, the keys on which it depends, and a reason.

        The reason says why it has no effect; None where it has one.  A key that is there several times has an effect
        where all of them hold.

        Args:
            process: the spec of the variant's process, if there is one.
        """
        rules: dict[str, list[Only | OnlyFor]] = {}
        for each in (
            rule for kind in type(self).__mro__ for rule in vars(kind).get("belonging", ())
        ):
            rules.setdefault(each.key, []).append(each)
        for key, found in rules.items():
            if getattr(self, key) != type(self).model_fields[key].get_default():
                reasons = (self._idle(each, process) for each in found)
                others = [each.beside for each in found if isinstance(each, Only)]
                yield key, others, next(filter(None, reasons), None)

    def _idle(self, rule: Only | OnlyFor, process: Any) -> str | None:
        if isinstance(rule, Only):
            return None if rule.holds(self) else rule.reason(self)
        if process is None or rule.holds(process):
            return None
        return rule.reason(self, process)

    def canonical(self) -> str:
        """Return this spec as JSON with sorted keys: the same text for the same spec, on any machine."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def digest(self) -> str:
        """Return the first 16 hexadecimal digits of the SHA-256 of the canonical text."""
        return digest_of(self.canonical())

    @classmethod
    def read(cls, text: str) -> Self:
        """Parse a spec from its JSON text."""
        return cls.model_validate_json(text)


def digest_of(canonical: str) -> str:
    """Return the digest of the spec that has this canonical text."""
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


#: Old methods that extensions may still have -> what replaces them.
MOVED = {
    "operator_refusal": "needs",
    "model_refusal": "needs",
    "walls_refusal": "needs",
    "view_refusal": "views",
    "chain_refusal": "chain_rate",
    "scale_refusal": "langevin_rate",
}


class Registered(Spec):
    """A spec that configuration files choose by name.

    A direct subclass is a *kind* (``ProcessSpec``); its subclasses, each with a ``name`` field of one
    literal value, are the choices.  ``default_name`` is taken where a mapping gives no name.  A kind that uses another
    field than ``name`` says so in ``chosen_by``.
    """

    kind: ClassVar[str]
    chosen_by: ClassVar[str] = "name"
    default_name: ClassVar[str | None] = None
    implementation: ClassVar[str | type]
    known: ClassVar[dict[str, type[Registered]]]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if moved := [name for name in MOVED if name in vars(cls)]:
            raise TypeError(
                f"{cls.__name__}.{moved[0]} is not used any more: state {MOVED[moved[0]]}"
            )
        if Registered in cls.__bases__:
            cls.known = {}
        elif isinstance(name := cls.model_fields[cls.chosen_by].default, str):
            if name in cls.known and cls.known[name].__qualname__ != cls.__qualname__:
                raise ValueError(
                    f"two classes of the kind {cls.kind} have the name {name!r}: {cls.known[name]}"
                )
            cls.known[name] = cls

    @classmethod
    def choose(cls, value: Any) -> Any:
        """Return the spec of this kind that a name or a mapping chooses; a spec is returned as it is.

        Raises:
            ValueError: when the mapping has no name, or one that is not registered.
        """
        if isinstance(value, Registered):
            return value
        name = value.get(cls.chosen_by, cls.default_name) if isinstance(value, dict) else value
        if not isinstance(name, str) or name not in cls.known:
            raise ValueError(
                f"{name!r} is not a known {cls.kind}; known: {', '.join(sorted(cls.known))}"
            )
        return cls.known[name].model_validate(
            value if isinstance(value, dict) else {cls.chosen_by: name}
        )
