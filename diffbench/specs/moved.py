"""Old and new names of modules, and of what is in them, for the message about a user's file that imports an old one."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator

#: Old name -> new name, of modules and of what is in them; both inside ``diffbench``.
MOVED = {
    "data.levels": "data.grey_levels",
    "data.levels.Levels": "data.grey_levels.GreyLevels",
    "diffusion.analytic": "diffusion.denoisers.exact",
    "diffusion.augmentation": "diffusion.objectives.augmentation",
    "diffusion.bases": "diffusion.core.bases",
    "diffusion.bound": "diffusion.core.bound",
    "diffusion.charts": "diffusion.processes.simplex",
    "diffusion.core.process.at": "diffusion.core.process.float64",
    "diffusion.denoisers": "diffusion.denoisers.network",
    "diffusion.denoisers.boundary.Boundary": "diffusion.denoisers.boundary.BoundaryDenoiser",
    "diffusion.grids": "diffusion.core.grids",
    "diffusion.guidance": "diffusion.denoisers.guidance",
    "diffusion.integrators": "diffusion.core.integrators",
    "diffusion.inverse.baselines": "diffusion.inverse.restorers.baselines",
    "diffusion.inverse.ddrm": "diffusion.inverse.restorers.ddrm",
    "diffusion.inverse.dense": "diffusion.inverse.operators.dense",
    "diffusion.inverse.fourier": "diffusion.inverse.operators.fourier",
    "diffusion.inverse.jpeg": "diffusion.inverse.operators.jpeg",
    "diffusion.inverse.operators": "diffusion.inverse.operators.operator",
    "diffusion.inverse.radon": "diffusion.inverse.operators.radon",
    "diffusion.inverse.restorers": "diffusion.inverse.restorers.restorer",
    "diffusion.inverse.selections": "diffusion.inverse.operators.selections",
    "diffusion.inverse.separable": "diffusion.inverse.operators.separable",
    "diffusion.inverse.snips": "diffusion.inverse.restorers.snips",
    "diffusion.inverse.steering": "diffusion.inverse.restorers.steering",
    "diffusion.inverse.tuned": "diffusion.inverse.restorers.tuned",
    "diffusion.likelihoods.cells": "diffusion.likelihoods.grey_cells",
    "diffusion.likelihoods.cells.Cells": "diffusion.likelihoods.grey_cells.GreyCells",
    "diffusion.likelihoods.coding": "diffusion.likelihoods.progressive",
    "diffusion.likelihoods.vlb.Bound": "diffusion.likelihoods.vlb.VariationalBound",
    "diffusion.masks": "diffusion.core.known",
    "diffusion.neumann": "diffusion.denoisers.boundary",
    "diffusion.objectives": "diffusion.objectives.losses",
    "diffusion.predictions": "diffusion.core.predictions",
    "diffusion.processes.base": "diffusion.core.process",
    "diffusion.reflection": "diffusion.processes.reflection",
    "diffusion.schedules": "diffusion.processes.schedules",
    "diffusion.solvers.latents": "diffusion.solvers.encoding",
    "diffusion.solvers.sde.GridTimeSolver": "diffusion.solvers.sde.OwnTimeGridSolver",
    "diffusion.solvers.sde.TimeSolver": "diffusion.solvers.sde.OwnTimeSolver",
    "diffusion.streams": "diffusion.core.streams",
    "diffusion.transitions": "diffusion.core.transitions",
    "metrics.reference": "metrics.reference_statistics",
    "networks.counting": "networks.parameters",
    "plan.costs": "estimate.costs",
    "plan.listing": "store.image_files",
    "plan.reading.PlanError": "specs.errors.PlanError",
    "plan.reading.shown": "specs.errors.shown",
    "plan.registry": "specs.registry",
    "plan.runs": "plan.loading",
    "plan.upkeep": "plan.findings",
    "pretrained.files": "pretrained.checkpoints",
    "reporting.estimates": "estimate.report",
    "specs.analysis": "specs.analyses",
    "specs.augmentation": "specs.augmentations",
    "specs.average": "specs.averages",
    "specs.control": "specs.controls",
    "specs.denoiser": "specs.denoisers",
    "specs.denoisers.BoundarySpec": "specs.denoisers.BoundaryDenoiserSpec",
    "specs.extractor": "specs.extractors",
    "specs.forms.Loss": "specs.forms.LossForm",
    "specs.likelihood": "specs.likelihoods",
    "specs.network": "specs.networks.network",
    "specs.objective": "specs.objectives",
    "specs.operator": "specs.operators",
    "specs.process": "specs.processes",
    "specs.residual_unet": "specs.networks.residual_unet",
    "specs.restorer": "specs.restorers",
    "specs.solver": "specs.solvers",
    "specs.solvers.TimeSolverSpec": "specs.solvers.OwnTimeGridSolverSpec",
    "specs.solvers.TimeSpec": "specs.solvers.OwnTimeSolverSpec",
    "specs.solvers.sde.TimeSolverSpec": "specs.solvers.sde.OwnTimeGridSolverSpec",
    "specs.solvers.sde.TimeSpec": "specs.solvers.sde.OwnTimeSolverSpec",
    "specs.song": "specs.networks.song",
    "specs.stages": "specs.jobs",
    "specs.vdm": "specs.networks.vdm",
    "stages": "jobs",
    "stages.analysis": "analyses.job",
    "stages.bench": "analyses.bench",
    "stages.classifier": "jobs.classifier",
    "stages.coding": "analyses.coding",
    "stages.counting": "estimate.counting",
    "stages.data": "jobs.data",
    "stages.estimate": "estimate.estimate",
    "stages.gpus": "training.gpus",
    "stages.gradient_noise": "analyses.gradient_noise",
    "stages.latents": "analyses.latents",
    "stages.launch": "training.launch",
    "stages.likelihood": "jobs.likelihood",
    "stages.load": "notebook",
    "stages.machine": "training.machine",
    "stages.meter": "training.meter",
    "stages.models": "training.models",
    "stages.progress": "store.progress",
    "stages.reference": "jobs.reference",
    "stages.restore": "jobs.restore",
    "stages.sample": "jobs.sample",
    "stages.scaling": "training.scaling",
    "stages.score": "jobs.score",
    "stages.shard": "jobs.shard",
    "stages.simplex": "analyses.simplex",
    "stages.team": "training.team",
    "stages.timing": "estimate.stopwatch",
    "stages.train": "jobs.train",
    "stages.trainer": "training.trainer",
    "store.downloads.Published": "store.downloads.PublishedFile",
    "store.listing": "store.image_files",
    "store.listing.Listing": "store.image_files.ImageFiles",
    "store.listing.listing": "store.image_files.find_images",
    "store.runs": "store.run_record",
    "training.progress": "store.progress",
}


def moved_imports(source: str) -> dict[str, str]:
    """Return old name -> new name of what a Python file imports by an old name that no longer works."""
    found = {}
    for module, name in _imports(ast.parse(source)):
        for old in (f"{module}.{name}", module):
            inside = old.removeprefix("diffbench.")
            if inside in MOVED and not _works(module, name):
                found[old] = f"diffbench.{MOVED[inside]}"
                break
    return found


def _imports(tree: ast.AST) -> Iterator[tuple[str, str | None]]:
    """Yield each module of diffbench that is imported, with the name that is taken from it, if one is."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            pairs: list[tuple[str, str | None]] = [(each.name, None) for each in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            pairs = [(node.module, each.name) for each in node.names]
        else:
            continue
        yield from (pair for pair in pairs if pair[0].startswith("diffbench."))


def _works(module: str, name: str | None) -> bool:
    try:
        found = importlib.import_module(module)
        if name and not hasattr(found, name):
            importlib.import_module(f"{module}.{name}")
    except ImportError:
        return False
    return True
