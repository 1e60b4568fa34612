"""Who serves whom: every registered name, the specs' own answers, extensions, plain text."""

from typing import Literal

import pytest

from diffbench.plan.matrix import STEPS, WIDTH, Matrix, example, matrix, refusal
from diffbench.specs.base import PositiveFloat
from diffbench.specs.likelihoods import LikelihoodSpec, VLBSpec
from diffbench.specs.processes import DiscreteSpec, EDMSpec, ProcessSpec
from diffbench.specs.solvers import SolverSpec


@pytest.fixture
def registered(monkeypatch):
    """Register specs for one test."""
    for kind in (ProcessSpec, SolverSpec, LikelihoodSpec):
        monkeypatch.setattr(kind, "known", dict(kind.known))


def test_everything_that_is_registered_has_its_row_or_column():
    made = matrix()
    assert list(made.processes) == sorted(ProcessSpec.known)
    assert list(made.rows["solvers"]) == sorted(SolverSpec.known)
    assert list(made.rows["likelihoods"]) == sorted(LikelihoodSpec.known)


def test_cells_are_what_the_specs_say():
    made = matrix()
    column = made.processes.index("discrete")
    bound = made.rows["likelihoods"]["vlb"]
    assert bound[column] == "yes"
    reason = VLBSpec().refusal(EDMSpec())
    assert bound[made.processes.index("edm")] == f"[{made.footnotes.index(reason) + 1}]"
    chain = DiscreteSpec(schedule="linear")
    for name, cells in made.rows["solvers"].items():
        solver = SolverSpec.known[name]
        steps = {"steps": STEPS} if "steps" in solver.model_fields else {}
        reason = solver(**steps).refusal(chain)
        assert cells[column] == (f"[{made.footnotes.index(reason) + 1}]" if reason else "yes")


def test_a_reason_is_a_footnote_once(registered):
    class Odd(SolverSpec):
        name: Literal["odd"] = "odd"

        def refusal(self, process, denoiser=None):
            return "it is odd"

    made = matrix()
    assert made.footnotes.count("it is odd") == 1
    assert set(made.rows["solvers"]["odd"]) == {f"[{made.footnotes.index('it is odd') + 1}]"}
    assert len(set(made.footnotes)) == len(made.footnotes)


def test_a_required_choice_is_the_first_and_a_required_number_is_named(registered):
    class Chosen(ProcessSpec):
        name: Literal["chosen"] = "chosen"
        schedule: Literal["b", "a"]

    class Demanding(ProcessSpec):
        name: Literal["demanding"] = "demanding"
        strength: PositiveFloat
        width: PositiveFloat

    assert example(Chosen).schedule == "b"
    made = matrix()
    column = made.processes.index("demanding")
    number = made.footnotes.index("demanding has no default for strength, width") + 1
    cells = {cells[column] for rows in made.rows.values() for cells in rows.values()}
    assert cells == {f"[{number}]"}


def test_steps_are_given_to_those_that_take_them():
    assert example(VLBSpec).steps is None
    assert example(VLBSpec, 7).steps == 7
    assert example(EDMSpec, 7) == EDMSpec()


def test_defaults_that_make_no_spec_are_a_reason():
    reason = example(VLBSpec, -1)
    assert (
        reason == "the defaults of vlb are not a valid likelihood: Input should be greater than 0"
    )
    assert refusal(reason, EDMSpec()) == reason


def test_the_text_is_aligned_below_headings_with_the_footnotes_last():
    rows = {
        "solvers": {"a": ["yes", "[1]"], "longest": ["[2]", "yes"]},
        "bounds": {"b": ["[1]"] * 2},
    }
    long = "words " * 20 + "end"
    assert str(Matrix(["vp", "process"], rows, ["short", long])).splitlines() == [
        "solvers  vp    process",
        "a        yes   [1]",
        "longest  [2]   yes",
        "",
        "bounds   vp    process",
        "b        [1]   [1]",
        "",
        "[1] short",
        "[2] " + ("words " * 16).strip(),
        "    words words words words end",
    ]


def test_the_text_is_not_too_wide_with_six_processes(monkeypatch):
    six = dict(sorted(ProcessSpec.known.items())[:6])
    monkeypatch.setattr(ProcessSpec, "known", six)
    assert max(map(len, str(matrix()).splitlines())) <= WIDTH


def test_without_refusals_there_are_no_footnotes():
    text = str(Matrix(["vp"], {"solvers": {"heun": ["yes"]}}, []))
    assert text == "solvers  vp\nheun     yes"
