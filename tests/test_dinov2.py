"""DINOv2 as an extractor: its files, its conversion of images, and its scores."""

import hashlib

import numpy as np
import pytest
import torch
from fills import filled, filled_layout
from PIL import Image
from safetensors.torch import save_file

from diffbench.data.datasets import Dataset
from diffbench.metrics import reference_statistics
from diffbench.metrics.dinov2 import (
    DEVIATION,
    MEAN,
    SIDE,
    Dinov2,
    PublishedDinov2,
    network_of,
    read_network,
)
from diffbench.metrics.distances import fitted
from diffbench.metrics.extractor import features_and_logits
from diffbench.metrics.fidelity import Fidelity
from diffbench.metrics.inception import Inception, PublishedInception
from diffbench.metrics.vit import Outline, VisionTransformer
from diffbench.pretrained.conversion import CheckpointError
from diffbench.specs.extractors import Dinov2Spec, InceptionSpec
from diffbench.store.products import StoreError


@pytest.fixture(autouse=True)
def no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DIFFBENCH_WEIGHTS", raising=False)


def small_state():
    """Tensors in the authors' layout, of 16 large patches of a 224 x 224 image, so that a pass is cheap."""
    with torch.device("meta"):
        network = VisionTransformer(Outline(64, 1, 96, 56, 5))
    shapes = {key: each.shape for key, each in network.state_dict().items()}
    return filled({**shapes, "mask_token": (1, 64)}, torch.float32)


@pytest.fixture
def file(tmp_path):
    torch.save(small_state(), tmp_path / "small.pth")
    return tmp_path / "small.pth"


def sum_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def spec_of(path, **more):
    return Dinov2Spec(**{"weights": str(path), "sha256": sum_of(path), **more})


def dataset_of(channels=3, levels=256, count=48):
    """Random images, half of them the test split."""
    images = np.random.RandomState(0).randint(0, levels, (count, 20, 12, channels)).astype(np.uint8)
    half, labels = count // 2, np.zeros(count // 2, np.int64)
    return Dataset(images[half:], images[:half], labels, labels, levels, ("all",), name="some")


def test_images_are_converted_as_the_paper_converts_them():
    """Pillow's bicubic filter on 8-bit RGB, then ImageNet's mean and deviation, in float64 here."""
    network = network_of(small_state())
    images = dataset_of(count=4).train
    found, logits = features_and_logits(Dinov2(network, 256), images)
    pictures = [Image.fromarray(each).resize((SIDE, SIDE), Image.BICUBIC) for each in images]
    x = (np.stack(pictures) / 255 - np.array(MEAN)) / np.array(DEVIATION)
    with torch.no_grad():
        tokens = network(torch.from_numpy(x).float().permute(0, 3, 1, 2))
    # Pixels that are rounded to float32 once more: 1e-5 is about a hundred roundings.
    assert np.abs(found - tokens[:, 0].double().numpy()).max() < 1e-5
    assert (found.shape, logits.shape, tokens.shape) == ((2, 64), (2, 0), (2, 17, 64))


def test_grey_levels_are_scaled_and_repeated():
    """Level 8 of 17 is 127.5 of 255, which rounds up."""
    network = network_of(small_state())
    grey = Dinov2(network, 17)
    assert grey.table[[0, 1, 8, 16]].tolist() == [0, 16, 128, 255]
    levels = dataset_of(1, 17, 4).train
    colour = grey.table.numpy()[levels].repeat(3, axis=-1)
    ours, theirs = (
        features_and_logits(module, x)[0]
        for module, x in ((grey, levels), (Dinov2(network, 256), colour))
    )
    assert np.array_equal(ours, theirs)


def test_published_sizes_have_their_names():
    """The sizes of the paper, with millions of parameters as the authors' README rounds them (21 for 22.06)."""
    for width, depth, hidden, gated, name, millions in (
        (384, 12, 1536, False, "vits14", 21),
        (768, 12, 3072, False, "vitb14", 86),
        (1024, 24, 4096, False, "vitl14", 300),
        (1536, 40, 4096, True, "vitg14", 1100),
    ):
        with torch.device("meta"):
            network = VisionTransformer(Outline(width, depth, hidden, 14, 37, gated))
        count = sum(each.numel() for each in network.parameters())
        assert count / 1e6 == pytest.approx(millions, rel=0.06)
        assert Dinov2(network, 256).name == f"dinov2-{name}"
    assert Dinov2(network_of(small_state()), 256).name == "dinov2-vit-64x1"


def test_scores_have_what_needs_no_classes(file):
    dataset = dataset_of()
    extractor = PublishedDinov2(spec_of(file))
    module = extractor.make(dataset)
    splits = {"train": dataset.train, "test": dataset.test}
    measured = reference_statistics.measure(module, splits)
    fidelity = Fidelity(
        module,
        measured,
        dataset.train,
        sha256=extractor.sha256(module),
        resamples=4,
        inception_score=extractor.spec.has_logits,
        class_accuracy=extractor.spec.tells_classes,
    )
    scores = fidelity.score(dataset.test, dataset.test_labels)
    assert scores.keys() & {"is", "confidence", "class_accuracy"} == set()
    assert scores["fid_test"]["value"] == pytest.approx(0, abs=1e-6)
    z, _ = features_and_logits(module, dataset.test)
    assert scores["fid"]["value"] == measured.distances["train"](fitted(z)) > 0
    assert scores["fid"]["se"] > 0
    protocol = fidelity.protocol
    assert (protocol["extractor"], protocol["extractor_sha256"]) == (module.name, sum_of(file))
    assert "opinions" not in protocol


def test_it_is_an_opinion_beside_inception(file):
    """An FID of its own features, with the weights' checksum in the protocol."""
    spec = InceptionSpec(dinov2={"weights": str(file), "sha256": sum_of(file)})
    assert spec.files == {"dinov2": str(file)} and sum_of(file) in spec.origins["dinov2"]
    assert "weights" not in spec.model_dump()["dinov2"]
    assert "dinov2" not in InceptionSpec().model_dump()
    inception = Inception(torch.nn.Identity(), 256, torch.nn.Identity())
    ((metric, opinion),) = PublishedInception(spec).opinions(inception).items()
    dataset = dataset_of()
    splits = {"train": dataset.train, "test": dataset.test}
    measured = reference_statistics.measure(opinion, splits, opinions={metric: opinion})
    fidelity = Fidelity(
        opinion, measured, dataset.train, opinions={metric: opinion}, sha256="0", resamples=0,
        inception_score=False, class_accuracy=False,
    )  # fmt: skip
    scores = fidelity.score(dataset.test)
    assert metric == "fd_dinov2" and scores[metric] == scores["fid"]
    # Without resamples there is no error, of restorations either.
    assert fidelity.frechet(dataset.test, together=2) == scores["fid"]
    assert fidelity.protocol["opinions"] == {"fd_dinov2": sum_of(file)}


def test_both_layouts_are_read_from_their_files(tmp_path, file):
    assert read_network(file).outline == Outline(64, 1, 96, 56, 5, offset=0.1)
    save_file(filled_layout("net_dinov2_gated", torch.float32), tmp_path / "m.safetensors")
    found = read_network(tmp_path / "m.safetensors").outline
    assert found == Outline(128, 2, 344, 14, 5, gated=True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"register_tokens": torch.zeros(1, 4, 64)}, "unknown keys register_tokens"),
        ({"norm.bias": None}, "the checkpoint lacks norm.bias"),
        ({"cls_token": None}, "neither cls_token nor embeddings.cls_token"),
        ({"cls_token": torch.zeros(1, 1, 65)}, "its width is 65"),
        ({"pos_embed": torch.zeros(1, 25, 64)}, "positions of 24 patches"),
        ({"blocks.0.attn.qkv.bias": torch.zeros(64)}, r"blocks.0.attn.qkv.bias has shape \[64\]"),
        ({"blocks.2.ls1.gamma": torch.zeros(64)}, "the checkpoint lacks blocks.1"),
    ],
)
def test_another_network_is_refused_by_name(tmp_path, change, reason):
    state = {k: each for k, each in (small_state() | change).items() if each is not None}
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=rf"other\.pth: .*{reason}") as caught:
        PublishedDinov2(spec_of(tmp_path / "other.pth")).make(dataset_of())
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_is_another_is_refused(tmp_path, file, monkeypatch):
    with pytest.raises(StoreError, match="there is no file .*gone.* `extractor.weights`"):
        PublishedDinov2(spec_of(file, weights=str(tmp_path / "gone"))).make(dataset_of())
    with pytest.raises(StoreError, match="has sha256"):
        PublishedDinov2(spec_of(file, sha256="0" * 64)).make(dataset_of())
    with pytest.raises(ValueError, match="grey or RGB images, but those of some have 4 channels"):
        PublishedDinov2(spec_of(file)).make(dataset_of(4))
    # The workflow names the file by the environment.
    monkeypatch.setenv("DIFFBENCH_WEIGHTS", str(file))
    PublishedDinov2(spec_of(file, weights=None)).make(dataset_of())
