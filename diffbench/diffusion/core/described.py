"""Classes that a spec describes: built from the spec, or from the keywords of a spec.

    VP(VPSpec(beta_max=10))               VP(beta_max=10)
    Heun(HeunSpec(steps=18), denoiser)    Heun(denoiser, steps=18)

Keywords have the same defaults as the keys of a configuration file, and the same values are refused.
"""

from __future__ import annotations

import inspect
from abc import ABCMeta
from typing import Any

from diffbench.specs.base import Registered


class FromKeywords(ABCMeta):
    """The metaclass of ``Described``: a call of a class builds an instance from a spec or from keywords."""

    def __call__(cls, *args: Any, **keywords: Any) -> Any:
        """Return an instance; without a spec, one is made from the keywords that ``__init__`` does not take.

        Raises:
            ValidationError: when the spec refuses a value; the message names the key.
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
    """Base of all classes that a spec describes; their ``__init__`` takes the spec first."""


def spec_of(described: type) -> type[Registered] | None:
    """Return the registered spec of a class or of its nearest base that has one; None if there is none."""
    kinds = Registered.__subclasses__()
    models = [model for kind in kinds for model in kind.known.values()]
    specs = {getattr(model, "implementation", None): model for model in models}
    names = ((each, f"{each.__module__}:{each.__qualname__}") for each in described.__mro__)
    found = (specs.get(each) or specs.get(name) for each, name in names)
    return next((model for model in found if model is not None), None)
