"""Specs of what users write: a benchmark file, and a variant as ``methods.yaml`` has it.

A benchmark file says data set, network, budget, device, seeds, sample counts and which variants;
the variants themselves are free of scale.  ``network``, ``training``, ``defaults`` and
``overrides`` stay plain mappings here: the plan merges them into each variant and validates the
result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from diffbench.specs.base import Int, NonNegativeInt, PositiveInt, Spec
from diffbench.specs.choices import (
    AnyAnalysis,
    AnyClassifierNetwork,
    AnyControl,
    AnyData,
    AnyDenoiser,
    AnyExtractor,
    AnyLikelihood,
    AnyNetwork,
    AnyObjective,
    AnyProcess,
)
from diffbench.specs.extractors import TrainedExtractorSpec
from diffbench.specs.floors import FloorSpec
from diffbench.specs.networks.network import EncoderSpec
from diffbench.specs.objectives import AnyTimes, LogNormalTimesSpec, TimesSpec, UniformTimesSpec
from diffbench.specs.pretrained import PretrainedSpec
from diffbench.specs.processes import ProcessSpec
from diffbench.specs.restorers import AnyRestorer, TaskSpec
from diffbench.specs.sampling import SamplingSpec
from diffbench.specs.solvers import AnySolver
from diffbench.specs.training import TrainingSpec

CONTROL_SOLVER = "draw"
#: What any variant may say.
ABOUT = {"paper", "note", "seeds"}
#: What a variant without a process may consist of.
ALONE = {"analyses", "restorers"}


def _listed(value: object) -> object:
    """Take ``only: vp`` or ``only: vp,edm`` for a list: the command line writes it so."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int) else value


def _distinct(values: list[Any]) -> list[Any]:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ValueError(f"{value!r} is there twice")
    return values


def _wanted(value: object) -> object:
    """Take one name, or one mapping of what is defined here, for a list of it."""
    return [value] if isinstance(value, dict) else _listed(value)


def names(wanted: list[Any]) -> list[str]:
    """Return the names in a list of names and of mappings of what is defined there."""
    return [name for each in wanted for name in (each if isinstance(each, dict) else [each])]


def own(wanted: list[Any]) -> dict[str, Any]:
    """Return what is defined in a list of names and of mappings: name -> definition."""
    return {
        name: value for each in wanted if isinstance(each, dict) for name, value in each.items()
    }


def _named_once(wanted: list[Any]) -> list[Any]:
    _distinct(names(wanted))
    return wanted


Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]
Seeds = Annotated[list[NonNegativeInt], BeforeValidator(_listed), AfterValidator(_distinct)]
Patterns = Annotated[list[str], BeforeValidator(_listed), AfterValidator(_distinct)]
#: What is defined in a benchmark file alone.
Own = dict[Id, dict[str, Any]]
#: Ids, or patterns, of what the repository defines, and mappings of what is defined here, in their order.
Wanted = Annotated[list[Id | Own], BeforeValidator(_wanted), AfterValidator(_named_once)]
WantedPatterns = Annotated[list[str | Own], BeforeValidator(_wanted), AfterValidator(_named_once)]


class ClassifierSettings(Spec):
    """How a benchmark's noise-aware classifiers are trained.

    times: uniform ones by default; log-normal ones where time is sigma itself.
    training: lies over the benchmark's.
    """

    network: AnyClassifierNetwork = EncoderSpec()
    times: AnyTimes | None = None
    training: dict[str, Any] = {}

    def times_for(self, process: ProcessSpec) -> TimesSpec:
        """The distribution of training times on a process."""
        if self.times is not None:
            return self.times
        return UniformTimesSpec() if process.even else LogNormalTimesSpec()


class RestorationsSpec(Spec):
    """A benchmark's inverse problems.

    tasks: each an operator and a noise; every restorer is tried on every task, and where one cannot serve
        the table has a footnote.
    images: test images to restore, the first ones.
    draws: restorations of each.
    variants: ids or patterns of the variants on whose models ``restorers`` are tried, besides the variants' own.
    """

    tasks: dict[Id, TaskSpec] = {}
    images: PositiveInt = 50
    draws: Annotated[Int, Field(ge=2)] = 4
    variants: Patterns = []
    restorers: dict[Id, AnyRestorer] = {}


class TunedSpec(Spec):
    """What was chosen by looking at numbers: on which seeds, which must be others than those of claims.

    what: the settings.
    seeds: of the runs that were looked at.
    by: the metric, or the numbers.
    file: the benchmark file that makes them again.
    """

    what: str
    seeds: Annotated[Seeds, Field(min_length=1)]
    by: str
    file: str = ""

    @property
    def shown(self) -> str:
        """In words."""
        seeds = ", ".join(map(str, self.seeds))
        again = f" ({self.file})" if self.file else ""
        return f"{self.what}, by {self.by}, on {'seeds' if len(self.seeds) > 1 else 'seed'} {seeds}{again}"


class BenchmarkSpec(Spec):
    """A benchmark file.

    variants: ids or patterns (``ddpm-*``) of variants in ``config/methods.yaml`` and ``methods``.
    floors: how often real images are drawn again, and scored in the place of samples and of restorations.
    only: patterns that restrict ``variants``; empty for all.
    samples, chunk: images per sampling job, and how many are drawn at a time.
    shards: the jobs that the chunks of each solver's images are spread over; the images do not depend on it.
    sampling: how whatever asks a trained network runs it.
    gpus: how many a training job uses, each with its share of a batch; Snakemake must be told that there are as many.
    classifier: how the classifiers of noisy images that guide samplers are trained.
    solvers, likelihoods: tried on every variant besides its own; where one cannot serve a process
        the table has a footnote.
    restorations: inverse problems, and what is tried on them.
    defaults: lies under every trained variant's own keys.
    overrides: variant id or pattern -> keys that lie over the variant's own.
    methods: further variants, written as in ``config/methods.yaml``.
    extensions: Python files, relative to the benchmark file, that define specs and their classes.
    tables, figures: which of ``config/tables.yaml`` to make; a mapping among them defines further ones.
    claims: ids or patterns of claims in ``config/claims.yaml`` to test; a mapping among them defines further ones.
    metrics: further metrics, written as in ``config/tables.yaml``.
    tuned: id -> what was tuned on which seeds; no claim is tested on those.
    """

    name: Id
    note: str = ""
    data: AnyData
    extractor: AnyExtractor = TrainedExtractorSpec()
    floors: FloorSpec = FloorSpec()
    network: dict[str, Any] = {}
    training: dict[str, Any] = {}
    sampling: dict[str, Any] = {}
    classifier: ClassifierSettings = ClassifierSettings()
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    gpus: PositiveInt = 1
    seeds: Annotated[Seeds, Field(min_length=1)] = [0]
    samples: Annotated[Int, Field(ge=20)]
    chunk: PositiveInt = 500
    shards: PositiveInt = 1
    variants: Annotated[Patterns, Field(min_length=1)]
    only: Patterns = []
    solvers: dict[Id, AnySolver] = {}
    likelihoods: dict[Id, AnyLikelihood] = {}
    restorations: RestorationsSpec = RestorationsSpec()
    defaults: dict[str, Any] = {}
    overrides: dict[str, dict[str, Any]] = {}
    methods: dict[str, dict[str, Any]] = {}
    extensions: Patterns = []
    metrics: Own = {}
    tables: Wanted = ["overview"]
    claims: WantedPatterns = []
    tuned: dict[Id, TunedSpec] = {}
    figures: Wanted = []

    @model_validator(mode="after")
    def _claims_have_seeds_of_their_own(self) -> Self:
        for name, tuned in self.tuned.items() if self.claims else ():
            if shared := sorted(set(self.seeds) & set(tuned.seeds)):
                raise ValueError(
                    f"seeds: {shared[0]} is among those that tuned.{name} was chosen on, and claims need others: "
                    "choose other seeds, or test no claims (claims: [])"
                )
        return self


@dataclass(frozen=True)
class Origin:
    """Where a model comes from: the keys that it then needs or may have, and why it has no other of `MADE_OF`."""

    needs: frozenset[str]
    reason: str
    may_have: frozenset[str] = frozenset()


ASKED = frozenset({"sampling"})
#: What a model may be made of and asked by, besides its process and its denoiser.
MADE_OF = frozenset({"objective", "network", "training", "pretrained"}) | ASKED
TRAINED = Origin(MADE_OF - {"pretrained"} - ASKED, "a trained model has no {key}", ASKED)
EXACT = Origin(frozenset(), "the {denoiser} denoiser is exact and has no {key}")
IMPORTED = Origin(frozenset({"network", "pretrained"}), "an imported model has no {key}", ASKED)


class VariantSpec(Spec):
    """One variant, everything merged into it.

    It is a trained or an imported model, an exact denoiser, a control, or analyses and restorers that need no model.

    seeds: those of the benchmark's seeds that this variant is run with; all of them when not given.
    """

    paper: str = ""
    note: str = ""
    seeds: Annotated[Seeds, Field(min_length=1)] | None = None
    process: AnyProcess | None = None
    denoiser: AnyDenoiser | None = None
    objective: AnyObjective | None = None
    dequantise: Literal["none", "uniform"] = "none"
    network: AnyNetwork | None = None
    training: TrainingSpec | None = None
    pretrained: PretrainedSpec | None = None
    sampling: SamplingSpec = SamplingSpec()
    solvers: dict[Id, AnySolver] = {}
    likelihoods: dict[Id, AnyLikelihood] = {}
    restorers: dict[Id, AnyRestorer] = {}
    analyses: dict[Id, AnyAnalysis] = {}
    control: AnyControl | None = None

    @property
    def trained(self) -> bool:
        """Whether its denoiser is a network, trained for it or before."""
        return self.denoiser is not None and self.denoiser.trained

    @property
    def origin(self) -> Origin:
        """Where its model comes from."""
        if self.pretrained is not None:
            return IMPORTED
        return TRAINED if self.trained else EXACT

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        given = {key for key in self.model_fields_set if getattr(self, key) not in (None, {})}
        wanted, own = {"process", "denoiser"}, given - ABOUT
        if self.control is not None:
            if extra := own - {"control"}:
                raise ValueError(f"a control has no {min(extra)}")
            return self
        if own and own <= ALONE:
            return self._without_model()
        strange = MADE_OF - self.origin.needs - self.origin.may_have
        if self.denoiser and (extra := given & strange):
            reason = self.origin.reason.format(denoiser=self.denoiser.name, key=min(extra))
            raise ValueError(reason)
        if missing := (wanted | (self.origin.needs if self.denoiser else set())) - given:
            raise ValueError(f"{min(missing)} is missing")
        return self

    def _without_model(self) -> Self:
        """Analyses and restorers alone must be such as bring all they need."""
        for item, analysis in self.analyses.items():
            if analysis.uses_variant:
                raise ValueError(
                    f"analyses.{item}: {analysis.name} is about a process and a denoiser, and they are missing"
                )
        for item, restorer in self.restorers.items():
            if restorer.uses_model:
                raise ValueError(
                    f"restorers.{item}: {restorer.name} uses a process and a denoiser, and they are missing"
                )
        return self
