"""The stage restore on the digits, with operators of an extension: what is measured, drawn, kept and scored."""

import io
import json

import numpy as np
import pytest
import torch
import yaml
from commands import REPOSITORY
from PIL import Image

from diffbench.data.grey_levels import GreyLevels
from diffbench.diffusion.core.streams import stream
from diffbench.diffusion.inverse.restorers.baselines import PosteriorMean
from diffbench.diffusion.inverse.restorers.restorer import Measurement
from diffbench.jobs import data, reference, restore, train
from diffbench.jobs.reference import load_fidelity
from diffbench.metrics.image import psnr, ssim
from diffbench.plan.loading import load_plan
from diffbench.specs.extensions import source
from diffbench.specs.operators import OperatorSpec
from diffbench.specs.registry import build
from diffbench.specs.restorers import PosteriorMeanSpec, RestorerSpec
from diffbench.store import paths
from diffbench.store.products import status_of

pytestmark = pytest.mark.slow

EXTENSION = REPOSITORY / "tests" / "halving.py"
IMAGES, DRAWS = 12, 3
BENCHMARK = {
    "name": "restored",
    "extensions": [str(EXTENSION)],
    "data": {"name": "digits"},
    "extractor": {"epochs": 12},
    "device": "cpu",
    "samples": 20,
    "chunk": 10,
    "variants": ["baselines", "edm-gaussian", "ve-gaussian"],
    "methods": {
        "edm-gaussian": {"process": {"name": "edm"}, "denoiser": {"name": "gaussian"}},
        "ve-gaussian": {"process": {"name": "ve"}, "denoiser": {"name": "gaussian"}},
    },
    "restorations": {
        "images": IMAGES,
        "draws": DRAWS,
        "tasks": {
            "half": {"operator": "half"},
            "noisy": {"operator": {"name": "half", "gain": 0.5}, "noise": 0.1},
            "bent": {"operator": "bent", "noise": 0.0},
        },
        "variants": ["*gaussian"],
        "restorers": {
            "guess": {"name": "guess", "spread": 0.2},
            "ccdf-0.5": {
                "name": "ccdf",
                "start": 0.5,
                "around": {"name": "replace", "solver": {"name": "ddim", "steps": 4}},
                "estimate": {"name": "posterior-mean"},
            },
        },
    },
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The plan and the results of all its restorations; what the extension registered is forgotten afterwards."""
    folder = tmp_path_factory.mktemp("restored")
    (folder / "restored.yaml").write_text(yaml.safe_dump(BENCHMARK))
    plan, root = load_plan([folder / "restored.yaml"], {}, REPOSITORY), folder / "results"
    for module in (data, reference, train, restore):
        for run in plan.of(module.__name__.rpartition(".")[2]):
            module.run(run.spec, root, "cpu")
    yield plan, root
    for kind, names in ((OperatorSpec, ("half", "bent")), (RestorerSpec, ("guess",))):
        for name in names:
            kind.known.pop(name)
    __import__("sys").modules.pop(source(EXTENSION).module)


def result(done, variant, item):
    """Scores and pictures of one job."""
    plan, root = done
    path, archive = paths.products(root, plan.job("restore", variant, 0, item).spec)
    with np.load(archive) as file:
        return json.loads(path.read_text()), dict(file)


def posed(done, variant, item):
    plan, root = done
    spec = plan.job("restore", variant, 0, item).spec
    dataset = data.load(root, spec.data)
    return spec, dataset, restore.pose(spec, dataset)


def test_every_product_fits_its_sidecar(done):
    plan, root = done
    # Of the baselines one, of each model one, refuses what is not linear.
    assert len(plan.of("restore")) == 5 + 2 * 5
    for run in plan.of("restore"):
        for path in paths.products(root, run.spec):
            assert status_of(path, run.spec) == "ok"
        assert (
            json.loads(paths.run_record(paths.product(root, run.spec)).read_text())["seconds"] > 0
        )


def test_all_restore_the_same_measurements_up_to_their_range(done):
    """VE has data in [0, 1], EDM in [-1, 1]; noise is 0.1 of the range, of each image by itself."""
    spec, dataset, wide = posed(done, "edm-gaussian", "noisy/guess")
    _, _, narrow = posed(done, "ve-gaussian", "noisy/guess")
    clean = dataset.test[:IMAGES, :4, :, 0] / 16
    noise = 2 * (narrow.measurement.y[:, 0] - 0.5 * torch.from_numpy(clean).float())
    assert float(noise.std()) == pytest.approx(0.2, rel=0.1)
    assert (wide.measurement.std, narrow.measurement.std) == (0.2, 0.1)
    doubled = 2 * narrow.measurement.y - 0.5
    torch.testing.assert_close(wide.measurement.y, doubled, rtol=0, atol=1e-6)
    first = restore.pose(spec.model_copy(update={"images": 3, "seed": 5}), dataset)
    assert torch.equal(first.measurement.y, wide.measurement.y[:3])
    assert torch.equal(first.repeated(2)[:2], wide.measurement.y[[0, 0]])


def test_scores_are_those_of_the_restorations(done):
    """Recomputed from what the restorer draws, chunk by chunk, with each chunk's stream."""
    spec, dataset, problem = posed(done, "baselines", "noisy/pseudo-inverse")
    scores, _ = result(done, "baselines", "noisy/pseudo-inverse")
    metrics = {name: each["value"] for name, each in scores["metrics"].items()}
    x = 2 * problem.measurement.y
    whole = torch.cat([x, torch.zeros_like(x)], 2)
    shown, truth = ((whole + 1) / 2).clamp(0, 1), (problem.x + 1) / 2
    assert metrics["psnr"] == pytest.approx(float(psnr(shown, truth).mean()))
    assert metrics["ssim"] == pytest.approx(float(ssim(shown, truth).mean()))
    assert metrics["psnr_mean"] == pytest.approx(metrics["psnr"])
    assert (metrics["spread"], scores["nfe"]) == (0, 0)
    # H H^+ y is y: the noise is kept as it is.
    assert metrics["residual"] == pytest.approx(0, abs=1e-7)
    fidelity = load_fidelity(spec.reference, done[1], dataset, torch.device("cpu"), spec.floors)
    levels = GreyLevels(17).from_model(whole).repeat(DRAWS, axis=0)
    assert metrics["fid"] == pytest.approx(fidelity.frechet(levels)["value"])
    assert scores["protocol"] == json.loads(json.dumps(fidelity.protocol)) | {
        "images": 12,
        "draws": 3,
    }
    assert scores["samples"] == IMAGES * DRAWS
    assert "bias" not in metrics
    true = fidelity.frechet(dataset.test[:IMAGES].repeat(DRAWS, axis=0), DRAWS)
    assert scores["truth"]["fid"] == pytest.approx(true)
    assert scores["floors"] == fidelity.real_images.of_restorations(IMAGES, DRAWS)


def test_the_wiener_filter_beats_the_pseudo_inverse(done):
    for task in ("half", "noisy"):
        best, worst = (
            result(done, "baselines", f"{task}/{name}")[0]["metrics"]["psnr"]["value"]
            for name in ("posterior-mean", "pseudo-inverse")
        )
        assert best > worst + 1


def test_draws_differ_and_calls_are_counted(done):
    scores, kept = result(done, "edm-gaussian", "half/guess")
    assert scores["nfe"] == 1
    assert scores["metrics"]["spread"]["value"] > 0.05
    assert scores["metrics"]["residual"]["value"] == pytest.approx(0, abs=1e-6)
    draws = kept["restorations"]
    assert draws.shape == (10, DRAWS, 8, 8, 1)
    assert np.array_equal(draws[:, 0, :4], draws[:, 1, :4])
    assert not np.array_equal(draws[:, 0, 4:], draws[:, 1, 4:])


def test_what_is_kept_is_what_the_streams_give(done):
    spec, dataset, problem = posed(done, "edm-gaussian", "half/guess")
    _, kept = result(done, "edm-gaussian", "half/guess")
    denoiser = restore.load_denoiser(spec, done[1], dataset, torch.device("cpu"))
    restorer = build(spec.restorer, denoiser)
    y = problem.measurement.y.repeat_interleave(DRAWS, 0)
    parts = [
        restorer.restore(Measurement(problem.operator, part, 0.0), stream("restore", 0, i))
        for i, part in enumerate(y.split(10))
    ]
    x = torch.cat(parts).reshape(IMAGES, DRAWS, 1, 8, 8)[:10]
    grey = problem.grey
    assert np.array_equal(kept["restorations"][:, 1], grey.from_model(x[:, 1]))
    assert np.array_equal(kept["mean"], grey.from_model(x.mean(1)))
    assert np.array_equal(kept["truth"], dataset.test[:10])
    assert np.array_equal(kept["measurement"][:, :4], dataset.test[:10, :4])
    assert (kept["measurement"][:, 4:] == 8).all()


def test_the_picture_is_the_strip(done):
    plan, root = done
    picture = root / "runs/edm-gaussian/seed0/restore/half/guess/strip.png"
    _, kept = result(done, "edm-gaussian", "half/guess")
    shown = np.asarray(Image.open(io.BytesIO(picture.read_bytes())))
    rows = [kept["truth"], kept["measurement"], *kept["restorations"].swapaxes(0, 1), kept["mean"]]
    assert shown.shape[0] > shown.shape[1] / 10 * (len(rows) - 1)
    assert restore.strip(kept, 17) == picture.read_bytes()


def test_a_restorer_is_built_from_those_inside_it(done):
    """Two of four steps, from the training images' posterior mean; it agrees with what has no noise to 1e-6 of the
    range, what float32 rounds."""
    scores, _ = result(done, "edm-gaussian", "half/ccdf-0.5")
    assert scores["nfe"] == 2
    assert scores["metrics"]["residual"]["value"] < 1e-6


def test_of_a_gaussian_the_true_posterior_is_known(done):
    spec, dataset, problem = posed(done, "ve-gaussian", "noisy/guess")
    metrics = result(done, "ve-gaussian", "noisy/guess")[0]["metrics"]
    truth = PosteriorMean(PosteriorMeanSpec(), problem.grey.to_model(dataset.train))
    variance = float(truth.covariance(problem.operator, 0.1).diagonal().mean())
    assert metrics["sd_ratio"]["value"] > 0
    denoiser = restore.load_denoiser(spec, done[1], dataset, torch.device("cpu"))
    drawn, nfe = restore.restore(spec, done[1], dataset, problem, torch.device("cpu"))
    assert nfe == 1 and denoiser is not None
    sd = float(drawn.double().var(1).mean()) ** 0.5
    assert metrics["sd_ratio"]["value"] == pytest.approx(sd / variance**0.5, rel=1e-6)
    assert "bias" in metrics
    # Both ranges say the same in units of [0, 1] up to what the model draws.
    other = result(done, "edm-gaussian", "noisy/guess")[0]["metrics"]
    assert other["bias"]["value"] == pytest.approx(metrics["bias"]["value"], rel=0.5)


def test_what_is_no_matrix_has_a_range_of_its_own_and_no_posterior(done):
    metrics = result(done, "edm-gaussian", "bent/guess")[0]["metrics"]
    assert not {"bias", "sd_ratio"} & set(metrics)
    spec, dataset, problem = posed(done, "edm-gaussian", "bent/guess")
    x, _ = restore.restore(spec, done[1], dataset, problem, torch.device("cpu"))
    error = ((x.double() + 1) / 2) ** 3 - ((problem.x.double()[:, None] + 1) / 2) ** 3
    assert metrics["residual"]["value"] == pytest.approx(float(error.square().mean()) ** 0.5)
    exact = result(done, "baselines", "bent/pseudo-inverse")[0]["metrics"]
    assert exact["psnr"]["value"] > 90
    plan, _ = done
    refused = [each for each in plan.refusals if each.variant == "baselines"]
    assert [each.item for each in refused] == ["bent/posterior-mean"]


def test_too_many_images_are_one_line(done):
    spec, dataset, _ = posed(done, "baselines", "half/pseudo-inverse")
    with pytest.raises(
        ValueError, match=r"^restorations.images: 999 are asked for, but digits has 297"
    ):
        restore.pose(spec.model_copy(update={"images": 999}), dataset)


def test_what_is_not_finite_is_refused(done):
    spec, dataset, problem = posed(done, "baselines", "half/pseudo-inverse")
    problem.measurement.y[0] = float("nan")
    with pytest.raises(ValueError, match="the restoration"):
        restore.restore(spec, done[1], dataset, problem, torch.device("cpu"))
