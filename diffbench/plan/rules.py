"""The rules of the workflow that make a plan's products: one for each stage, or several where outputs differ.

The outputs of a rule cannot depend on the variant, so jobs of one stage with different products have different rules.
Most plans train by one rule, ``train``, which makes only models.  ``train_along`` makes snapshots too, and
``train_along_2`` snapshots of other steps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diffbench.plan.jobs import Plan
from diffbench.specs.jobs import STAGES, StageSpec
from diffbench.store import paths

#: The pattern of a wildcard, which does not cross folders.
ANY = "[^/]+"
CONSTRAINTS = {"seed": r"\d+"}


@dataclass(frozen=True)
class WorkflowRule:
    """A rule that makes all products of some jobs of a stage; paths are relative to the benchmark's folder.

    Attributes:
        name: the rule's name, which users put under ``set-resources`` and ``set-threads``.
        stage: the stage.
        templates: the paths of the products, the main one first.
        variants: the variants that it is for; none, which means any, where no job is planned.
    """

    name: str
    stage: type[StageSpec]
    templates: tuple[str, ...]
    variants: tuple[str, ...]

    @property
    def outputs(self) -> list[Path]:
        """The products with their sidecars, the run record of the main one, and outputs without a sidecar."""
        products = [Path(each) for each in self.templates]
        sidecars = [paths.sidecar(each) for each in products]
        return [*products, *sidecars, paths.run_record(products[0]), *map(Path, self.stage.extras)]

    @property
    def job(self) -> str:
        """The name of a job, which is also the path of its log below the folder of logs."""
        wildcards = {"variant": "{variant}", "seed": "seed{seed}"}
        parts = [wildcards.get(name, f"{{{name}}}") for name in self.stage.wildcards()]
        return "/".join([self.stage.name(), *parts])

    @property
    def constraints(self) -> dict[str, str]:
        """A regular expression for each wildcard."""
        found = {name: CONSTRAINTS.get(name, ANY) for name in self.stage.wildcards()}
        if "variant" in found and self.variants:
            found["variant"] = "|".join(map(re.escape, self.variants))
        return found

    @property
    def command(self) -> str:
        """The shell command of a job; when it changes, all products are made again."""
        processes = " --processes {resources.gpu}" if self.stage.shared else ""
        job = "--root {params.root:q} --spec {params.spec:q}"
        return f"diffbench {self.stage.name()} {job}{processes} > {{log:q}} 2>&1"


def rules(plan: Plan) -> list[WorkflowRule]:
    """Return all rules, in the order of stages."""
    return [rule for stage in STAGES.values() for rule in _of_stage(plan, stage)]


def _of_stage(plan: Plan, stage: type[StageSpec]) -> Iterator[WorkflowRule]:
    groups: dict[tuple[str, tuple[str, ...]], dict[str, None]] = {}
    for job in plan.of(stage.name()):
        groups.setdefault((job.spec.rule, job.spec.templates), {})[job.variant] = None
    names: dict[str, int] = {}
    for (name, templates), variants in groups.items():
        number = names[name] = names.get(name, 0) + 1
        yield WorkflowRule(
            name if number == 1 else f"{name}_{number}", stage, templates, tuple(variants)
        )
    if not groups:
        yield WorkflowRule(stage.name(), stage, (stage.template,), ())
