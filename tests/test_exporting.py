"""Models of ours in diffusers: the same function, the same steps, and one line where it cannot hold a model.

The comparisons are with the real package, which the extra ``test`` brings; without it they are skipped, with a line.
"""

import copy
import json

import pytest
import torch
from commands import REPOSITORY
from safetensors.torch import load_file
from torch import nn

import diffbench
from diffbench import cli
from diffbench.diffusion import DDIM, Ancestral, Discrete, NetworkDenoiser
from diffbench.diffusion.core.condition import Condition
from diffbench.jobs import data, train
from diffbench.metrics.torchvision_operators import ensure_importable
from diffbench.plan.loading import load_plan
from diffbench.pretrained import exporting
from diffbench.pretrained.conversion import CheckpointError
from diffbench.pretrained.exporting import ExportError, scheduler
from diffbench.pretrained.scheduler import beside
from diffbench.specs.denoisers import DenoiserSpec, NetworkDenoiserSpec
from diffbench.specs.networks import NetworkSpec
from diffbench.specs.processes import ProcessSpec
from diffbench.specs.registry import build
from diffbench.store import paths

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (3, 8, 8)
SIZES = {"channels": 16, "groups": 8, "multipliers": [1, 2, 3], "blocks": 2}
#: Each with something that the others lack: order of sinusoids, heads, modulation, change of resolution, labels.
NETWORKS = {
    "ddpm-original": {"attention": [4]},
    "iddpm": {"attention": [2], "heads": 4},
    "adm": {"attention": [4, 2], "head_channels": 8},
}
CHAIN = {"name": "discrete", "schedule": "linear", "steps": 50}


@pytest.fixture(scope="module")
def theirs():
    """The real package."""
    ensure_importable()
    return pytest.importorskip(
        "diffusers", reason="NOT COMPARED with diffusers: pip install -c constraints.txt diffusers"
    )


def network_of(name, classes=0, outputs=3, **keys):
    """A network with weights of the size that keeps a layer's size, and its spec."""
    spec = NetworkSpec.choose({"name": name, **SIZES, **NETWORKS[name], **keys})
    network = build(spec, image_shape=SHAPE, in_channels=3, out_channels=outputs, classes=classes)
    draw = torch.Generator().manual_seed(0)
    for each in network.parameters():
        each.data = torch.randn(each.shape, generator=draw) / max(1, each[0].numel()) ** 0.5
    return network.eval().requires_grad_(False), spec


def denoiser_of(**keys):
    return DenoiserSpec.choose({"predict": "eps", "noise_input": "time"} | keys)


def process_of(**keys):
    return build(ProcessSpec.choose(CHAIN | keys))


def written(folder, name, denoiser=None, classes=0, outputs=3, **keys):
    """The network of a name, and the folder in which it is for diffusers."""
    network, spec = network_of(name, classes, outputs, **keys)
    denoiser = denoiser or denoiser_of()
    return network, exporting.write(folder, network, spec, denoiser, process_of(), SHAPE)


class Features(nn.Module):
    """Our sinusoids in float64: those of diffusers are of float32 in every precision."""

    def __init__(self, conditioning):
        super().__init__()
        self.ours = conditioning

    def forward(self, t):
        return self.ours.features(t.double(), self.ours.count)


@pytest.mark.parametrize(
    ("name", "classes", "keys"),
    [
        ("ddpm-original", 0, {}),
        ("ddpm-original", 0, {"resampling": "convolution", "epsilon": 0.1}),
        ("iddpm", 0, {}),
        ("iddpm", 0, {"attention": [8, 4, 2], "heads": 1}),
        ("adm", 0, {}),
        ("adm", 5, {"attention": []}),
        ("adm", 5, {"resampling": "same-convolution", "modulation": "addition"}),
    ],
)
def test_it_is_the_same_function(theirs, tmp_path, name, classes, keys):
    """In float64 to rounding; in float32 no further from that than ours, up to the order of sums."""
    network, folder = written(tmp_path / "theirs", name, classes=classes, **keys)
    model, found = theirs.UNet2DModel.from_pretrained(folder, output_loading_info=True)
    assert not any(found.values()), found
    assert sum(each.numel() for each in model.parameters()) == sum(
        each.numel() for each in network.parameters()
    )
    model.eval().requires_grad_(False)
    x = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([0, 3, 20, 49])
    y = torch.tensor([0, 2, 4, 5]) if classes else None  # the last is the null class
    told = {} if y is None else {"class_labels": y}
    ours, single = network(x, t.float(), y), model(x, t, **told).sample
    double, model = copy.deepcopy(network).double(), copy.deepcopy(model).double()
    exact = double(x.double(), t.double(), y)
    model.time_proj = Features(double.conditioning)
    assert exact.std() > 0.1
    torch.testing.assert_close(model(x.double(), t, **told).sample, exact, rtol=0, atol=1e-12)
    assert (single - exact).abs().max() <= 4 * (ours - exact).abs().max()


#: abar of float32 is off by up to T 2^-24, and sqrt(1 - abar) by that over 2 sqrt(beta_0), where it is smallest; the
#: predicted image and the predicted noise both have it, times at most 2: alpha_s/alpha_t is less.
ROUNDING = 4 * 50 * 2.0**-24 / (2 * (20 * 1e-4) ** 0.5)


@pytest.mark.parametrize("predict", ["eps", "x0", "v"])
def test_a_step_of_ddim_is_the_same(theirs, tmp_path, predict):
    denoiser = denoiser_of(predict=predict)
    network, folder = written(tmp_path / "theirs", "ddpm-original", denoiser)
    scheduler = theirs.DDIMScheduler.from_pretrained(folder, clip_sample=False)
    scheduler.set_timesteps(50)
    solver = DDIM(NetworkDenoiser(denoiser, process_of(), network), steps=50)
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    for level in (49, 25, 1, 0):
        t = torch.full((2,), level)
        answer = network(x, t.float())
        t, s = (torch.tensor(float(each), dtype=torch.float64) for each in (level, level - 1))
        ours = solver.step(x, t, s, Condition(), torch.zeros_like)
        found = scheduler.step(answer, level, x).prev_sample
        assert (found - ours).abs().max() <= ROUNDING * max(answer.abs().max(), x.abs().max()), (
            level
        )


@pytest.mark.parametrize("variance", ["small", "learned"])
def test_a_step_of_the_scheduler_is_ancestrals(theirs, tmp_path, variance):
    """The defaults of our solver, with learned variances where there are; the predicted image is clipped."""
    learned = variance == "learned"
    denoiser = denoiser_of(variance="learned" if learned else "fixed")
    network, folder = written(tmp_path / "theirs", "iddpm", denoiser, outputs=6 if learned else 3)
    scheduler = theirs.DDPMScheduler.from_pretrained(folder)
    solver = Ancestral(
        NetworkDenoiser(denoiser, process_of(), network), steps=50, variance=variance
    )
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    for level in (49, 25, 1, 0):
        answer = network(x, torch.full((2,), float(level)))
        t, s = (torch.tensor(float(each), dtype=torch.float64) for each in (level, level - 1))
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
        ours = solver.step(x, t, s, Condition(), lambda _, noise=noise: noise)
        draw = torch.Generator().manual_seed(2)
        found = scheduler.step(answer, level, x, generator=draw).prev_sample
        assert (found - ours).abs().max() <= ROUNDING * max(answer.abs().max(), x.abs().max()), (
            level
        )


def test_a_pipeline_draws_images(theirs, tmp_path):
    _, folder = written(tmp_path / "theirs", "ddpm-original")
    pipeline = theirs.DDPMPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    draw = torch.Generator().manual_seed(0)
    found = pipeline(batch_size=2, num_inference_steps=5, output_type="np", generator=draw)
    assert found.images.shape == (2, 8, 8, 3)


def test_a_model_with_labels_has_no_pipeline(tmp_path):
    """diffusers' pipeline tells the network no label; the null class is one of the network's."""
    conditional = denoiser_of(conditional=True)
    _, folder = written(tmp_path / "theirs", "adm", conditional, classes=5)
    assert not (folder / "model_index.json").exists()
    assert json.loads((folder / "config.json").read_text())["num_class_embeds"] == 6


BENCHMARK = """\
name: exported
data: {name: digits}
network: {name: ddpm-original, channels: 8, groups: 4, multipliers: [1, 2], attention: [4]}
training: {steps: 2, batch: 8, lr: 1e-3}
device: cpu
samples: 20
variants: [mine]
methods:
  mine:
    process: {name: discrete, schedule: cosine, steps: 50}
    denoiser: {predict: v, noise_input: time}
    objective: {name: simple}
    solvers: {ddim-5: {name: ddim, steps: 5}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose network diffusers can hold."""
    folder = tmp_path_factory.mktemp("exported")
    (folder / "exported.yaml").write_text(BENCHMARK)
    plan, root = load_plan([folder / "exported.yaml"], {}, REPOSITORY), folder / "results"
    for module, stage in ((data, "data"), (train, "train")):
        (job,) = plan.of(stage)
        module.run(job.spec, root, "cpu")
    return diffbench.load(paths.product(root, job.spec).parent)


def test_a_run_is_written_with_its_weights_and_its_chain(run, tmp_path):
    folder = run.to_diffusers(tmp_path / "theirs")
    found = load_file(folder / "diffusion_pytorch_model.safetensors")
    ours = load_file(run.folder / "model.safetensors")
    assert sum(each.numel() for each in found.values()) == sum(
        each.numel() for each in ours.values()
    )
    assert torch.equal(found["conv_in.weight"], ours["stem.weight"])
    query, key, value = ours["middle.1.qkv.weight"].squeeze().chunk(3)
    for name, each in {"q": query, "k": key, "v": value}.items():
        assert torch.equal(found[f"mid_block.attentions.0.to_{name}.weight"], each)
    scheduler = json.loads((folder / "scheduler_config.json").read_text())
    abar = (1 - torch.tensor(scheduler["trained_betas"], dtype=torch.float64)).cumprod(0)
    assert torch.equal(abar, Discrete(schedule="cosine", steps=50).alpha_bar[1:])
    assert scheduler["prediction_type"] == "v_prediction"
    with pytest.raises(ExportError, match="theirs: exists and is not an empty folder"):
        run.to_diffusers(tmp_path / "theirs")


@pytest.mark.parametrize(
    ("network", "denoiser", "process", "said"),
    [
        ({"name": "unet"}, {}, {}, "network: unet is of another kind; it holds iddpm, adm, ddpm-original"),
        ({"name": "ihdm"}, {}, {}, "network: ihdm is of another kind"),
        ({"multipliers": [2, 2]}, {}, {}, "multipliers: 2 is the first, and"),
        ({"resampling": "average"}, {}, {}, "resampling: average, and it has convolution, same-con"),
        ({"name": "iddpm", "heads": 2, "multipliers": [1, 2]}, {}, {}, "heads: 2 are of 64 and 128 channels"),
        ({}, {"predict": "score"}, {}, "denoiser.predict: score, and schedulers have eps, x0, v"),
        ({}, {"skip": "edm"}, {}, "denoiser.skip: edm, and the output must be the prediction"),
        ({}, {"variance": "unbounded"}, {}, "denoiser.variance: unbounded, and schedulers have fixed"),
        ({}, {"masks": True}, {}, "denoiser.masks: it is told no pixels"),
        ({}, {"noise_input": "log-ratio"}, {}, "denoiser.noise_input: log-ratio, and it is told the"),
        ({}, {"noise_input": "rescaled-time"}, {}, "denoiser.noise_input: rescaled-time of 1000"),
        ({}, {}, {"low": 0}, "process: the data range is [0, 1], and must be [-1, 1]"),
        ({}, {}, {"name": "vp"}, "process: vp is no chain of levels; its schedulers hold discrete"),
    ],
)  # fmt: skip
def test_what_cannot_be_held_is_one_line(network, denoiser, process, said, tmp_path):
    spec = NetworkSpec.choose({"name": "ddpm-original"} | network)
    chosen = ProcessSpec.choose(process if "name" in process else CHAIN | process)
    with pytest.raises(ExportError) as error:
        exporting.write(
            tmp_path / "theirs", None, spec, denoiser_of(**denoiser), build(chosen), SHAPE
        )
    assert f"cannot hold the model: {said}" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "theirs").exists()


def test_a_level_of_a_thousand_is_the_level(tmp_path):
    """Improved DDPM's rescaled time is the number of the level on 1,000 levels."""
    network, spec = network_of("iddpm")
    process = process_of(steps=1000)
    told = denoiser_of(noise_input="rescaled-time")
    folder = exporting.write(tmp_path / "theirs", network, spec, told, process, SHAPE)
    assert json.loads((folder / "config.json").read_text())["sample_size"] == 8


def test_a_model_without_a_network_is_refused(tmp_path):
    exact = DenoiserSpec.choose("gaussian")
    with pytest.raises(ExportError, match="denoiser: gaussian is more than a network, or none"):
        exporting.write(tmp_path / "theirs", None, None, exact, process_of(), SHAPE)


@pytest.mark.parametrize(
    ("keys", "process", "predict"),
    [
        (
            {"beta_schedule": "linear"},
            {"schedule": "linear", "beta_first": 1e-4, "beta_last": 0.02},
            "eps",
        ),
        (
            {"beta_start": 1e-3, "beta_end": 0.1, "prediction_type": "sample"},
            {"schedule": "linear", "beta_first": 1e-3, "beta_last": 0.1},
            "x0",
        ),
        (
            {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"},
            {"schedule": "cosine"},
            "v",
        ),
    ],
)
def test_a_scheduler_of_the_real_package_says_process_and_prediction(
    theirs, tmp_path, capsys, keys, process, predict
):
    """Both chains keep the same share of the signal, up to float32's rounding of beta, of 1 - beta and of a product."""
    network = theirs.UNet2DModel(
        sample_size=32,
        layers_per_block=1,
        block_out_channels=(32, 64, 64, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
    )
    chain = theirs.DDPMScheduler(num_train_timesteps=50, **keys)
    network.save_pretrained(tmp_path / "unet")
    chain.save_pretrained(tmp_path / "scheduler")
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    assert cli.main(["import", "diffusers", str(weights), "--to", str(tmp_path / "ours")]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1].partition(": ")[2])
    assert told["process"] == {"name": "discrete", "steps": 50, **process}
    spec = json.loads((tmp_path / "ours" / "spec.json").read_text())["spec"]
    assert spec["denoiser"]["predict"] == predict
    ours = build(ProcessSpec.choose(told["process"]))
    error = (chain.alphas_cumprod.double() / ours.alpha_bar[1:] - 1).abs()
    assert (error <= (2 * 1.2e-7 / (1 - ours.betas)).cumsum(0)).all()


def test_an_exported_scheduler_is_the_process_again(tmp_path):
    for keys in ({"schedule": "cosine", "steps": 30}, {"schedule": "linear", "steps": 40}):
        process = build(ProcessSpec.choose({"name": "discrete", **keys}))
        (tmp_path / "scheduler_config.json").write_text(
            json.dumps(scheduler(NetworkDenoiserSpec(predict="v"), process))
        )
        told = beside(tmp_path / "weights.bin")
        again = build(ProcessSpec.choose(told.process))
        assert torch.allclose(again.betas, process.betas, rtol=1e-12) and told.denoiser == {
            "predict": "v"
        }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            '{"beta_schedule": "scaled_linear"}',
            "beta_schedule: scaled_linear, and ours are linear, squ",
        ),
        (
            '{"prediction_type": "flow"}',
            "prediction_type: flow, and ours are epsilon, sample, v_pred",
        ),
        ('{"trained_betas": [0.1, 0.5, 0.2]}', "trained_betas: 3 numbers that are neither linear"),
        ('{"num_train_timesteps": -4}', "scheduler_config.json: "),
        ("[1]", "scheduler_config.json: "),
    ],
)
def test_a_scheduler_that_no_process_is_of_is_refused_in_one_line(tmp_path, content, said):
    (tmp_path / "scheduler_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=said) as error:
        beside(tmp_path / "weights.bin")
    assert "\n" not in str(error.value)
