"""The papers' settings beside those of the paper-scale benchmarks, setting by setting.

``config/settings.yaml`` has the papers' values with their sources, and a reason wherever ours differs; our values are
read from the benchmarks' plans.  A statement's key is a path of keys, or a pattern of paths, below the variant (or the
benchmark, for those in ``OF_BENCHMARK``).  The part of a variant that a training reads, ``TRAINED_BY``, must be
covered completely: a key without a statement must be listed as one that papers do not mention, and have its default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from diffbench.plan import reading
from diffbench.plan.jobs import Plan
from diffbench.plan.loading import load_plan
from diffbench.plan.reading import nearest
from diffbench.plan.variants import matches
from diffbench.reporting.formats import Grid, Table
from diffbench.specs.base import Spec
from diffbench.specs.errors import PlanError

SETTINGS = Path("config") / "settings.yaml"
HEADS = ("variants", "setting", "the paper's", "source", "ours", "why not the same")
OF_BENCHMARK = ("data", "extractor", "samples")
TRAINED_BY = ("process", "denoiser", "objective", "dequantise", "network", "training")
NOTES = (
    "`diffbench settings` writes this page from `config/settings.yaml` and the benchmarks' plans; a test keeps it "
    "so.",
    "A setting is a path of keys, as `diffbench show` prints them, or a pattern of paths that share a value. "
    "Variants are ids or patterns, and belong to the paper of the heading. A setting that is not in a table has "
    "its default (of networks: their papers'), or changes only the speed.",
)


class StatementSpec(Spec):
    """A paper's setting, and why ours differs where it does."""

    paper: Any
    why: str = ""


class BesideSpec(StatementSpec):
    """A setting that has no key; ours is given in words."""

    ours: str


def _statement(value: Any) -> Any:
    return value if isinstance(value, dict) else {"paper": value}


class GroupSpec(Spec):
    """What one source says of some variants: ids or patterns, and path (or pattern of paths) -> statement.

    A later group's statement about a path replaces an earlier one's.
    """

    variants: Annotated[list[str], Field(min_length=1)]
    source: str
    settings: dict[str, Annotated[StatementSpec, BeforeValidator(_statement)]] = {}
    besides: dict[str, BesideSpec] = {}


class SettingsSpec(Spec):
    """The whole of ``settings.yaml``.

    speed: keys that change a result in its last digits at most.
    unsaid: keys that papers do not mention; they must keep their defaults.
    benchmarks: file in the same folder -> groups.
    """

    speed: list[str]
    unsaid: list[str]
    benchmarks: dict[str, list[GroupSpec]]


@dataclass(frozen=True)
class Leaf:
    """A value of a spec, and the default of its key."""

    path: str
    value: Any
    usual: Any


def leaves(spec: Spec, path: str = "") -> Iterator[Leaf]:
    """Yield all values of a spec and of the specs inside it, in the form of a configuration file."""
    for name, about in type(spec).model_fields.items():
        value, below = getattr(spec, name), f"{path}{name}"
        parts = value if isinstance(value, dict) else {"": value}
        if not all(isinstance(part, Spec) for part in parts.values()):
            usual = about.get_default(call_default_factory=True)
            yield Leaf(below, _plain(value), _plain(usual))
            continue
        for key, part in parts.items():
            yield from leaves(part, f"{below}.{key}." if key else f"{below}.")


def _plain(value: Any) -> Any:
    """Return a value in YAML's form: tuples as lists, and the word "none" for None."""
    if value is None:
        return "none"
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


@dataclass(eq=False)
class Stated:
    """One statement of the file, and whether its reason was needed."""

    key: str
    spec: StatementSpec
    group: GroupSpec
    origin: str
    needed: bool = False
    found: bool = False

    @property
    def paper(self) -> Any:
        """The paper's value in YAML's form."""
        return _plain(self.spec.paper)


@dataclass(frozen=True)
class SettingRow:
    """A setting of a variant, in the paper and here.

    ``why`` is empty where both are the same.  ``patterns``: the variants that its source is about.
    """

    patterns: tuple[str, ...]
    setting: str
    paper: str
    source: str
    ours: str
    why: str

    def cells(self, variants: Sequence[str], everyone: Sequence[str]) -> list[str]:
        """Return the cells of the row in the order of ``HEADS``, with those of a table's variants that have it."""
        meant = [each for each in everyone if any(matches(each, p) for p in self.patterns)]
        others = [each for each in meant if each not in variants]
        who = "all" if len(meant) == len(everyone) else _named(self.patterns)
        if len(others) >= len(variants):
            who = _named(variants)
        elif others:
            who += f" but {_named(others)}"
        return [who, self.setting, self.paper, self.source, self.ours, self.why]


def _named(variants: Sequence[str]) -> str:
    return ", ".join(f"`{each}`" for each in variants)


@dataclass
class ComparedBenchmark:
    """A benchmark's statements, checked against its plan."""

    name: str
    plan: Plan
    spec: SettingsSpec
    stated: list[Stated] = field(default_factory=list)

    def __post_init__(self) -> None:
        for number, group in enumerate(self.spec.benchmarks[self.name]):
            origin = f"{SETTINGS}: benchmarks.{self.name}.{number}"
            for pattern in group.variants:
                if not any(matches(variant, pattern) for variant in self.models):
                    raise PlanError(
                        f"{origin}: variants: no variant {pattern!r} is a model of {self.name}"
                        f"{nearest(pattern, self.models)}"
                    )
            self.stated += [Stated(*each, group, origin) for each in group.settings.items()]

    @property
    def models(self) -> list[str]:
        """The variants that are trained here."""
        return [name for name, variant in self.plan.variants.items() if variant.training]

    def rows(self, variant: str) -> list[SettingRow]:
        """Return all settings of a variant, in the order of the file.

        Raises:
            PlanError: when a setting differs without a reason, or is neither stated nor ``unsaid`` with its default.
        """
        chosen = self._chosen(variant)
        own = [each for each in self.stated if each in chosen]
        rows = [row for each in own for row in self._compared(variant, each, chosen[each])]
        return rows + list(self._besides(variant))

    def _groups(self, variant: str) -> Iterator[GroupSpec]:
        for group in self.spec.benchmarks[self.name]:
            if any(matches(variant, pattern) for pattern in group.variants):
                yield group

    def _leaves(self, variant: str) -> Iterator[Leaf]:
        for leaf in leaves(self.plan.benchmark):
            if leaf.path.split(".")[0] in OF_BENCHMARK:
                yield leaf
        yield from leaves(self.plan.variants[variant])

    def _chosen(self, variant: str) -> Mapping[Stated, list[Leaf]]:
        """Return the statement for each path, the last one in the file, with the values that it is about."""
        groups: list[GroupSpec] = list(self._groups(variant))
        chosen: dict[Stated, list[Leaf]] = {}
        for leaf in self._leaves(variant):
            about = [
                each
                for each in self.stated
                if each.group in groups and matches(leaf.path, each.key)
            ]
            for each in about:
                each.found = True
            if about:
                chosen.setdefault(about[-1], []).append(leaf)
            elif leaf.path.split(".")[0] in TRAINED_BY:
                self._check_unsaid(variant, leaf)
        return chosen

    def _check_unsaid(self, variant: str, leaf: Leaf) -> None:
        if any(fnmatchcase(leaf.path, pattern) for pattern in self.spec.speed):
            return
        unsaid = any(fnmatchcase(leaf.path, pattern) for pattern in self.spec.unsaid)
        if not unsaid or leaf.value != leaf.usual:
            raise PlanError(
                f"{SETTINGS}: {self.name}, {variant}: {leaf.path} is {leaf.value}, but nothing says what the paper "
                "has"
            )

    def _compared(
        self, variant: str, stated: Stated, found: Sequence[Leaf]
    ) -> Iterator[SettingRow]:
        values: dict[str, list[Leaf]] = {}
        for leaf in found:
            values.setdefault(_shown(leaf.value), []).append(leaf)
        for ours, same in values.items():
            setting = stated.key if len(values) == 1 else ", ".join(leaf.path for leaf in same)
            differs = same[0].value != stated.paper
            if differs and not stated.spec.why:
                raise PlanError(
                    f"{stated.origin}: {variant}: {setting} is {ours} and the paper's {_shown(stated.paper)}; "
                    "correct it, or give the reason"
                )
            stated.needed |= differs
            why = stated.spec.why if differs else ""
            patterns = tuple(stated.group.variants)
            yield SettingRow(
                patterns, setting, _shown(stated.paper), stated.group.source, ours, why
            )

    def _besides(self, variant: str) -> Iterator[SettingRow]:
        for group in self._groups(variant):
            for name, beside in group.besides.items():
                paper, patterns = _shown(_plain(beside.paper)), tuple(group.variants)
                yield SettingRow(patterns, name, paper, group.source, beside.ours, beside.why)

    def check(self) -> None:
        """Refuse statements that no variant needs, once all rows have been made.

        Raises:
            PlanError: when no variant has a key, or a reason is given for what is the same everywhere.
        """
        for each in self.stated:
            if not each.found:
                raise PlanError(f"{each.origin}: settings: no variant of it has {each.key!r}")
            if each.spec.why and not each.needed:
                raise PlanError(
                    f"{each.origin}: settings.{each.key}: ours is the paper's, so there must be no reason"
                )


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def read_settings(repository: Path) -> SettingsSpec:
    """Return the content of ``config/settings.yaml``.

    Raises:
        PlanError: for the first mistake, with file, line and key.
    """
    tree = reading.read(repository / SETTINGS)
    return reading.validated(SettingsSpec.model_validate, SettingsSpec, tree)


def settings(repository: Path) -> Table:
    """Return the tables: for each benchmark the settings that differ, then for each paper's variants all settings.

    Raises:
        PlanError: as ``ComparedBenchmark``.
    """
    spec, different, whole = read_settings(repository), [], []
    for name in spec.benchmarks:
        plan = load_plan([repository / "config" / name], {}, repository, needs_files=False)
        benchmark = ComparedBenchmark(name, plan, spec)
        rows = {variant: benchmark.rows(variant) for variant in benchmark.models}
        benchmark.check()
        differing = {v: [row for row in own if row.why] for v, own in rows.items()}
        different.append(_grid(f"{name}: what differs", differing))
        papers = dict.fromkeys(plan.variants[variant].paper for variant in rows)
        for paper in papers:
            of_paper = {v: own for v, own in rows.items() if plan.variants[v].paper == paper}
            whole.append(_grid(f"{name}: {paper}", of_paper))
    return Table("Settings of the papers, and ours", [], [*different, *whole], NOTES)


def _grid(caption: str, rows: Mapping[str, Sequence[SettingRow]]) -> Grid:
    """Return a grid with each row once, with the variants that have it."""
    shared: dict[SettingRow, list[str]] = {}
    for variant, own in rows.items():
        for row in own:
            shared.setdefault(row, []).append(variant)
    lines = [row.cells(variants, list(rows)) for row, variants in shared.items()]
    return Grid(HEADS, lines, labels=len(HEADS), caption=caption)
