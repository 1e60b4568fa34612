"""What a stage is: the spec of one of its jobs, which also says where products lie and what a job needs.

The command line, the plan, the workflow, estimates and tables ask the spec, so a new stage is a spec in this folder and
a module with ``run(spec, root, device_name)`` in ``diffbench/jobs``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any, ClassVar

from diffbench.specs.base import PositiveInt, Spec
from diffbench.specs.data import DataSpec
from diffbench.specs.jobs.asked import Asked
from diffbench.specs.jobs.texts import Texts
from diffbench.specs.weights import OfWeights

#: The folder of one variant with one seed, below that of a benchmark.
RUN = "runs/{variant}/seed{seed}"
#: The folder of all jobs' states, below that of a benchmark.
STATES = Path(".state")


class StageSpec(Spec):
    """One job: its stage, the version of the stage's numerics, and the digests of the extensions that it uses.

    A subclass is a stage, and the first line of its docstring says what a job does.  It may hold the specs of other
    jobs, whose products the job reads, so that one comparison tells whether a product is what the plan now asks for.
    Paths are relative to a benchmark's folder and may have wildcards: ``{variant}``, ``{seed}`` and, say, ``{solver}``,
    whose value is the spec's ``solver_id``.

    Attributes:
        template: the path of the main product.
        extras: paths of outputs without a sidecar, such as pictures.
        temporary: whether the products can be removed once the jobs that read them are done.
        shared: whether several processes can share a job, each with a GPU.
        resumes: whether a job that was stopped goes on where it was, however often.
        spread: whether a job can be spread over others (``parts``), whose products it then gathers.
        partial: whether a job can use the products of a benchmark that has failed.
        priority: of jobs that can start, those of the highest start first: jobs that take long or that many wait for,
            lest a run end with one of them alone.
        numbers: the stage whose products hold the numbers that tables show of a job; empty where there are none.
    """

    known: ClassVar[dict[str, type[StageSpec]]] = {}
    template: ClassVar[str]
    extras: ClassVar[tuple[str, ...]] = ()
    temporary: ClassVar[bool] = False
    shared: ClassVar[bool] = False
    resumes: ClassVar[bool] = False
    spread: ClassVar[bool] = False
    partial: ClassVar[bool] = False
    priority: ClassVar[int] = 0
    numbers: ClassVar[str] = ""

    stage: str
    version: PositiveInt
    extensions: dict[str, str] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if isinstance(name := cls.model_fields["stage"].default, str):
            if name in cls.known and cls.known[name].__qualname__ != cls.__qualname__:
                raise ValueError(f"two stages have the name {name!r}: {cls.known[name]}")
            cls.known[name] = cls

    # Of a stage.

    @classmethod
    def summary(cls) -> str:
        """What a job of the stage does, in one line."""
        line = (cls.__doc__ or "").strip().partition("\n")[0].rstrip(".")
        return line[:1].lower() + line[1:]

    @classmethod
    def name(cls) -> str:
        """The stage's name, which is also the name of its command."""
        return str(cls.model_fields["stage"].default)

    @classmethod
    def module(cls) -> str:
        """The name of the module that has ``run``."""
        return f"diffbench.jobs.{cls.name()}"

    @classmethod
    def wildcards(cls) -> tuple[str, ...]:
        """The wildcards of the paths, in order."""
        return _named_in(cls.template)

    @classmethod
    def item_wildcards(cls) -> tuple[str, ...]:
        """The wildcards that tell the jobs of one variant and seed apart."""
        return _items_in(cls.template)

    @classmethod
    def wanted(cls, asked: Asked) -> Iterator[StageSpec]:
        """The jobs that a benchmark asks of a variant with a seed; none by default."""
        return iter(())

    def canonical(self) -> str:
        """Return this spec as JSON with sorted keys; a spec that is held several times is written once and repeated."""
        return Texts().of(self)

    # Where things lie.

    @property
    def templates(self) -> tuple[str, ...]:
        """The paths of all products, the main one first."""
        return (self.template,)

    @property
    def values(self) -> Mapping[str, Any]:
        """The value of each wildcard."""
        return {name: getattr(self, key) for name, key in _keys_of(self.template)}

    @property
    def item(self) -> str:
        """The id of the job among those of its stage, variant and seed; empty where there is only one."""
        return "/".join(self.values[name] for name in type(self).item_wildcards())

    def filled(self, template: str) -> str:
        """A template with the job's values for its wildcards."""
        return template.format(**self.values)

    def path_of(self, template: str) -> Path:
        """The path of a template, with the job's values for its wildcards."""
        return Path(self.filled(template))

    @property
    def products(self) -> tuple[Path, ...]:
        """The paths of the job's products, the main one first."""
        return tuple(map(self.path_of, self.templates))

    @property
    def state(self) -> Path:
        """The folder of the job's state, status and events."""
        return STATES / self.digest()

    @property
    def rule(self) -> str:
        """The name of the workflow rule that runs the job."""
        return self.stage

    @property
    def tabled(self) -> bool:
        """Whether tables show numbers of the product."""
        return any(stage.numbers == self.stage for stage in self.known.values())

    # What the job needs.

    @property
    def held(self) -> tuple[StageSpec, ...]:
        """The specs of other jobs that are fields of this one."""
        found: list[StageSpec] = []
        for _, value in self:
            values = value.values() if isinstance(value, dict) else (value,)
            found += [each for each in values if _is_a(type(each), StageSpec)]
        return tuple(found)

    @property
    def upstream(self) -> tuple[StageSpec, ...]:
        """The specs of the jobs whose products are read, besides the data stage's."""
        return self.held

    @property
    def reads_data(self) -> bool:
        """Whether the job reads the data stage's product: it does if it, or a job among its fields, has a data set."""
        about = any(_is_a(type(value), DataSpec) for _, value in self)
        return about or any(each.reads_data for each in self.held)

    @property
    def sources(self) -> tuple[str, ...]:
        """Files and folders outside the results that the job reads."""
        return ()

    @property
    def choice(self) -> OfWeights | None:
        """The solver or likelihood that chooses among the weights that a training keeps; None of other jobs."""
        return None

    @property
    def divided(self) -> bool:
        """Whether this job can be shared by several processes; its stage must be ``shared`` too."""
        return self.shared

    def parts(self, count: int) -> tuple[StageSpec, ...]:
        """The ``count`` jobs that this one is spread over; none where it does all the work itself."""
        return ()

    @property
    def threads(self) -> int:
        """How many threads the job asks for."""
        return 1

    @property
    def uses_gpu(self) -> bool:
        """Whether the job asks for a GPU, where there is one."""
        return True


#: `issubclass`, whose answers for abstract classes, such as specs, take long: a plan asks of every field of every job.
_is_a: Callable[[type, type], bool] = cache(issubclass)


@cache
def _named_in(template: str) -> tuple[str, ...]:
    return tuple(name for _, name, _, _ in Formatter().parse(template) if name)


@cache
def _items_in(template: str) -> tuple[str, ...]:
    return tuple(name for name in _named_in(template) if name not in ("variant", "seed"))


@cache
def _keys_of(template: str) -> tuple[tuple[str, str], ...]:
    """Return each wildcard with the key of its value, those of items last."""
    items = _items_in(template)
    others = [(name, name) for name in _named_in(template) if name not in items]
    return (*others, *((name, f"{name}_id") for name in items))
