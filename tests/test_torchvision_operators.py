"""torchvision imports beside any torch, and only its one known failure is cured."""

import importlib
from types import ModuleType

import pytest

from diffbench.metrics import torchvision_operators


def test_torchvision_imports_twice() -> None:
    torchvision_operators.ensure_importable()
    torchvision_operators.ensure_importable()
    assert importlib.import_module("torchvision").__version__


@pytest.mark.parametrize("error", [RuntimeError("another operator"), ImportError("not installed")])
def test_other_failures_pass_through(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(name: str) -> ModuleType:
        raise error

    monkeypatch.setattr(torchvision_operators.importlib, "import_module", fail)
    monkeypatch.setattr(torchvision_operators, "_declare", lambda: pytest.fail("declared"))
    with pytest.raises(type(error), match=str(error)):
        torchvision_operators.ensure_importable()
