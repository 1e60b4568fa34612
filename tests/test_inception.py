"""Inception-v3 against torch-fidelity's own front door, with weights that nobody trained."""

import hashlib
import os
import shutil

import numpy as np
import pytest
import torch
import yaml
from commands import REPOSITORY, the_reason
from PIL import Image

from diffbench import cli
from diffbench.data.datasets import Dataset
from diffbench.metrics import reference_statistics
from diffbench.metrics.distances import fitted
from diffbench.metrics.extractor import features_and_logits
from diffbench.metrics.inception import (
    Inception,
    PublishedInception,
    clean_resize,
    folded,
    read_network,
    tensorflow_resize,
)
from diffbench.metrics.torchvision_operators import torch_fidelity
from diffbench.plan.loading import load_plan
from diffbench.specs.extractors import INCEPTION_SHA256, INCEPTION_SIZE, InceptionSpec
from diffbench.store.downloads import PublishedFile
from diffbench.store.products import StoreError, read_json, status_of


@pytest.fixture(autouse=True)
def no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DIFFBENCH_WEIGHTS", raising=False)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file as torch-fidelity publishes it: a dict of tensors, without counts of batches.

    Batch statistics are drawn too, else folding would have nothing to fold.
    """
    torch_fidelity()
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    # Its constructor always reads a file: what it would read is made on the way.
    generator = torch.Generator().manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "network.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
        module = theirs.FeatureExtractorInceptionV3("drawn", ["2048"])
    state = {}
    for name, tensor in module.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        drawn = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim == 4:
            state[name] = drawn * (2 / tensor[0].numel()) ** 0.5
        elif name.endswith("running_var") or name.endswith("bn.weight"):
            state[name] = 1 + 0.2 * drawn.clamp(-2, 2)
        else:
            state[name] = 0.1 * drawn
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def digest(weights):
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def spec_of(weights, digest, **options):
    return InceptionSpec(weights=str(weights), sha256=digest, **options)


def dataset_of(channels=3, levels=256, count=16, side=32):
    """Coarse random images, the first eight of them the test split."""
    random = np.random.RandomState(0)
    smooth = random.rand(count, 4, 4, channels).repeat(side // 4, 1).repeat(side // 4, 2)
    images = (smooth * (levels - 1)).astype(np.uint8)
    labels = np.zeros(count, np.int64)
    return Dataset(images[8:], images[:8], labels[8:], labels[:8], levels, ("all",), name="some")


@pytest.fixture(scope="module")
def made(weights, digest):
    extractor = PublishedInception(spec_of(weights, digest, opinions=["clean_fid"]))
    return extractor, extractor.make(dataset_of())


class Levels(torch.utils.data.Dataset):
    def __init__(self, levels):
        self.images = torch.from_numpy(np.ascontiguousarray(levels.transpose(0, 3, 1, 2)))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


@pytest.mark.slow
def test_fid_and_the_others_are_those_of_calculate_metrics(made, weights):
    """Folded weights and statistics through our code; theirs, unfolded, through their front door.

    The square root of FID is a distance (Wasserstein's, of order 2), which two sets of features move by no more than
    they move themselves.  Float32 features differ by less than 1e-6 of their size, from folding and the order of sums.
    """
    extractor, module = made
    dataset = dataset_of()
    splits = {"train": dataset.train[:6], "test": dataset.test[:4]}
    measured = reference_statistics.measure(module, splits, part=4)
    samples = np.roll(dataset.test[:5], 3, axis=1)
    z, logits = features_and_logits(module, samples, 3)
    theirs = torch_fidelity().calculate_metrics(
        input1=Levels(samples),
        input2=Levels(splits["train"]),
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(weights),
        fid=True,
        isc=True,
        isc_splits=2,
        batch_size=4,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    ours = measured.distances["train"](fitted(z))
    moved = 1e-6 * float(np.linalg.norm(z, axis=1).max())
    assert ours**0.5 == pytest.approx(theirs["frechet_inception_distance"] ** 0.5, abs=2 * moved)
    from torch_fidelity.metric_isc import isc_features_to_metric

    score = isc_features_to_metric(torch.from_numpy(logits), splits=2)["inception_score_mean"]
    assert score == pytest.approx(theirs["inception_score_mean"], rel=1e-5)
    assert (z.shape, logits.shape) == ((5, 2048), (5, 1008))
    assert module.name == "inception-v3"


@pytest.mark.slow
def test_folding_changes_nothing_but_rounding(weights):
    network = read_network(weights)
    x = Levels(dataset_of(count=10).train[:1]).images
    wanted = network(x)
    without = folded(network)
    for a, b in zip(without(x), wanted, strict=True):
        assert float((a - b).norm() / b.norm()) < 2e-6
    assert not any(isinstance(each, torch.nn.BatchNorm2d) for each in without.modules())


@pytest.mark.slow
def test_grey_levels_are_scaled_and_repeated(made):
    """Level 8 of 17 is 127.5 of 255, which rounds up."""
    _, module = made
    grey = Inception(module.network, 17, tensorflow_resize)
    assert grey.table[[0, 1, 8, 16]].tolist() == [0, 16, 128, 255]
    levels = dataset_of(1, 17).train[:1]
    colour = grey.table.numpy().astype(np.uint8)[levels].repeat(3, axis=-1)
    for a, b in zip(
        *(features_and_logits(m, x) for m, x in ((grey, levels), (module, colour))), strict=True
    ):
        assert np.array_equal(a, b)


def test_other_channels_are_refused(weights, digest):
    with pytest.raises(ValueError, match="grey or RGB images, but those of some have 4 channels"):
        PublishedInception(spec_of(weights, digest)).make(dataset_of(4))


def test_the_clean_resizing_is_a_cubic_filter_that_does_not_alias():
    """Pillow's kernel, a = -1/2, written out; widened by the scale where images shrink."""

    def matrix(size):
        scale = max(size / 299, 1.0)
        centres = (np.arange(299) + 0.5) * size / 299
        t = np.abs((np.arange(size)[None] + 0.5 - centres[:, None]) / scale)
        w = np.where(t < 1, 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2)
        w = np.where(t < 2, w, 0)
        return w / w.sum(1, keepdims=True)

    random = np.random.RandomState(0)
    for height, width in ((32, 32), (64, 40), (512, 400)):
        x = random.randint(0, 256, (2, 3, height, width)).astype(np.float32)
        wanted = (matrix(height) @ x.astype(np.float64) @ matrix(width).T).clip(0, 255)
        found = clean_resize(torch.from_numpy(x)).numpy()
        assert found.dtype == np.float32
        assert np.abs(found - wanted).max() < 1e-3
        assert np.abs(found - np.round(found)).max() > 0.4


def test_the_other_resizing_aliases():
    """A chequerboard of single pixels is grey from afar; TensorFlow 1 reads single pixels of it."""
    board = 255 * (np.indices((598, 598)).sum(0) % 2).astype(np.float32)
    x = torch.from_numpy(board)[None, None]
    assert abs(float(clean_resize(x)[..., 5:-5, 5:-5].mean()) - 127.5) < 1
    assert float(clean_resize(x)[..., 5:-5, 5:-5].std()) < 5
    assert set(tensorflow_resize(x).unique().tolist()) == {0.0}


@pytest.mark.slow
def test_clean_fid_is_the_networks_fid_of_images_resized_by_pillow(made):
    extractor, module = made
    ((name, opinion),) = extractor.opinions(module).items()
    assert name == "clean_fid"
    levels = dataset_of(count=10).train[:1]
    planes = [
        [
            np.asarray(
                Image.fromarray(image[..., c].astype(np.float32)).resize(
                    (299, 299), Image.Resampling.BICUBIC
                )
            )
            for c in range(3)
        ]
        for image in levels
    ]
    x = torch.from_numpy(np.array(planes)).clip(0, 255)
    wanted, _ = module.embed((x - 128) / 128)
    found, _ = features_and_logits(opinion, levels)
    assert np.allclose(found, wanted.double().numpy(), rtol=1e-5, atol=1e-6)
    assert opinion.network is module.network
    assert (
        PublishedInception(extractor.spec.model_copy(update={"opinions": ()})).opinions(module)
        == {}
    )


@pytest.mark.slow
def test_sfid_is_of_the_first_channels_of_the_block_mixed_6(made):
    """torch-fidelity's block joins its branches, the 1 x 1 convolution first; TensorFlow's channels come last."""
    extractor, module = made
    spec = extractor.spec.model_copy(update={"opinions": ("sfid",)})
    ((name, opinion),) = PublishedInception(spec).opinions(module).items()
    joined = []
    hook = module.network.Mixed_6d.register_forward_hook(lambda *call: joined.append(call[2]))
    levels = dataset_of(count=9).train[:1]
    features_and_logits(module, levels)
    hook.remove()
    found, logits = features_and_logits(opinion, levels)
    wanted = joined[0][:, :7].permute(0, 2, 3, 1).reshape(1, -1).double().numpy()
    assert (name, found.shape, logits.shape) == ("sfid", (1, 2023), (1, 0))
    assert np.array_equal(found, wanted) and wanted.std() > 0


def refused(extractor, kind=StoreError):
    with pytest.raises(kind) as caught:
        extractor.make(dataset_of())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_that_are_not_there_are_named_with_their_source(tmp_path, digest):
    text = refused(PublishedInception(InceptionSpec(weights=str(tmp_path / "gone.pth"))))
    for part in ("gone.pth", "https://github.com/toshas/torch-fidelity", INCEPTION_SHA256):
        assert part in text
    assert f"{INCEPTION_SIZE:,} bytes" in text
    assert "`extractor.weights`" in text
    # Other weights are published nowhere that we know.
    assert digest in refused(PublishedInception(InceptionSpec(sha256=digest)))
    assert not list(tmp_path.iterdir())


def test_without_network_nothing_is_left_behind(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr("diffbench.store.downloads.urllib.request.urlopen", unreachable)
    text = refused(PublishedInception(InceptionSpec()))
    for part in ("Network is unreachable", "weights-inception-2015-12-05", INCEPTION_SHA256):
        assert part in text
    assert all(path.name.endswith(".lock") for path in (tmp_path / "cache").iterdir())


def test_truncated_and_other_weights_are_refused(tmp_path, weights, digest):
    cut = tmp_path / "cut.pth"
    cut.write_bytes(weights.read_bytes()[:-1000])
    assert "has sha256" in refused(PublishedInception(spec_of(cut, digest)))
    size = f"has {os.path.getsize(weights):,} bytes"
    assert size in refused(PublishedInception(InceptionSpec(weights=str(weights))))


class Hostile:
    def __reduce__(self):
        return (os.system, ("touch executed",))


def test_a_file_of_the_right_sum_and_wrong_content_executes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for content in ({"fc.weight": torch.zeros(2)}, Hostile()):
        torch.save(content, "other.pth")
        sha256 = hashlib.sha256((tmp_path / "other.pth").read_bytes()).hexdigest()
        text = refused(PublishedInception(spec_of("other.pth", sha256)), ValueError)
        assert "extractor.weights: other.pth is not a state_dict" in text
    assert not (tmp_path / "executed").exists()


@pytest.mark.slow
def test_weights_are_found_by_the_environment_and_in_the_cache(
    tmp_path, weights, digest, monkeypatch
):
    monkeypatch.setenv("DIFFBENCH_WEIGHTS", str(weights))
    extractor = PublishedInception(InceptionSpec(sha256=digest))
    module = extractor.make(dataset_of())
    assert extractor.sha256(module) == digest
    monkeypatch.delenv("DIFFBENCH_WEIGHTS")
    cached = PublishedFile("", None, digest, None, "").cached
    cached.parent.mkdir(parents=True)
    shutil.copy(weights, cached)
    assert extractor.published.local() == cached


@pytest.fixture
def benchmark(tmp_path, weights, digest, monkeypatch):
    """A plan of one control on a folder of colour images, in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    images = dataset_of(count=26, side=8)
    for index, image in enumerate(np.concatenate([images.train, images.test])):
        Image.fromarray(image).save(tmp_path / "images" / f"{index}.png")
    content = {
        "name": "small",
        "data": {"name": "folder", "path": "images", "test_fraction": 0.8},
        "extractor": {"name": "inception", "weights": str(weights), "sha256": digest},
        "device": "cpu",
        "samples": 20,
        # A distance of 2,048 features takes seconds, and a floor one for each set of redraws.
        "floors": {"redraws": 2},
        "variants": ["control-test"],
    }
    content["extractor"]["opinions"] = ["clean_fid"]
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(content))
    plan = load_plan([tmp_path / "small.yaml"], {}, REPOSITORY)
    monkeypatch.setenv("DIFFBENCH_DATA", plan.located.told)
    return plan


@pytest.mark.slow
def test_from_a_folder_to_a_table(benchmark, weights, digest, monkeypatch):
    """A job's text does not say where the weights lie: the rules say it in the environment."""
    monkeypatch.setenv("DIFFBENCH_WEIGHTS", str(weights))
    for job in benchmark.jobs:
        arguments = ["--root", str(job.root), "--spec", job.spec.canonical(), "--device", "cpu"]
        assert cli.main([job.stage, *arguments]) == 0
        assert {status_of(path, job.spec) for path in job.products} == {"ok"}
    stored = read_json(benchmark.job("score", "control-test").product)
    metrics = stored["solvers"]["draw"]["metrics"]
    assert {"fid", "fid_test", "clean_fid", "is", "kid", "precision", "recall"} <= metrics.keys()
    assert "class_accuracy" not in metrics
    assert metrics["fid"] != metrics["clean_fid"]
    assert all(metrics[name]["se"] is None for name in ("fid", "clean_fid", "is"))
    protocol = stored["protocol"]
    assert (protocol["extractor"], protocol["extractor_sha256"]) == ("inception-v3", digest)
    assert protocol["reference_counts"] == {"train": 5, "test": 21}
    assert protocol["kid_gamma"] == 1 / 2048
    assert cli.main(["table", "--config", "small.yaml"]) == 0
    table = (benchmark.root / "tables" / "overview.md").read_text()
    assert f"extractor inception-v3 sha256 {digest[:8]} (grey levels to 0..255" in table
    assert "reference train (5 images), torch-fidelity 0.4.0" in table


def test_a_failed_reference_is_what_the_table_says(benchmark, capsys):
    """Without network, and with the weights gone since the plan was made."""
    job = benchmark.job("data")
    assert cli.main(["data", "--root", str(job.root), "--spec", job.spec.canonical()]) == 0
    job = benchmark.job("reference")
    assert cli.main(["reference", "--root", str(job.root), "--spec", job.spec.canonical()]) == 1
    said = the_reason(capsys.readouterr().err)
    assert said.startswith(
        "diffbench reference: the weights of Inception-v3: it is not in the cache"
    )
    assert not list((benchmark.root / "data").rglob("reference/*"))
    cli.main(["table", "--config", "small.yaml"])
    table = (benchmark.root / "tables" / "overview.csv").read_text()
    assert "reference: the weights of Inception-v3: it is not in the cache" in table
