"""Settings that are written and have no effect: a key that counts only beside certain values of another key.

Specs say which these are (`specs.base.Only`).  A setting is refused where it has no effect in any variant that it is
merged into.  It is not refused where it comes from the repository's methods, nor where a later file or option than its
own has turned off what it belongs to: a benchmark may switch off what its base has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from diffbench.plan.document import Keys
from diffbench.plan.reading import Tree
from diffbench.specs.base import Spec
from diffbench.specs.errors import PlanError


class Effects:
    """What is known of the settings in some files and options, which are laid over each other in their order."""

    def __init__(self, methods: Tree, layers: Sequence[Tree]) -> None:
        self.methods = set(methods.origins.values())
        self.layer = {
            origin: n for n, layer in enumerate(layers) for origin in layer.origins.values()
        }
        #: Place of a setting -> what is wrong with it; None where it has an effect.
        self.found: dict[str, str | None] = {}

    def add(self, spec: Spec, tree: Tree, prefix: Keys = ()) -> None:
        """Add the settings of a spec, which was made of a tree; ``prefix`` is shown before their keys."""
        for keys, others, reason in _settings(spec, getattr(spec, "process", None)):
            origin = tree.origins.get(keys)
            if origin is None or origin in self.methods:
                continue
            above = "".join(f"{key}." for key in (*prefix, *keys[:-1]))
            if reason is None or any(self._is_later(tree, other, origin) for other in others):
                self.found[origin] = None
            else:
                self.found.setdefault(origin, f"{origin}: {above}{reason}")

    def _is_later(self, tree: Tree, keys: Keys, origin: str) -> bool:
        other = tree.origins.get(keys)
        return other is not None and self.layer.get(other, -1) > self.layer.get(origin, -1)

    def check(self) -> None:
        """Refuse the first setting without effect.

        Raises:
            PlanError: with its place, its value, and what it belongs to.
        """
        for told in filter(None, self.found.values()):
            raise PlanError(told)


def _settings(
    value: Any, process: Any, keys: Keys = ()
) -> Iterator[tuple[Keys, list[Keys], str | None]]:
    """Yield the keys of all settings that depend on others (``Spec.dependent``), within a spec with this process."""
    inner: Any = ()
    if isinstance(value, Spec):
        for key, others, reason in value.dependent(process):
            yield (*keys, key), [(*keys, other) for other in others], reason
        inner = [(name, getattr(value, name)) for name in type(value).model_fields]
    elif isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list | tuple):
        inner = enumerate(value)
    for key, each in inner:
        yield from _settings(each, process, (*keys, key))
