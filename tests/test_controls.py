"""Controls: images of a split, noise, and images that were made elsewhere."""

import json
import zipfile

import numpy as np
import pytest
from archives import png
from commands import REPOSITORY, TINY

from diffbench import cli
from diffbench.data.controls import ImagesControl, NoiseControl, SplitControl
from diffbench.plan.loading import load_plan
from diffbench.specs.controls import ImagesControlSpec, NoiseControlSpec, SplitControlSpec
from diffbench.specs.errors import PlanError
from diffbench.store.products import read_json


def draw(control, digits, samples, seed=0):
    return control.draw(digits, samples, np.random.default_rng(seed))


def test_a_small_split_is_given_whole(digits):
    control = SplitControl(SplitControlSpec(split="test"))
    assert np.array_equal(draw(control, digits, 1000), digits.test)


def test_a_large_split_is_drawn_from_without_repeats(digits):
    # Each training image stands in the draw at most as often as in the split (a few digits are twins).
    drawn = draw(SplitControl(SplitControlSpec(split="train")), digits, 1000)
    assert drawn.shape == (1000, 8, 8, 1)
    values, counts = np.unique(drawn.reshape(1000, -1), axis=0, return_counts=True)
    available = {row.tobytes(): 0 for row in values}
    for row in digits.train.reshape(len(digits.train), -1):
        if row.tobytes() in available:
            available[row.tobytes()] += 1
    assert all(count <= available[row.tobytes()] for row, count in zip(values, counts, strict=True))


def test_noise_is_uniform_over_the_levels_and_a_function_of_the_seed(digits):
    control = NoiseControl(NoiseControlSpec())
    noise = draw(control, digits, 2000)
    # 128,000 pixels, 17 levels: each count is 7529 +- 84; five standard deviations either way.
    counts = np.bincount(noise.ravel(), minlength=17)
    assert len(counts) == 17
    assert np.abs(counts - 128000 / 17).max() < 5 * np.sqrt(128000 / 17)
    assert np.array_equal(noise, draw(control, digits, 2000))
    assert not np.array_equal(noise, draw(control, digits, 2000, seed=1))


def images_of(path, **options):
    return ImagesControl(ImagesControlSpec(path=str(path), **options))


@pytest.fixture
def made(digits):
    """Thirty test images in the digits' 17 grey levels, and the same in 256."""
    grey = digits.test[:30]
    return grey, np.rint(grey.astype(float) * 255 / 16).astype(np.uint8)


@pytest.fixture
def folder(tmp_path, made):
    """The images as PNGs, numbered; a hidden file is no image."""
    inner = tmp_path / "pngs"
    inner.mkdir()
    for number, image in enumerate(made[1]):
        (inner / f"{number:03}.png").write_bytes(png(image))
    (inner / ".hidden.png").write_bytes(b"")
    return inner


def test_pngs_of_256_levels_become_the_data_sets_grey_levels(folder, made, digits):
    """Level k of 17 is written as the nearest to 255 k/16, and is the nearest of 17 to that again."""
    assert np.array_equal(draw(images_of(folder), digits, 100), made[0])
    archive = folder.parent / "all.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.glob("[0-9]*.png"):
            file.write(path, path.name)
    assert np.array_equal(draw(images_of(archive), digits, 100), made[0])


@pytest.mark.parametrize("flat", [False, True])
def test_an_npz_has_one_array_of_images(tmp_path, made, digits, flat):
    image, given = (each[..., 0] if flat else each for each in made)
    np.savez(tmp_path / "of256.npz", anything=given, labels=np.arange(30))
    np.savez(tmp_path / "of17.npz", arr_0=image)
    assert np.array_equal(draw(images_of(tmp_path / "of256.npz"), digits, 100), made[0])
    assert np.array_equal(draw(images_of(tmp_path / "of17.npz", levels=17), digits, 100), made[0])


def test_more_images_than_are_wanted_are_drawn_from_without_repeats(folder, digits):
    drawn = draw(images_of(folder), digits, 20)
    assert len(np.unique(drawn.reshape(20, -1), axis=0)) == 20
    assert not np.array_equal(drawn, draw(images_of(folder), digits, 20, seed=1))


def refusal(control, digits):
    with pytest.raises(ValueError) as error:
        draw(control, digits, 100)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_are_no_such_images_is_refused_with_what_they_are(tmp_path, folder, made, digits):
    def npz(**arrays):
        np.savez(tmp_path / "a.npz", **arrays)
        return images_of(tmp_path / "a.npz")

    assert "(8, 4, 1) (height, width, channels)" in refusal(npz(a=made[1][:, :, :4]), digits)
    assert "(1, 8, 8)" in refusal(npz(a=made[1].transpose(0, 3, 1, 2)), digits)
    assert "is float32: images must be uint8" in refusal(npz(a=made[1].astype(np.float32)), digits)
    assert "must hold one array of images, and holds a (30, 8, 8, 1), b" in refusal(
        npz(a=made[1], b=made[1]), digits
    )
    assert "holds nothing" in refusal(npz(), digits)
    (tmp_path / "a.npz").write_bytes(b"PK no zip")
    assert "is not a complete npz file" in refusal(images_of(tmp_path / "a.npz"), digits)
    np.savez(tmp_path / "a.npz", a=made[1])
    assert "grey level 255, and control.levels is 17" in refusal(
        images_of(tmp_path / "a.npz", levels=17), digits
    )
    (folder / "010.png").write_bytes(png(made[1][0, :4, :4]))
    assert "010.png is 4x4 with 1 channel, but " in refusal(images_of(folder), digits)
    (folder / "010.png").write_bytes(png(made[1][0])[:40])
    assert "010.png is not a complete image" in refusal(images_of(folder), digits)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "there are no PNG images in" in refusal(images_of(empty), digits)


def planned_with(path):
    method = {"mine": {"control": {"name": "images", "path": str(path)}, "note": "made elsewhere"}}
    return load_plan([TINY], {"variants": ["mine"], "methods": method}, REPOSITORY)


def test_the_plan_reads_the_images_and_misses_them_at_once(folder):
    plan = planned_with(folder)
    job = plan.job("sample", "mine", 0, "draw")
    assert plan.located.controls == {job.spec.control.contents: folder}
    with pytest.raises(
        PlanError, match=r"mine.control.path: there is no file or folder '.*nowhere'"
    ):
        planned_with(folder / "nowhere")


@pytest.mark.slow
def test_a_folder_is_scored_without_a_benchmark_file(folder, made, tmp_path, monkeypatch, capsys):
    """As often as it is asked: other images of the same name are not mistaken for the first ones."""
    monkeypatch.chdir(tmp_path)
    values = []
    for round in range(2):
        assert cli.main(["score", "pngs", "--against", str(TINY)]) == 0
        said = capsys.readouterr().out
        assert "images-pngs: images of pngs." in said
        scores = tmp_path / "results/tiny/runs/images-pngs/seed0/scores.json"
        values.append(read_json(scores)["solvers"]["draw"]["metrics"]["fid"]["value"])
        for path in folder.glob("[0-9]*.png") if not round else []:
            path.write_bytes(png(255 - made[1][int(path.stem)]))
    assert values[1] > 2 * values[0]
    spec = json.loads((scores.parent / "samples/draw/spec.json").read_bytes())["spec"]
    assert spec["control"].keys() == {"name", "path", "levels", "lossy", "contents"}
    assert spec["control"]["path"] is None
    assert cli.main(["score", "nowhere"]) == 1
    assert "nowhere: there is no such file or folder of images" in capsys.readouterr().err
