"""Specs of the processes: what happens to data; those that are imported here are known by name.

Each spec states its parameters and, for the plan, its properties: its ``family``, whether its ``time`` is
discrete or continuous, whether ``alpha`` is one scalar or one number per coordinate, and its data range.

Constants that papers state for data in [-1, 1] (a sampler's sigma_min, training times, ``data_std``) are in those units
on every process; only ``in_range`` and ``in_units`` convert them.  A process's own constants are in units of its data
range.  ``unit`` is the length that its paper calls 1; it is not 1 on another range than the paper's.

The formulas of alpha and sigma that a plan needs are stated only here.  Each takes a time, and the module whose
functions it calls: ``math`` for a float in a plan, ``torch`` for a tensor in the process's class.
"""

from diffbench.specs.processes.continuous import (
    EDMSpec,
    GeometricSpec,
    LinearBetaSpec,
    SubVPSpec,
    VESpec,
    VPChainSpec,
    VPCosineSpec,
    VPSpec,
)
from diffbench.specs.processes.discrete import DiscreteSpec, linear_ends
from diffbench.specs.processes.heat import BlurringSpec, IHDMSpec
from diffbench.specs.processes.process import RANGES, ProcessSpec, Variance
from diffbench.specs.processes.reflected import ReflectedSpec

__all__ = [
    "BlurringSpec",
    "DiscreteSpec",
    "EDMSpec",
    "GeometricSpec",
    "IHDMSpec",
    "LinearBetaSpec",
    "ProcessSpec",
    "RANGES",
    "ReflectedSpec",
    "SubVPSpec",
    "VESpec",
    "VPChainSpec",
    "VPCosineSpec",
    "VPSpec",
    "Variance",
    "linear_ends",
]
