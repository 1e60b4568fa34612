"""Every official layout of CIFAR-10 becomes a folder that a variant of its paper's process can name."""

import pickle
import random
import sys
import types
from pathlib import Path

import official_unet
import official_vdm
import pytest
import test_pretrained_diffusers as diffusers
import torch
from commands import REPOSITORY
from official import empty
from torch import nn

from diffbench.networks.parameters import parameters
from diffbench.plan.loading import load_plan
from diffbench.pretrained import importing
from diffbench.pretrained.checkpoints import read
from diffbench.pretrained.conversion import CheckpointError
from diffbench.pretrained.families import FAMILIES, family
from diffbench.specs.registry import build
from diffbench.store.products import write_product

BENCHMARK = """\
name: bench
data: {{name: cifar10}}
device: cpu
samples: 20
variants: [official]
methods:
  official: {{pretrained: model, process: {process}, solvers: {{some: {solver}}}}}
"""
CHAIN = "{name: discrete, schedule: linear}"
COSINE = "{name: discrete, schedule: cosine, steps: 4000}"
VP, VE, EDM = "{name: vp}", "{name: ve, sigma_max: 50}", "{name: edm}"
HEAT, WALLS = "{name: ihdm, levels: 200, sigma: 0.01, blur_max: 24}", "{name: reflected}"
DDIM, EM = "{name: ddim, steps: 9}", "{name: euler-maruyama, steps: 9}"
LEARNED = "{name: ancestral, steps: 9, variance: learned}"
ANCESTRAL = "{name: ancestral, steps: 9}"
HEUN = "{name: heun, steps: 9}"


def shapes(found):
    return {key: torch.empty(shape, device="meta") for key, shape in found.items()}


def heat():
    sizes = (128, (1, 2, 2, 2), 4, (2, 3))
    return {"model": shapes(official_unet.shapes_of(*sizes, scale_shift=False))}


def vdm():
    frequencies = {"image_fourier.freqs": torch.tensor([64, 128])}
    return {"model": shapes(official_vdm.shapes_of()) | frequencies}


#: Family, contents, and the process and a solver of the paper.
OFFICIAL = {
    "improved ddpm": ("openai", lambda: empty("net_iddpm_cifar10_learnsigma"), COSINE, LEARNED),
    "improved ddpm, fixed": ("openai", lambda: empty("net_iddpm_cifar10"), COSINE, DDIM),
    "ddpm": ("score-sde", lambda: {"model": empty("net_sde_ddpm_cifar10")}, CHAIN, DDIM),
    "ddpm of the sde": ("score-sde", lambda: {"model": empty("net_sde_ddpm_cifar10")}, VP, EM),
    "ddpm++": ("score-sde", lambda: {"model": empty("net_sde_ddpmpp_vp")}, VP, EM),
    "ncsn++": ("score-sde", lambda: {"model": empty("net_sde_ncsnpp_ve")}, VE, EM),
    "edm ddpm++": ("edm", lambda: {"ema": empty("net_edm_ddpmpp")}, EDM, HEUN),
    "edm ncsn++": ("edm", lambda: {"ema": empty("net_edm_ncsnpp")}, EDM, HEUN),
    "reflected": ("reflected", lambda: {"model": empty("net_reflected_ddpmpp")}, WALLS, EM),
    "reflected vdm": ("reflected", vdm, WALLS, EM),
    "heat": ("ihdm", heat, HEAT, "{name: inverse-heat}"),
    "google's": (
        "diffusers",
        lambda: shapes(diffusers.shapes_of(**diffusers.CIFAR)),
        CHAIN,
        ANCESTRAL,
    ),
}


def skeleton_of(spec):
    with torch.device("meta"):
        return build(
            spec.network,
            image_shape=spec.image_shape,
            in_channels=spec.in_channels,
            out_channels=spec.out_channels,
            classes=spec.classes,
        )


def test_every_family_is_tried():
    assert {each[0] for each in OFFICIAL.values()} == set(FAMILIES)


@pytest.mark.parametrize("name", OFFICIAL)
def test_an_official_layout_becomes_a_variant_of_its_paper(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen, contents, process, solver = OFFICIAL[name]
    # Tensors without values: 13 networks of up to 107 million parameters.
    monkeypatch.setattr(importing, "check_finite", lambda tensors: None)
    spec, tensors = importing.described(chosen, contents(), Path("a.pt"), "0" * 64)
    assert spec.image_shape == (3, 32, 32) and spec.family == chosen
    skeleton = skeleton_of(spec)
    assert spec.parameters == parameters(skeleton)
    assert {key: each.shape for key, each in tensors.items()} == {
        key: each.shape for key, each in skeleton.state_dict().items()
    }
    write_product(Path("model/model.safetensors"), b"weights", spec)
    Path("bench.yaml").write_text(BENCHMARK.format(process=process, solver=solver))
    plan = load_plan([Path("bench.yaml")], {}, REPOSITORY)
    assert plan.job("train", "official").spec.network == spec.network
    assert plan.job("sample", "official", item="some")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The use of `x.T`")
@pytest.mark.parametrize("name", OFFICIAL)
def test_tensors_of_other_ranks_and_keys_are_refused_in_one_line(name, monkeypatch):
    chosen, contents, *_ = OFFICIAL[name]
    monkeypatch.setattr(importing, "check_finite", lambda tensors: None)
    chance = random.Random(name)
    for change in range(12):
        whole = contents()
        state = next((whole[key] for key in ("model", "ema") if key in whole), whole)
        key = chance.choice([key for key in state if not key.endswith(("sigmas", "filter"))])
        taken = state.pop(key)
        rank = change % 4
        if rank < 3:
            state[key] = torch.empty([2] * (rank + (rank >= taken.ndim)), device="meta")
        with pytest.raises(CheckpointError) as refusal:
            importing.described(chosen, whole, Path("a.pt"), "0" * 64)
        assert str(refusal.value).startswith(f"a.pt as {chosen}: ")
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("EDMPrecond", {"predict": "edm", "noise_input": "log-ratio", "input_scale": "unit"}),
        ("VPPrecond", {"predict": "eps", "noise_input": "time", "input_scale": "unit"}),
        ("VEPrecond", {"predict": "score", "noise_input": "log-sigma", "input_scale": "none"}),
    ],
)
def test_edms_pickle_says_how_the_network_is_preconditioned(kind, wanted, tmp_path, monkeypatch):
    contents = read(pickled(tmp_path, monkeypatch, kind))
    layout_of_edm = family("edm").layout()
    state = {"ema": type(contents["ema"])(kind, empty("net_edm_ddpmpp").items())}
    monkeypatch.setattr(importing, "check_finite", lambda tensors: None)
    assert contents["ema"].kind == kind and layout_of_edm.weights(state)
    spec, _ = importing.described("edm", state, Path("a.pkl"), "0" * 64)
    assert {key: getattr(spec.denoiser, key) for key in wanted} == wanted


def test_an_unknown_preconditioning_is_refused(tmp_path, monkeypatch):
    contents = read(pickled(tmp_path, monkeypatch, "iDDPMPrecond"))
    state = {"ema": type(contents["ema"])("iDDPMPrecond", empty("net_edm_ddpmpp").items())}
    monkeypatch.setattr(importing, "check_finite", lambda tensors: None)
    with pytest.raises(
        CheckpointError, match="the preconditioning iDDPMPrecond; known: EDMPrecond, VP"
    ):
        importing.described("edm", state, Path("a.pkl"), "0" * 64)


def pickled(folder, monkeypatch, kind):
    """A network of a persistent class of that name, as EDM pickles it."""

    def reconstruct(meta):
        raise AssertionError("code of the file's choice was called")

    module = types.ModuleType("torch_utils.persistence")
    reconstruct.__name__ = reconstruct.__qualname__ = "_reconstruct_persistent_obj"
    reconstruct.__module__ = module.__name__
    module._reconstruct_persistent_obj = reconstruct

    class Persistent(nn.Linear):
        def __reduce__(self):
            return reconstruct, ({"class_name": kind, "state": self.__dict__},)

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
        patch.setitem(sys.modules, module.__name__, module)
        content = pickle.dumps({"ema": Persistent(2, 2)})
    (folder / "a.pkl").write_bytes(content)
    return folder / "a.pkl"
