"""Classes that a spec describes: made from the spec, or from keywords that make one.

    VP(VPSpec(beta_max=10))               VP(beta_max=10)
    Heun(HeunSpec(steps=18), denoiser)    Heun(denoiser, steps=18)

The spec's defaults and refusals are those of a configuration file.
"""

from __future__ import annotations

import inspect
from abc import ABCMeta
from typing import Any

from diffbench.specs.base import Registered


class FromKeywords(ABCMeta):
    """The type of these classes: what happens when one is called."""

    def __call__(cls, *args: Any, **keywords: Any) -> Any:
        """An instance; without a spec, one is made of the keywords that the class itself does not take.

        Raises:
            ValidationError: for a value that the spec refuses, naming its key.
        """
        given = "spec" in keywords or (args and isinstance(args[0], Registered))
        model = None if given else spec_of(cls)
        if model is None:
            return super().__call__(*args, **keywords)
        parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
        taken = keywords.keys() & parameters.keys()
        own = {name: keywords.pop(name) for name in taken}
        return super().__call__(model(**keywords), *args, **own)


class Described(metaclass=FromKeywords):
    """Base of these classes; the ``__init__`` of each takes the spec first."""


def spec_of(described: type) -> type[Registered] | None:
    """The registered spec of a class, or of the nearest of its bases that has one; None where none has."""
    kinds = Registered.__subclasses__()
    models = [model for kind in kinds for model in kind.known.values()]
    specs = {getattr(model, "implementation", None): model for model in models}
    names = ((each, f"{each.__module__}:{each.__qualname__}") for each in described.__mro__)
    found = (specs.get(each) or specs.get(name) for each, name in names)
    return next((model for model in found if model is not None), None)
