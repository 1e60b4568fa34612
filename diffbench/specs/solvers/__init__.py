"""Every solver's spec: what is imported here is known by name."""

from diffbench.specs.solvers.corrector import LangevinOnlySpec, LangevinSpec
from diffbench.specs.solvers.grids import Grid, IntegerGrid, range_refusal, strided_levels
from diffbench.specs.solvers.heat import InverseHeatSpec
from diffbench.specs.solvers.ode import (
    AdaptiveODESpec,
    DPMSolverSpec,
    FlowSpec,
    HeunSpec,
    ODESpec,
    RatioSolverSpec,
)
from diffbench.specs.solvers.sde import (
    CorrectorOnlySpec,
    EulerMaruyamaSpec,
    OwnTimeGridSolverSpec,
    OwnTimeSolverSpec,
    ReverseDiffusionSpec,
    ReverseSDESpec,
)
from diffbench.specs.solvers.solver import (
    AnySolver,
    GridSolverSpec,
    InnerSolver,
    SolverSpec,
    Threshold,
)
from diffbench.specs.solvers.transition import AncestralSpec, DDIMSpec, TransitionSolverSpec
from diffbench.specs.solvers.transport import TransportSpec

__all__ = [
    "AdaptiveODESpec",
    "AncestralSpec",
    "AnySolver",
    "CorrectorOnlySpec",
    "DDIMSpec",
    "DPMSolverSpec",
    "EulerMaruyamaSpec",
    "FlowSpec",
    "Grid",
    "GridSolverSpec",
    "HeunSpec",
    "InnerSolver",
    "IntegerGrid",
    "InverseHeatSpec",
    "LangevinOnlySpec",
    "LangevinSpec",
    "ODESpec",
    "RatioSolverSpec",
    "ReverseDiffusionSpec",
    "ReverseSDESpec",
    "SolverSpec",
    "Threshold",
    "OwnTimeGridSolverSpec",
    "OwnTimeSolverSpec",
    "TransitionSolverSpec",
    "TransportSpec",
    "range_refusal",
    "strided_levels",
]
