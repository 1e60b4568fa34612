"""Specs of what users write: a benchmark file, and a variant as ``methods.yaml`` has it.

A benchmark file gives the data set, the network, the budget, the device, the seeds, the numbers of
samples and the list of variants; a variant in ``methods.yaml`` gives none of these sizes.  ``network``,
``training``, ``defaults`` and ``overrides`` are plain mappings here: the plan merges them into each
variant and validates the result.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from diffbench.specs.base import (
    Int,
    LevelCount,
    NonNegativeInt,
    Only,
    PositiveInt,
    Spec,
    TogetherCount,
    nothing,
)
from diffbench.specs.choices import (
    AnyAnalysis,
    AnyClassifierNetwork,
    AnyControl,
    AnyData,
    AnyDenoiser,
    AnyExtractor,
    AnyLikelihood,
    AnyMeasure,
    AnyNetwork,
    AnyObjective,
    AnyProcess,
)
from diffbench.specs.extractors import TrainedExtractorSpec
from diffbench.specs.floors import FloorSpec
from diffbench.specs.image_measures import AnyImageMeasure
from diffbench.specs.networks.network import EncoderSpec
from diffbench.specs.objectives import AnyTimes, LogNormalTimesSpec, TimesSpec, UniformTimesSpec
from diffbench.specs.pretrained import PretrainedSpec
from diffbench.specs.processes import ProcessSpec
from diffbench.specs.restorers import AnyRestorer, TaskSpec
from diffbench.specs.sampling import SamplingSpec
from diffbench.specs.solvers import AnySolver
from diffbench.specs.training import TrainingSpec

CONTROL_SOLVER = "draw"
#: Keys that every variant may have.
ABOUT = {"paper", "note", "seeds"}
#: Keys that a variant without a process may have, besides `ABOUT`.
ALONE = {"analyses", "restorers"}


def _listed(value: object) -> object:
    """Turn ``only: vp`` or ``only: vp,edm``, as the command line writes lists, into a list."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int) else value


def _distinct(values: list[Any]) -> list[Any]:
    found = set[Any]()
    for value in values:
        if value in found:
            raise ValueError(f"{value!r} appears twice")
        found.add(value)
    return values


def _wanted(value: object) -> object:
    """Turn one name, or one mapping of definitions, into a list."""
    return [value] if isinstance(value, dict) else _listed(value)


def names(wanted: list[Any]) -> list[str]:
    """Return all names in a list of names and of mappings of definitions."""
    return [name for each in wanted for name in (each if isinstance(each, dict) else [each])]


def own(wanted: list[Any]) -> dict[str, Any]:
    """Return the definitions in a list of names and of mappings: name -> definition."""
    return {
        name: value for each in wanted if isinstance(each, dict) for name, value in each.items()
    }


def _each_once(chosen: list[Any]) -> list[Any]:
    _distinct([each.name for each in chosen])
    return chosen


def _named_once(wanted: list[Any]) -> list[Any]:
    _distinct(names(wanted))
    return wanted


#: The length of the longest id: with what is put around it in names of files, below their limit of 255 bytes.
LONGEST_ID = 200
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def _identifies(name: str) -> str:
    """Refuse a name that cannot be a part of a path."""
    if not _ID.fullmatch(name):
        raise ValueError("must be letters, digits and . _ + -, with a letter or digit first")
    if len(name) > LONGEST_ID:
        raise ValueError(f"must have at most {LONGEST_ID} characters; it has {len(name)}")
    return name


Id = Annotated[str, AfterValidator(_identifies)]
Seeds = Annotated[list[NonNegativeInt], BeforeValidator(_listed), AfterValidator(_distinct)]
Measures = Annotated[list[AnyMeasure], BeforeValidator(_wanted), AfterValidator(_each_once)]
Patterns = Annotated[list[str], BeforeValidator(_listed), AfterValidator(_distinct)]
#: The most images that are scored.  Each has features, with Inception 2,048 of 4 bytes: of 10^7 images they have 82 GB.
MOST_SAMPLES = 10**7
#: The most GPUs of one training.
MOST_GPUS = 2**12
#: Definitions in a benchmark file: name -> definition.
Own = dict[Id, dict[str, Any]]
#: Ids, or patterns, of definitions in the repository, and mappings of definitions in the benchmark file, in order.
Wanted = Annotated[list[Id | Own], BeforeValidator(_wanted), AfterValidator(_named_once)]
WantedPatterns = Annotated[list[str | Own], BeforeValidator(_wanted), AfterValidator(_named_once)]


class ClassifierSettings(Spec):
    """How a benchmark's noise-aware classifiers are trained.

    times: the distribution of training times; by default uniform, or log-normal where time is sigma itself.
    training: keys that replace those of the benchmark's ``training``.
    """

    network: AnyClassifierNetwork = EncoderSpec()
    times: AnyTimes | None = None
    training: dict[str, Any] = {}

    def times_for(self, process: ProcessSpec) -> TimesSpec:
        """Return the distribution of training times on a process."""
        if self.times is not None:
            return self.times
        return UniformTimesSpec() if process.even else LogNormalTimesSpec()


class RestorationsSpec(Spec):
    """A benchmark's inverse problems.

    tasks: id -> an operator and a noise.  Every restorer is tried on every task; where one cannot serve, the table has
        a footnote.
    images: how many test images are restored, from the first on.
    draws: how many times each image is restored.
    variants: ids or patterns of the variants on whose models ``restorers`` are tried.
    restorers: restorers that are tried besides the variants' own.
    measures: measures of restorations besides PSNR, SSIM and the others, such as LPIPS.
    """

    belonging: ClassVar[tuple[Only, ...]] = (
        *(Only(each, "tasks") for each in ("images", "draws", "measures", "restorers", "variants")),
        Only("restorers", "variants"),
        Only("variants", "restorers"),
    )

    tasks: dict[Id, TaskSpec] = {}
    images: PositiveInt = 50
    draws: Annotated[Int, Field(ge=2, le=MOST_SAMPLES)] = 4
    variants: Patterns = []
    restorers: dict[Id, AnyRestorer] = {}
    measures: tuple[AnyImageMeasure, ...] = ()

    @model_validator(mode="after")
    def _measured_once(self) -> Self:
        _distinct([each.metric for each in self.measures])
        return self


class TrajectorySettings(Spec):
    """Which states are kept on the way from noise to image, of one solver of a variant, with its first seed.

    images: of how many images, the first ones.
    states: how many states of each, evenly spaced over the solver's steps, from the start to the image; all of them
        where the solver takes fewer steps.
    of: ids or patterns of variant and solver (``vp/heun-18``); of a variant's solvers the first that one of them names
        is taken, the patterns in order.
    """

    images: TogetherCount = 8
    states: LevelCount = 12
    of: Annotated[Patterns, Field(min_length=1)] = ["*"]

    def chosen(self, variant: str, solvers: Sequence[str]) -> str | None:
        """Return the solver that is taken among a variant's; None where no pattern names one."""
        named = (
            each
            for pattern in self.of
            for each in solvers
            if fnmatchcase(f"{variant}/{each}", pattern)
        )
        return next(named, None)


class TunedSpec(Spec):
    """Settings that were chosen by looking at numbers, and the seeds of these numbers, which claims may not use.

    what: the settings.
    seeds: the seeds of the runs that were looked at.
    by: the metric, or the numbers, by which the settings were chosen.
    file: the benchmark file that makes these numbers again.
    """

    what: str
    seeds: Annotated[Seeds, Field(min_length=1)]
    by: str
    file: str = ""

    @property
    def shown(self) -> str:
        """The choice in words: the settings, the metric, the seeds and the file."""
        seeds = ", ".join(map(str, self.seeds))
        again = f" ({self.file})" if self.file else ""
        return f"{self.what}, by {self.by}, on {'seeds' if len(self.seeds) > 1 else 'seed'} {seeds}{again}"


class BenchmarkSpec(Spec):
    """A benchmark file.

    variants: ids or patterns (``ddpm-*``) of variants in ``config/methods.yaml`` and ``methods``.
    measures: measures of samples besides FID and the others that all samples get.
    floors: how often real images are drawn and scored in the place of samples and of restorations.
    only: patterns that restrict ``variants``; empty for all.
    samples, chunk: images per sampling job, and how many are drawn at a time, at most.
    shards: how many jobs share the chunks of each solver's images; the images do not depend on it.
    sampling: how solvers, likelihoods, restorers and analyses run a trained network.
    trajectory: which states are kept on the way from noise to image; ``none`` keeps none.
    schedules: whether the noise of each process over time, and of each solver's grid, is kept for figures.
    gpus: how many GPUs a training job uses, each for a share of the batch; Snakemake must be told that they are there.
    nodes: over how many nodes of a cluster these GPUs are spread, each with the same number of them.
    classifier: how the classifiers of noisy images that guide samplers are trained.
    solvers, likelihoods: those that are tried on every variant besides the variant's own; where one cannot serve
        a process, the table has a footnote.
    restorations: inverse problems, and the restorers that are tried on them.
    defaults: keys of every trained variant that does not state them itself.
    overrides: variant id or pattern -> keys that replace the variant's own.
    methods: further variants, written as in ``config/methods.yaml``.
    extensions: Python files or packages, relative to the benchmark file, or names of installed ones, that define
        specs and their classes.
    tables, figures: names in ``config/tables.yaml`` of those to make; a mapping in the list defines further ones.
    claims: ids or patterns of claims in ``config/claims.yaml`` to test; a mapping in the list defines further ones.
    metrics: further metrics, written as in ``config/tables.yaml``.
    tuned: id -> what was tuned on which seeds; no claim is tested on these seeds.
    """

    belonging: ClassVar[tuple[Only, ...]] = (Only("gpus", "device", ("auto", "cuda")),)

    name: Id
    note: str = ""
    data: AnyData
    extractor: AnyExtractor = TrainedExtractorSpec()
    measures: Measures = []
    floors: FloorSpec = FloorSpec()
    network: dict[str, Any] = {}
    training: dict[str, Any] = {}
    sampling: dict[str, Any] = {}
    classifier: ClassifierSettings = ClassifierSettings()
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    gpus: Annotated[PositiveInt, Field(le=MOST_GPUS)] = 1
    nodes: Annotated[PositiveInt, Field(le=MOST_GPUS)] = 1
    seeds: Annotated[Seeds, Field(min_length=1)] = [0]
    samples: Annotated[Int, Field(ge=20, le=MOST_SAMPLES)]
    chunk: TogetherCount = 500
    shards: PositiveInt = 1
    trajectory: Annotated[TrajectorySettings | None, BeforeValidator(nothing)] = None
    schedules: bool = False
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
    def _the_extractor_has_the_opinions(self) -> Self:
        for each in self.measures:
            if each.opinion and each.opinion not in self.extractor.offers:
                raise ValueError(
                    f"measures: {each.name} needs features that the extractor {self.extractor.name} does not have"
                )
        return self

    @model_validator(mode="after")
    def _nodes_share_gpus(self) -> Self:
        if self.gpus % self.nodes:
            raise ValueError(
                f"nodes: {self.nodes} nodes cannot share {self.gpus} GPUs equally: make gpus a multiple of nodes"
            )
        return self

    @model_validator(mode="after")
    def _claims_have_seeds_of_their_own(self) -> Self:
        for name, tuned in self.tuned.items() if self.claims else ():
            if shared := sorted(set(self.seeds) & set(tuned.seeds)):
                raise ValueError(
                    f"seeds: tuned.{name} was chosen on seed {shared[0]}, and claims need other seeds: choose "
                    "others, or test no claims (claims: [])"
                )
        return self

    @property
    def files(self) -> dict[str, str]:
        """Name -> file that the extractor or a measure of restorations is read from."""
        named = {
            f"{each.metric}_{key}": path
            for each in self.restorations.measures
            for key, path in each.files.items()
        }
        return self.extractor.files | named


def seeds_of(benchmark: BenchmarkSpec, variant: VariantSpec) -> list[int]:
    """Return the benchmark's seeds, or those of them that the variant names."""
    return [each for each in benchmark.seeds if variant.seeds is None or each in variant.seeds]


@dataclass(frozen=True)
class Origin:
    """Where a model comes from, the keys that it needs or may have, and why it has no other key of `MADE_OF`."""

    needs: frozenset[str]
    reason: str
    may_have: frozenset[str] = frozenset()


ASKED = frozenset({"sampling"})
#: Keys of a model besides its process and its denoiser: what it is made of, and how it is run.
MADE_OF = frozenset({"objective", "network", "training", "pretrained"}) | ASKED
TRAINED = Origin(MADE_OF - {"pretrained"} - ASKED, "a trained model has no {key}", ASKED)
EXACT = Origin(frozenset(), "the {denoiser} denoiser is exact and has no {key}")
IMPORTED = Origin(frozenset({"network", "pretrained"}), "an imported model has no {key}", ASKED)


class VariantSpec(Spec):
    """One variant, with everything merged into it.

    It is a trained or an imported model, an exact denoiser, a control, or analyses and restorers that need no model.

    seeds: the seeds of the benchmark that this variant is run with; all of them by default.
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
        """Whether the denoiser is a network, trained here or imported."""
        return self.denoiser is not None and self.denoiser.trained

    @property
    def origin(self) -> Origin:
        """Where the model comes from."""
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
        """Refuse an analysis or a restorer that needs a model."""
        for item, analysis in self.analyses.items():
            if analysis.uses_variant:
                raise ValueError(
                    f"analyses.{item}: {analysis.name} needs a process and a denoiser, and they are missing"
                )
        for item, restorer in self.restorers.items():
            if restorer.uses_model:
                raise ValueError(
                    f"restorers.{item}: {restorer.name} needs a process and a denoiser, and they are missing"
                )
        return self
