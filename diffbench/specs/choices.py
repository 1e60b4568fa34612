"""Fields that take a registered spec by its name: ``data: digits``, or ``data: {name: digits, ..}``."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, SerializeAsAny

from diffbench.specs.analyses import AnalysisSpec
from diffbench.specs.controls import ControlSpec
from diffbench.specs.data import DataSpec
from diffbench.specs.denoisers import DenoiserSpec
from diffbench.specs.extractors import ExtractorSpec
from diffbench.specs.likelihoods import LikelihoodSpec
from diffbench.specs.measures import MeasureSpec
from diffbench.specs.networks import ClassifierNetworkSpec, NetworkSpec
from diffbench.specs.objectives import ObjectiveSpec
from diffbench.specs.processes import ProcessSpec

AnyAnalysis = Annotated[SerializeAsAny[AnalysisSpec], BeforeValidator(AnalysisSpec.choose)]
AnyClassifierNetwork = Annotated[
    SerializeAsAny[ClassifierNetworkSpec], BeforeValidator(ClassifierNetworkSpec.choose)
]
AnyControl = Annotated[SerializeAsAny[ControlSpec], BeforeValidator(ControlSpec.choose)]
AnyData = Annotated[SerializeAsAny[DataSpec], BeforeValidator(DataSpec.choose)]
AnyDenoiser = Annotated[SerializeAsAny[DenoiserSpec], BeforeValidator(DenoiserSpec.choose)]
AnyExtractor = Annotated[SerializeAsAny[ExtractorSpec], BeforeValidator(ExtractorSpec.choose)]
AnyLikelihood = Annotated[SerializeAsAny[LikelihoodSpec], BeforeValidator(LikelihoodSpec.choose)]
AnyMeasure = Annotated[SerializeAsAny[MeasureSpec], BeforeValidator(MeasureSpec.choose)]
AnyNetwork = Annotated[SerializeAsAny[NetworkSpec], BeforeValidator(NetworkSpec.choose)]
AnyObjective = Annotated[SerializeAsAny[ObjectiveSpec], BeforeValidator(ObjectiveSpec.choose)]
AnyProcess = Annotated[SerializeAsAny[ProcessSpec], BeforeValidator(ProcessSpec.choose)]
