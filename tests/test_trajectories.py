"""The figure of trajectories: its pictures and numbers by hand, and what it says where there are none."""

import io

import numpy as np
import pytest
from layouts import configured, fill, rows_of
from PIL import Image

from diffbench.reporting.tables import charts
from diffbench.reporting.trajectories import EMPTY, NONE, pictures, places, short, spaced
from diffbench.specs.processes import ReflectedSpec, VESpec, VPSpec
from diffbench.store import paths
from diffbench.store.products import write_product

FIGURES = {"ways": {"layout": "trajectories", "title": "Ways", "images": 1}}


def kept(**changes):
    """Three states of two images of a process on [-1, 1]: noise, half noise, an image that is white."""
    shape = (3, 2, 8, 8, 1)
    arrays = {
        "states": np.ones(shape, np.float32) * np.linspace(-1, 1, 3)[:, None, None, None, None],
        "steps": np.arange(3),
        "alpha": np.linspace(0.5, 1, 3),
        "sigma": np.linspace(2, 0, 3),
    }
    return {"alpha_highest": arrays["alpha"]} | arrays | changes


def written(folder, content, only=("edm",), **benchmark):
    """The plan and the figure of a benchmark whose trajectories have this content."""
    settings = {"trajectory": {"images": 2, "states": 3}, "variants": list(only), "seeds": [0]}
    plan = configured(folder, figures=FIGURES, **settings | benchmark)
    fill(plan, folder)
    for job in plan.of("trajectory"):
        path = paths.product(folder, job.spec)
        write_product(path, lambda file: np.savez(file, **content), job.spec)
    return plan, charts(plan, folder)["ways"]


def test_a_state_is_shown_with_noise_of_one_contrast():
    content = kept(sigma=np.array([7.0, 3.0, 0.0]), alpha=np.array([1.0, 1.0, 1.0]))
    x = content["states"]
    # VE's data range is [0, 1], EDM's and VP's [-1, 1]; divided by sqrt(1 + 49), sqrt(1 + 9) and 1.
    shown = pictures(content, VESpec())
    assert shown.dtype == np.uint8
    found = [
        (2 * value - 1) / np.sqrt(scale)
        for value, scale in zip((-1, 0, 1), (50, 10, 1), strict=True)
    ]
    assert shown[:, 0, 0, 0, 0].tolist() == [round(255 * (each + 1) / 2) for each in found]
    # VP keeps the power 1, so that states are shown as they are; what is outside the range is black or white.
    steady = kept(states=x * 3, alpha=np.array([0.6, 0.8, 1.0]), sigma=np.array([0.8, 0.6, 0.0]))
    assert pictures(steady, VPSpec())[:, 1, 2, 3, 0].tolist() == [0, 128, 255]


def test_states_between_walls_are_shown_as_they_are():
    content = kept(states=np.full((3, 1, 2, 2, 1), 0.2, np.float32))
    assert set(pictures(content, ReflectedSpec()).flat) == {51}


def test_few_states_leave_places_empty():
    shown = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1, 1)
    assert places(3, 6) == [0, 2, 5]
    assert spaced(shown, 6).flatten().tolist() == [0, EMPTY, 1, EMPTY, EMPTY, 2]
    assert places(12, 12) == list(range(12))


def test_its_numbers_are_noise_levels_and_distances(tmp_path):
    plan, drawing = written(tmp_path, kept())
    (tmp_path / "f.csv").write_text(drawing.csv("ways"))
    rows = rows_of(tmp_path / "f.csv")
    assert {(row["figure"], row["panel"]) for row in rows} == {("ways", "edm, heun-3")}
    found = {
        name: [float(row["y"]) for row in rows if row["series"] == name]
        for name in ("sigma/alpha", "difference from the image")
    }
    assert found["sigma/alpha"] == pytest.approx([4, 1 / 0.75, 0], rel=1e-5)
    # -1/sqrt(0.25 + 4) and 0 in grey values of 256 levels, against white.
    first = round(255 * (1 - 1 / 4.25**0.5) / 2) / 255
    assert found["difference from the image"] == pytest.approx(
        [1 - first, 1 - 128 / 255, 0], abs=1e-5
    )
    assert [row["x"] for row in rows[:3]] == ["0", "1", "2"]
    (pane,) = drawing.panes
    assert (pane.feet, [row.label for row in pane.rows]) == (["4", "1.3", "0"], ["image 1"])
    image = Image.open(io.BytesIO(drawing.png()))
    assert drawing.png() == drawing.png()
    assert image.width > image.height


def test_blur_has_two_noise_levels(tmp_path):
    _, drawing = written(tmp_path, kept(alpha_highest=np.array([0.0, 1e-3, 1.0])))
    (pane,) = drawing.panes
    assert pane.feet == ["4\ninf", "1.3\n1000", "0\n0"]
    highest = [line for line in drawing.panels[0].lines if line.label.endswith("highest frequency")]
    assert [point.y for point in highest[0].points] == [None, 1000, 0]


def test_what_is_missing_is_said(tmp_path):
    plan, _ = written(tmp_path, kept(), only=["edm", "ve"])
    job = plan.job("trajectory", "ve", 0, "pc-3")
    paths.product(tmp_path, job.spec).write_bytes(b"torn")
    drawing = charts(plan, tmp_path)["ways"]
    rows = [line for line in drawing.csv("ways").splitlines() if line.startswith('ways,"ve, pc-3')]
    assert len(rows) == 1
    assert "failed" in rows[0] and "sha256" in rows[0]
    assert [pane.rows[0].status for pane in drawing.panes] == ["ok", "failed"]
    drawing.png()


def test_a_benchmark_without_trajectories_says_how_to_ask(tmp_path):
    plan, drawing = written(tmp_path, kept(), trajectory="none")
    assert (drawing.panes, drawing.note) == ([], NONE)
    assert "trajectory" in drawing.csv("ways")
    drawing.png()


def test_noise_levels_are_short():
    values = (0, 0.0131, 1.44, 80, 157.2, 9999, 19999, 2.5e-7)
    found = [short(value) for value in values]
    assert found == ["0", "0.013", "1.4", "80", "157", "9999", "2e4", "2.5e-7"]
