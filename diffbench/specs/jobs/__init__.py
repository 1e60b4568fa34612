"""The stages, one file for each, with the spec of its jobs.

A job's spec is all that a stage needs to know and all that its product depends on.  It holds the specs of the
jobs that it builds on: the spec of samples holds the spec of the training.  ``version`` is raised when the stage's
numerics change.  The device, the paths and the threads of the machine are in no spec.
"""

from __future__ import annotations

# The imports are in the order of the work, which `STAGES` keeps: a stage is registered when its file is imported.
# isort: off
from diffbench.specs.jobs.stage import STATES, StageSpec
from diffbench.specs.jobs.data import DataStageSpec
from diffbench.specs.jobs.reference import ReferenceSpec
from diffbench.specs.jobs.train import AskingSpec, TrainSpec, weights_refusal
from diffbench.specs.jobs.classifier import ClassifierSpec
from diffbench.specs.jobs.schedule import ScheduleSpec
from diffbench.specs.jobs.sample import SampleSpec, ShardSpec
from diffbench.specs.jobs.trajectory import TrajectorySpec
from diffbench.specs.jobs.score import ScoreSpec
from diffbench.specs.jobs.likelihood import LikelihoodStageSpec
from diffbench.specs.jobs.restore import RestoreSpec
from diffbench.specs.jobs.analysis import AnalysisStageSpec
# isort: on

#: The stages by name, each after those that it builds on.
STAGES = StageSpec.known

__all__ = [
    "STAGES",
    "STATES",
    "AnalysisStageSpec",
    "AskingSpec",
    "ClassifierSpec",
    "DataStageSpec",
    "LikelihoodStageSpec",
    "ReferenceSpec",
    "RestoreSpec",
    "SampleSpec",
    "ScheduleSpec",
    "ScoreSpec",
    "ShardSpec",
    "StageSpec",
    "TrainSpec",
    "TrajectorySpec",
    "weights_refusal",
]
