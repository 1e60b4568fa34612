"""LPIPS against the lpips package, on weights that both sides make (`fills`), and its way through a benchmark."""

import hashlib

import pytest
import torch
from fills import filled
from record_peers import SIDES, pictures
from toys import recorded

from diffbench.metrics.lpips import NETS, Lpips, PerceptualDistance, learnt
from diffbench.metrics.restoration import measured
from diffbench.pretrained.conversion import CheckpointError
from diffbench.specs.image_measures import BACKBONES, LPIPS_SHA256, LpipsSpec
from diffbench.store.products import StoreError

CPU = torch.device("cpu")
NUMBERS = {"alex": (0, 1), "vgg": (10, 11)}


def empty(net):
    """The network without numbers."""
    with torch.device("meta"):
        return PerceptualDistance(net)


def states(net):
    """The tensors of both files, by their names in torchvision's and in the package's layout."""
    network = empty(net)
    features = {f"features.{k}": each.shape for k, each in network.features.state_dict().items()}
    linear = {learnt(k): each.shape for k, each in network.linear.state_dict().items()}
    weights = {key: each.abs() for key, each in filled(linear, torch.float32).items()}
    return filled(features, torch.float32), weights


def images(net):
    """The recorded pairs, on [0, 1]."""
    return [(pictures(i, 3, 3, SIDES[net], SIDES[net]) + 1) / 2 for i in NUMBERS[net]]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """AlexNet's files, as published: with linear layers that are not used."""
    folder = tmp_path_factory.mktemp("lpips")
    backbone, linear = states("alex")
    torch.save(backbone | {"classifier.1.bias": torch.zeros(2)}, folder / "alexnet.pth")
    torch.save(linear, folder / "alex.pth")
    return folder


def spec_of(folder, **more):
    digests = {
        key: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for key, name in (("backbone_sha256", "alexnet.pth"), ("sha256", "alex.pth"))
    }
    paths = {"backbone": str(folder / "alexnet.pth"), "weights": str(folder / "alex.pth")}
    return LpipsSpec(**{**paths, **digests, **more})


def test_alexnets_distances_are_the_packages(files):
    """Float32 sums of 64 to 384 channels in another order: some 1e-7 of the distance; 1e-5 is asked for."""
    x, y = images("alex")
    measure = Lpips(spec_of(files), (3, 33, 33), CPU)
    found = measure(x.double(), y.double()[:, None])
    wanted = recorded("lpips_alex")["distances"]
    torch.testing.assert_close(found[:, 0], wanted, rtol=1e-5, atol=0)
    # Several draws of an image are measured one by one; the score is the mean over draws, then over images.
    both = measure(x, torch.stack([x, y], 1))
    torch.testing.assert_close(both[:, 1], wanted, rtol=1e-5, atol=0)
    assert float(both[:, 0].max()) == 0
    score = measured(measure, x, torch.stack([x, y], 1))
    halves = wanted / 2
    assert score["value"] == pytest.approx(float(halves.mean()), rel=1e-5)
    assert score["se"] == pytest.approx(float(halves.std() / 3**0.5), rel=1e-3)


def test_vgg_distances_are_the_packages():
    """As of AlexNet."""
    network, (backbone, linear) = empty("vgg"), states("vgg")
    for part, state in ((network.features, backbone), (network.linear, linear)):
        part.load_state_dict(dict(zip(part.state_dict(), state.values(), strict=True)), assign=True)
    x, y = images("vgg")
    with torch.no_grad():
        found = torch.cat([network(one, other[None]) for one, other in zip(x, y, strict=True)])
    wanted = recorded("lpips_vgg")["distances"]
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=0)


def test_grey_images_are_repeated(files):
    x, y = (each[:, :1] for each in images("alex"))
    measure = Lpips(spec_of(files), (1, 33, 33), CPU)
    coloured = measure(x.expand(-1, 3, -1, -1), y.expand(-1, 3, -1, -1)[:, None])
    assert torch.equal(measure(x, y[:, None]), coloured)


@pytest.mark.parametrize("net", BACKBONES)
def test_the_smallest_image_is_the_smallest_that_leaves_something(net):
    def left(side):
        for each in NETS[net]:
            if isinstance(each, int):
                side = (side - each) // 2 + 1
            else:
                side = (side + 2 * each.padding - each.kernel) // each.stride + 1
        return side

    least = BACKBONES[net][1]
    spec = LpipsSpec(net=net, backbone_sha256="0" * 64)
    assert (left(least), left(least - 1)) == (1, 0)
    assert spec.refusal((3, least, least)) is None
    refused = spec.refusal((3, least, least - 1))
    assert f"at least {least}x{least}, not {least}x{least - 1}" in refused
    assert "not 4 channels" in spec.refusal((4, 64, 64))


def test_a_wrong_file_is_refused_by_name(files, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="AlexNet needs images of at least 31x31, not 8x8"):
        Lpips(spec_of(files), (1, 8, 8), CPU)
    with pytest.raises(StoreError, match="has sha256 .* `restorations.measures: lpips.backbone`"):
        Lpips(spec_of(files, backbone_sha256="0" * 64), (3, 33, 33), CPU)
    monkeypatch.setenv("DIFFBENCH_CACHE", str(tmp_path))
    with pytest.raises(StoreError, match="not in the cache"):
        Lpips(spec_of(files, weights=None), (3, 33, 33), CPU)
    # The workflow names the files by the environment.
    monkeypatch.setenv("DIFFBENCH_LPIPS_ALEX_WEIGHTS", str(files / "alex.pth"))
    Lpips(spec_of(files, weights=None), (3, 33, 33), CPU)
    state = torch.load(files / "alex.pth", weights_only=True)
    for change, reason in (
        ({"lin5.model.1.weight": torch.zeros(1, 2, 1, 1)}, "unknown keys lin5"),
        ({"lin0.model.1.weight": torch.zeros(1, 65, 1, 1)}, "lin0.model.1.weight has shape"),
        ({"lin0.model.1.weight": torch.full((1, 64, 1, 1), torch.nan)}, "not finite"),
    ):
        torch.save(state | change, tmp_path / "other.pth")
        other = tmp_path / "other.pth"
        digest = hashlib.sha256(other.read_bytes()).hexdigest()
        with pytest.raises(CheckpointError, match=rf"other\.pth: .*{reason}"):
            Lpips(spec_of(files, weights=str(other), sha256=digest), (3, 33, 33), CPU)


def test_the_learnt_weights_are_those_of_version_01():
    for net, sha256 in LPIPS_SHA256.items():
        spec = LpipsSpec(net=net, backbone_sha256="0" * 64)
        assert (spec.sha256, spec.metric) == (sha256, f"lpips_{net}")
        assert spec.sha256[:8] in spec.described and "lower is nearer" in spec.described
