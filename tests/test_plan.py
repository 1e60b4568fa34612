import hashlib
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from commands import REPOSITORY, digests

from diffbench.plan import devices
from diffbench.plan.loading import check_writable, load_plan
from diffbench.plan.remarks import remarks
from diffbench.reporting import tables
from diffbench.reporting.claims import chosen, read_claims
from diffbench.reporting.layout import read_tables
from diffbench.specs import jobs
from diffbench.specs.errors import PlanError
from diffbench.specs.extensions import source
from diffbench.specs.processes import DiscreteSpec, ProcessSpec
from diffbench.specs.registry import build
from diffbench.specs.solvers import DDIMSpec
from diffbench.store import paths

BENCHMARK = """\
name: bench
data: {name: digits}
network: {name: unet, channels: 8}
training: {steps: 10, lr: 1e-4}
device: cpu
samples: 100
variants: [vp, edm]
"""


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Plan a benchmark file made of BENCHMARK, ``text`` and ``replace``ments in it; `images` has no classes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()

    def plan(text="", overrides=None, **replace):
        whole = BENCHMARK + text
        for key, value in replace.items():
            lines = [line for line in whole.splitlines() if not line.startswith(f"{key}:")]
            whole = "\n".join([*lines, f"{key}: {value}", ""])
        (tmp_path / "bench.yaml").write_text(whole)
        return load_plan([tmp_path / "bench.yaml"], overrides or {}, REPOSITORY)

    return plan


# Every row: what is added to or replaced in the file, and what the one line must name:
# the key, the value, the nearest valid name.
MISTAKES = [
    ("", {"samples": "1e12"}, ["bench.yaml:7: samples", "at most 10,000,000", "1000000000000"]),
    ("", {"training": "{steps: 1e18}"}, ["vp.training.steps", "at most 1,000,000,000", "1e+18"]),
    ("", {"training": "{steps: 9, lr: 1e30}"}, ["vp.training.lr", "at most 1", "1e+30"]),
    ("", {"training": "{steps: 9, lr: 1e-300}"}, ["vp.training.lr", "0 in float32", "1e-300"]),
    ("", {"training": "{steps: 9, clip: 1e300}"}, ["vp.training.clip", "3.4e38", "1e+300"]),
    ("", {"training": "{steps: 9, lr: 1, weight_decay: 3}"}, ["weight_decay: 3", "at most 2"]),
    ("seeds: [9223372036854775808]", {}, ["bench.yaml:8: seeds.0", "below 2^63"]),
    ("", {"data": "{name: digits, seed: 4294967296}"}, ["data.seed", "less than 4294967296"]),
    ("", {"network": "{name: unet, channels: 1e9}"}, ["vp.network.channels", "at most 16,384"]),
    (
        "overrides: {vp: {solvers: {h: {name: heun, steps: 1e9}}}}",
        {},
        ["vp.solvers.h.steps", "at most 1,000,000"],
    ),
    (
        "overrides:\n  edm:\n    solvers: {heun-19: none}",
        {},
        ["bench.yaml:10: overrides.edm.solvers.heun-19: none removes", "did you mean 'heun-18'"],
    ),
    (
        "overrides: {ihdm: {solvers: {deblur: none}, likelihoods: {vlb: none}}}\n"
        "solvers: {heun-9: {name: heun, steps: 9}}",
        {"variants": "[ihdm]"},
        ["ihdm: nothing is asked of this model", "give it a solver", "heun-9 is left out: "],
    ),
    (
        "methods: {EDM: {control: noise}}",
        {"variants": "[edm, EDM]"},
        ["bench.yaml:7: 'edm' and 'EDM' differ only in the case"],
    ),
    (
        "overrides: {edm: {solvers: {HEUN-18: {name: heun, steps: 9}}}}",
        {},
        ["bench.yaml:8: edm: 'heun-18' and 'HEUN-18' differ only in the case"],
    ),
    (
        "overrides: {edm: {solvers: {%s: {name: heun, steps: 9}}}}" % ("h" * 300),
        {},
        ["edm.solvers.hhhh", "hhh..: must have at most 200 characters; it has 300"],
    ),
    (
        "restorations: {tasks: {i: {operator: identity}}, images: 298}",
        {},
        ["bench.yaml:8: restorations.images: 298; digits has 297 test images"],
    ),
    ("sede: [1]", {}, ["bench.yaml:8", "sede", "[1]", "did you mean 'seeds'"]),
    ("", {"samples": -5}, ["samples", "-5", "20"]),
    ("", {"samples": 10}, ["samples", "10", "20"]),
    ("", {"data": "{name: folder, path: nowhere}"}, ["data.path", "no file or folder 'nowhere'"]),
    (
        "",
        {"network": "{name: ddpmpp, channels: 8, multipliers: [1, 1, 1, 1, 1, 1]}"},
        [
            "bench.yaml",
            "network: multipliers: ddpmpp halves the image 5 times",
            "multiples of 32, not 8x8",
        ],
    ),
    (
        "",
        {
            "network": "{name: iddpm, groups: 8, channels: 8, multipliers: [1, 1], heads: 1, attention: [16]}"
        },
        ["bench.yaml", "network: attention: 16 has no effect", "iddpm works at heights of 8, 4"],
    ),
    (
        "",
        {"network": "{name: ddpmpp, channels: 8, multipliers: [1, 1], attention: [8, 2]}"},
        ["network: attention: 2 has no effect"],
    ),
    (
        "",
        {"data": "{name: cifar10, archive: nowhere.tar.gz}"},
        ["data.archive", "no file or folder 'nowhere.tar.gz'", "toronto", "6d958be0"],
    ),
    ("", {"training": "{steps: 9, ema: 1}"}, ["training.ema", "1", "less than 1"]),
    ("", {"training": "{steps: 9, betas: [0.9, 1]}"}, ["training.betas", "less than 1"]),
    (
        "overrides: {vp: {solvers: {heun-7: {name: heun, steps: 7, sigma_min: 5, sigma_max: 1}}}}",
        {},
        ["vp.solvers.heun-7", "sigma_min 5.0 must be below sigma_max 1.0"],
    ),
    ("overrides: {vp: {process: {name: ve, sigma_min: 60}}}", {}, ["sigma_min 60.0 must be below"]),
    (
        "overrides: {ddpm-cosine-cond: {objective: {label_dropout: none}}}",
        {"variants": "[ddpm-cosine-cond]"},
        ["ddpm-cosine-cond.objective", "label_dropout: none", "0.1 is usual"],
    ),
    (
        "overrides: {vp: {objective: {label_dropout: 0.2}}}",
        {},
        ["vp.objective", "label_dropout: 0.2", "unconditional"],
    ),
    (
        "overrides: {iddpm-hybrid: {dequantise: uniform}}",
        {"variants": "[iddpm-hybrid]"},
        ["iddpm-hybrid.objective", "dequantise: uniform", "grey levels", "use none"],
    ),
    (
        "overrides: {vp: {solvers: {heun-7: {name: heun, steps: 7, w: 2}}}}",
        {},
        ["vp.solvers.heun-7.w: 2", "unconditional"],
    ),
    (
        "overrides: {vp: {denoiser: {conditional: true}, objective: {label_dropout: 0.1}}}",
        {"data": "{name: folder, path: images}"},
        ["vp.denoiser", "conditional: true needs at least two classes", "folder"],
    ),
    (
        "overrides: {vp: {solvers: {h: {name: heun, steps: 7, classifier_scale: 1}}}}",
        {"data": "{name: folder, path: images}"},
        ["vp.solvers.h.classifier_scale: 1", "needs at least two classes"],
    ),
    ("classifier: {seed: 3}", {}, ["classifier", "unknown key 'seed'"]),
    ("classifier: {netwrok: {}}", {}, ["netwrok", "did you mean 'network'"]),
    (
        "overrides: {vp: {solvers: {h: {name: heun, steps: 7, classifier_scale: 1}}}}\n"
        "classifier: {training: {lr: -1}}",
        {},
        ["bench.yaml:9", "classifier.training.lr", "-1"],
    ),
    ("base: digits.yaml", {}, ["bench.yaml:8", "base", "no file", "digits.yaml"]),
    (
        "overrides: {vp: {solvers: {heun-7-w4: {name: heun, steps: 7, w: 4}}}}",
        {},
        ["vp.solvers.heun-7-w4", "w: 4", "unconditional", "denoiser.conditional: true"],
    ),
    (
        "overrides: {vp: {solvers: {heun-7: {name: heun, steps: 7, labels: [3]}}}}",
        {},
        ["vp.solvers.heun-7", "labels: [3]", "unconditional"],
    ),
    (
        "overrides: {ddpm-cosine-cond: {solvers: {d: {name: ddim, steps: 7, labels: [3, 10]}}}}",
        {"variants": "[ddpm-cosine-cond]"},
        ["ddpm-cosine-cond.solvers.d.labels", "10 is not a class of digits", "0 to 9"],
    ),
    (
        "overrides: {ddpm-cosine-cond: {objective: {label_dropout: 0}}}",
        {"variants": "[ddpm-cosine-cond]"},
        ["objective.label_dropout: 0", "ancestral-25-w1", "w: 1", "0.1"],
    ),
    (
        "overrides: {ddpm-cosine: {solvers: {d: {name: ddim, steps: 7, eta: 1.5}}}}",
        {"variants": "[ddpm-cosine]"},
        ["ddpm-cosine.solvers.d.eta", "1.5", "at most 1"],
    ),
    (
        "overrides: {ddpm-cosine: {solvers: {d: {name: ddim, steps: 1001, grid: strided}}}}",
        {"variants": "[ddpm-cosine]"},
        ["ddpm-cosine.solvers.d", "steps: 1001, but a chain of 1000 levels", "at most 1000"],
    ),
    (
        "overrides: {ddpm-cosine: {solvers: {a: {name: ancestral, steps: 7, variance: learned}}}}",
        {"variants": "[ddpm-cosine]"},
        [
            "ddpm-cosine.solvers.a",
            "variance: learned needs denoiser.variance: learned",
            "small or large",
        ],
    ),
    (
        "overrides: {ddpm-cosine: {likelihoods: {v: {name: vlb, variance: learned}}}}",
        {"variants": "[ddpm-cosine]"},
        ["ddpm-cosine.likelihoods.v", "variance: learned needs denoiser.variance: learned"],
    ),
    (
        "overrides: {ddpm-cosine: {likelihoods: {v: {name: vlb, steps: 1001}}}}",
        {"variants": "[ddpm-cosine]"},
        ["ddpm-cosine.likelihoods.v", "steps: 1001, but a chain of 1000 levels"],
    ),
    (
        "overrides: {ddpm-cosine: {objective: {name: hybrid}}}",
        {"variants": "[ddpm-cosine]"},
        ["ddpm-cosine.objective", "hybrid", "denoiser.variance: learned"],
    ),
    (
        "overrides: {ddpm-cosine: {denoiser: {variance: learned}}}",
        {"variants": "[ddpm-cosine]"},
        ["ddpm-cosine.objective", "no gradient from this simple", "use hybrid"],
    ),
    (
        "overrides: {vp: {objective: {times: {name: importance}}}}",
        {},
        ["vp.objective", "times.name: importance", "integer times"],
    ),
    (
        "overrides: {ddpm-cosine: {objective: {times: {name: uniform, levels: 10}}}}",
        {"variants": "[ddpm-cosine]"},
        [
            "ddpm-cosine.objective",
            "times.levels: 10 needs continuous time, and discrete has integer",
            "leave it out",
        ],
    ),
    (
        "overrides: {ddpm-cosine: {objective: {times: {name: log-snr}}}}",
        {"variants": "[ddpm-cosine]"},
        ["ddpm-cosine.objective", "times.name: log-snr", "continuous time"],
    ),
    (
        "overrides: {ddpm-cosine: {objective: {name: score-matching, weight: likelihood}}}",
        {"variants": "[ddpm-cosine]"},
        ["ddpm-cosine.objective", "weight: likelihood needs continuous time"],
    ),
    (
        "overrides: {vp: {objective: {times: {name: uniform, last: 1}}}}",
        {},
        ["vp.objective", "times.last: 1 must be below vp's largest time"],
    ),
    (
        "overrides: {vp: {objective: {times: {name: uniform, stratified: true}}}}",
        {},
        ["vp.objective.times", "stratified"],
    ),
    (
        "overrides: {vp: {denoiser: {predict: mean}}}",
        {},
        ["vp.denoiser", "predict: mean", "integer times"],
    ),
    (
        "overrides: {vp: {objective: {name: vlb, variance: large}}}",
        {},
        ["vp.objective", "name: vlb needs integer times"],
    ),
    (
        "overrides: {vp: {analyses: {g: {name: gradient-noise}}}}",
        {},
        ["vp.analyses.g", "integer times"],
    ),
    (
        "overrides: {vp: {analyses: {z: {name: latents, solver: {name: ddim, eta: 1, steps: 5}}}}}",
        {},
        ["vp.analyses.z", "solver: ddim cannot encode", "eta 0"],
    ),
    (
        "overrides: {ddpm-cosine: {analyses: {z: {name: latents, solver: {name: ode, steps: 5}}}}}",
        {"variants": "[ddpm-cosine]"},
        ["ddpm-cosine.analyses.z.solver: integer times have no SDE or ODE"],
    ),
    (
        "overrides: {vp: {analyses: {z: {name: latents, solver: {name: heun, steps: 5, "
        "classifier_scale: 1}}}}}",
        {},
        ["vp.analyses.z.solver: a latent has no guidance"],
    ),
    (
        "overrides: {vp: {solvers: {heun-7-c1: {name: heun, steps: 7, classifier_scale: 1}}}}\n"
        "classifier: {network: {chanels: 8}}",
        {},
        ["bench.yaml:9", "classifier.network", "chanels", "did you mean 'channels'"],
    ),
    ("", {"samples": "true"}, ["samples", "must be a number, not true"]),
    ("", {"samples": ".nan"}, ["samples", "not nan"]),
    ("", {"samples": "1.5"}, ["samples", "1.5", "whole number"]),
    ("", {"samples": "many"}, ["samples", "'many'"]),
    ("", {"samples": ""}, ["samples", "the word for nothing is none"]),
    ("", {"seeds": "[0, 1, 0]"}, ["seeds", "0 appears twice"]),
    ("", {"seeds": "[]"}, ["seeds", "at least 1"]),
    ("", {"seeds": "[-1]"}, ["seeds.0", "-1"]),
    ("", {"device": "gpu"}, ["device", "'gpu'", "auto, cpu, cuda, mps"]),
    ("", {"device": "cdua"}, ["device", "'cdua'", "did you mean 'cuda'"]),
    (
        "",
        {"data": "{name: digit}"},
        ["data", "'digit' is not a known data", "did you mean 'digits'"],
    ),
    ("", {"data": "{nam: digits}"}, ["data", "needs a name", "digits"]),
    ("", {"data": "{name: digits, tset: 9}"}, ["data.tset", "9", "did you mean 'test'"]),
    ("", {"name": "a/b"}, ["name", "'a/b'"]),
    ("name: twice", {}, ["bench.yaml:8", "'name' appears twice"]),
    ("", {"variants": "[vp, vp]"}, ["variants", "'vp' appears twice"]),
    ("", {"variants": "[vq]"}, ["variants", "'vq'", "did you mean 'vp'"]),
    ("", {"variants": "[ddpn-*]"}, ["variants", "'ddpn-*'", "did you mean 'ddpm-*'"]),
    ("", {"variants": "[]"}, ["variants", "at least 1"]),
    ("only: [ve]", {}, ["bench.yaml:8", "only", "'ve'", "did you mean 'vp'"]),
    ("", {"training": "{steps: 0}"}, ["bench.yaml:7", "vp.training.steps", "not 0"]),
    ("", {"training": "{stesp: 5}"}, ["training.stesp", "5", "did you mean 'steps'"]),
    ("", {"training": "{lr: 1e-3}"}, ["training.steps", "missing"]),
    ("", {"training": "{steps: 5, lr: -1}"}, ["training.lr", "-1"]),
    ("", {"training": "{steps: 5, lr: yes}"}, ["training.lr", "'yes'"]),
    ("", {"training": "{steps: 5, precision: fp8}"}, ["precision", "'fp8'", "bf16", "fp16"]),
    ("", {"sampling": "{precision: fp8}"}, ["sampling.precision", "'fp8'", "'fp32'"]),
    ("", {"sampling": "{precison: fp32}"}, ["sampling.precison", "did you mean 'precision'"]),
    (
        "",
        {"training": "{steps: 5, precision: bf16, loss_scale: 100}"},
        ["loss_scale: 100 belongs to fp16", "precision is bf16"],
    ),
    ("", {"training": "{steps: 5, precision: fp16, loss_scale: -1}"}, ["loss_scale", "-1"]),
    ("", {"network": "{name: unit}"}, ["vp.network", "'unit'", "did you mean 'unet'"]),
    (
        "overrides: {edm: {objective: {augmentation: {name: edm}}}}",
        {},
        [
            "bench.yaml:8",
            "edm.objective: augmentation: edm tells",
            "the network 9 numbers",
            "unet takes 0",
        ],
    ),
    (
        "overrides: {edm: {objective: {augmentation: {name: emd}}}}",
        {},
        ["edm.objective.augmentation", "'emd'", "did you mean 'edm'"],
    ),
    ("", {"network": "{chanels: 5}"}, ["vp.network", "needs a name"]),
    (
        "overrides: {vq: {dequantise: none}}",
        {},
        ["bench.yaml:8", "overrides.vq", "did you mean 'vp'"],
    ),
    (
        "overrides:\n  vp:\n    solvers:\n      hean-9: {name: hean, steps: 9}",
        {},
        [
            "bench.yaml:11",
            "vp.solvers.hean-9",
            "'hean' is not a known solver",
            "did you mean 'heun'",
        ],
    ),
    (
        "overrides: {vp: {solvers: {heun-9: {name: heun, steps: -9}}}}",
        {},
        ["vp.solvers.heun-9.steps", "-9"],
    ),
    (
        "overrides: {vp: {solvers: {heun-9: {name: heun, stesp: 9}}}}",
        {},
        ["vp.solvers.heun-9.stesp", "9", "did you mean 'steps'"],
    ),
    (
        "overrides:\n  vp:\n    solvers: {ddim-9: {name: ddim, steps: 9, grid: strided}}",
        {},
        [
            "bench.yaml:10",
            "vp.solvers.ddim-9.grid: strided needs integer times",
            "vp is continuous",
        ],
    ),
    (
        "overrides:\n  ddpm-cosine:\n    solvers: {ode-9: {name: ode, steps: 9}}",
        {"variants": "[ddpm-cosine]"},
        ["bench.yaml:9", "ddpm-cosine.solvers.ode-9", "'ode' cannot serve the process 'discrete'"],
    ),
    (
        "overrides: {vp: {likelihoods: {vlb: {name: vlb}}}}",
        {},
        ["vp.likelihoods.vlb", "sum over that many steps", "continuous"],
    ),
    (
        "overrides: {vp: {solvers: {a/b: {name: heun, steps: 9}}}}",
        {},
        ["vp.solvers.a/b", "letters, digits"],
    ),
    (
        "overrides: {vp: {process: {beta_mni: 1}}}",
        {},
        ["vp.process.beta_mni", "1", "did you mean 'beta_min'"],
    ),
    (
        "overrides: {vp: {denoiser: {predict: epss}}}",
        {},
        ["vp.denoiser.predict", "'epss'", "did you mean 'eps'"],
    ),
    (
        "overrides: {vp: {objective: {times: {name: lognormla}}}}",
        {},
        ["vp.objective.times", "'lognormla'", "did you mean 'lognormal'"],
    ),
    (
        "defaults: {dequantize: uniform}",
        {},
        ["bench.yaml:8", "vp.dequantize", "did you mean 'dequantise'"],
    ),
    ("methods: {vp: {paper: mine}}", {}, ["methods.vp", "is in", "methods.yaml", "overrides"]),
    (
        "methods: {mine: {process: vp}}",
        {"variants": "[mine]"},
        ["bench.yaml:7", "mine", "denoiser is missing"],
    ),
    (
        "methods: {mine: {process: vp, denoiser: {skip: none}, objective: simple}}",
        {"variants": "[mine]"},
        ["bench.yaml:7", "mine.denoiser.predict: this key is missing"],
    ),
    (
        "methods: {mine: {process: vp, denoiser: {name: empirical}, objective: simple}}",
        {"variants": "[mine]"},
        ["mine", "the empirical denoiser is exact and has no objective"],
    ),
    (
        "methods: {mine: {control: noise, process: vp}}",
        {"variants": "[mine]"},
        ["mine", "a control has no process"],
    ),
    (
        "methods: {'v-{b}': {sweep: {b: 3}, process: vp}}",
        {},
        ["v-{b}.sweep", "a list of values", "3"],
    ),
    (
        "methods: {'v-{beta}': {sweep: {betta: [3]}, process: vp}}",
        {},
        ["v-{beta}", "{beta} is not a key of sweep", "did you mean 'betta'"],
    ),
    (
        "methods: {v: {sweep: {b: [3, 4]}, process: vp}}",
        {},
        ["two variants have the name 'v'"],
    ),
    ("extensions: [mine.py]", {}, ["bench.yaml:8", "extensions", "no file mine.py"]),
    (
        "restorations: {tasks: {t: {operator: identity, noise: -0.1}}}",
        {},
        ["bench.yaml:8", "restorations.tasks.t.noise", "-0.1", "greater than or equal to 0"],
    ),
    (
        "restorations: {tasks: {t: {operator: idenity}}}",
        {},
        [
            "restorations.tasks.t.operator",
            "'idenity' is not a known operator",
            "did you mean 'identity'",
        ],
    ),
    (
        "restorations:\n  tasks:\n    t:\n      operator: {name: block-average,\n        factor: 3}",
        {},
        ["bench.yaml:12", "restorations.tasks.t.operator.factor: 3 does not divide", "8x8"],
    ),
    (
        "restorations: {tasks: {t: {operator: {name: box-mask, height: 9, width: 2}}}}",
        {},
        ["restorations.tasks.t.operator.height, width: a box of 9x2", "8x8"],
    ),
    (
        "restorations: {draws: 1}",
        {},
        ["restorations.draws", "1", "greater than or equal to 2"],
    ),
    (
        "restorations: {variants: [edmm]}",
        {},
        ["bench.yaml:8", "restorations.variants: no variant 'edmm'", "did you mean 'edm'"],
    ),
    (
        "trajectory: {of: ['edm/*', '*/hoin-3']}",
        {},
        ["bench.yaml:8", "trajectory.of: no variant/solver '*/hoin-3'", "known: "],
    ),
    (
        "restorations: {restorers: {d: {name: ddmr}}}",
        {},
        ["restorations.restorers.d", "'ddmr' is not a known restorer", "did you mean 'ddrm'"],
    ),
    (
        "overrides: {vp: {restorers: {d: {name: ddrm, grid: strided}}}}",
        {},
        ["bench.yaml:8", "vp.restorers.d.grid: strided", "vp"],
    ),
    (
        "overrides: {vp: {restorers: {t: {name: inpaint-tuned}}}}",
        {},
        ["vp.restorers.t", "cannot serve the process 'vp'", "denoiser.masks: true"],
    ),
    (
        "overrides: {reflected: {restorers: {d: {name: ddrm}}}}",
        {"variants": "[reflected]"},
        ["reflected.restorers.d", "cannot serve the process 'reflected'", "ddrm needs a Gaussian"],
    ),
    (
        "overrides: {vp: {restorers: {i: {name: impute, solver: {name: em, steps: 5}}}}}",
        {},
        ["vp.restorers.i.solver", "'em' is not a known solver"],
    ),
    (
        "overrides: {vp: {restorers: {r: {name: replace, solver: {name: ddim, steps: 5, w: 1}}}}}",
        {},
        ["vp.restorers.r", "replace takes no classes", "leave w, classifier_scale and labels out"],
    ),
    (
        "methods: {alone: {restorers: {d: ddrm}}}",
        {"variants": "[alone]"},
        ["bench.yaml", "alone", "restorers.d: ddrm needs a process and a denoiser", "missing"],
    ),
]


@pytest.mark.parametrize(("text", "replace", "named"), MISTAKES, ids=lambda value: str(value)[:40])
def test_a_mistake_is_one_line_that_names_it(planned, text, replace, named):
    with pytest.raises(PlanError) as error:
        planned(text, **replace)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("bench.yaml")
    for part in named:
        assert part in message, message


def test_overrides_of_the_command_line_are_named_as_such(planned):
    with pytest.raises(PlanError, match=r"^--config: vp\.training\.lr: .*-1"):
        planned(overrides={"training": {"lr": -1}})
    with pytest.raises(PlanError, match=r"^--config: sampels: .*did you mean 'samples'"):
        planned(overrides={"sampels": 5})


def test_what_is_known_by_its_contents_is_no_input_of_the_data_stage(planned, tmp_path):
    """A touched file must start nothing; what is known by its path alone, as with earlier results, is an input."""
    (tmp_path / "images" / "cats").mkdir(parents=True)
    for data in ("{name: lsun, path: images, size: 8}", "{name: folder, path: images}"):
        plan = planned(data=data)
        assert plan.inputs(plan.job("data")) == []
        by_path = jobs.DataStageSpec(data=plan.located.here.model_copy(update={"contents": None}))
        job = replace(plan.job("data"), spec=by_path)
        assert plan.inputs(job) == [Path("images"), Path("images/cats")]


@pytest.mark.parametrize(("steps", "served"), [(10, True), (7, True), (8, False)])
def test_a_strided_grid_needs_a_stride(steps, served):
    process = DiscreteSpec(schedule="cosine", steps=20)
    refusal = DDIMSpec(steps=steps, grid="strided").refusal(process)
    reason = f"steps: no integer stride takes exactly {steps} of 20 steps"
    assert refusal == (None if served else reason)


def test_a_benchmark_can_be_renamed_on_the_command_line(planned):
    plan = planned(overrides={"name": "other", "network": {"channels": 16}})
    assert (plan.root.name, len(plan.of("train"))) == ("other", 2)
    assert plan.of("train")[0].spec.network.channels == 16


def test_numbers_may_be_written_as_scientists_do(planned):
    plan = planned(training="{steps: 1e3, lr: 1e-4, batch: 1e2}", samples="2e3")
    training = plan.variants["vp"].training
    assert (training.steps, training.lr, training.batch) == (1000, 1e-4, 100)
    assert plan.benchmark.samples == 2000


def test_runs_build_on_each_other(planned):
    plan = planned(seeds="[3, 4]")
    assert [run.stage for run in plan.jobs] == sorted(
        (run.stage for run in plan.jobs), key=list(jobs.STAGES).index
    )
    assert len({run.product for run in plan.jobs}) == len(plan.jobs)
    sample = plan.job("sample", "edm", 4, "heun-18")
    train = plan.job("train", "edm", 4)
    assert sample.spec.train == train.spec
    assert plan.job("score", "edm", 4).spec.samples["heun-18"] == sample.spec
    assert plan.inputs(sample) == [paths.dataset(plan.root), train.product]
    made = {path for run in plan.jobs for path in run.products}
    assert all(path in made for run in plan.jobs for path in plan.inputs(run))


def test_one_classifier_serves_all_variants_of_a_process(planned):
    plan = planned(
        'overrides: {"ddpm-*": {solvers: {d: {name: ddim, steps: 7, classifier_scale: 2}}}}\n'
        "classifier: {training: {steps: 3}}",
        variants="[ddpm-cosine, ddpm-cosine-cond, ddpm-linear]",
        seeds="[0, 1]",
    )
    classifiers = plan.of("classifier")
    assert len(classifiers) == len({run.product for run in classifiers}) == 4
    sample = plan.job("sample", "ddpm-cosine-cond", 1, "d")
    classifier = sample.spec.classifier
    assert classifier == plan.job("sample", "ddpm-cosine", 1, "d").spec.classifier
    assert classifier != plan.job("sample", "ddpm-linear", 1, "d").spec.classifier
    assert plan.inputs(sample)[-1] == plan.job("classifier", classifier.variant, 1).product
    # Its budget lies over the benchmark's.
    assert (classifier.training.steps, classifier.training.lr) == (3, 1e-4)
    assert plan.job("sample", "ddpm-cosine", 1, "ddim-25").spec.classifier is None


def test_a_classifier_of_sigma_is_trained_on_log_normal_noise(planned):
    text = 'overrides: {"*": {solvers: {h: {name: heun, steps: 7, classifier_scale: 1}}}}'
    plan = planned(text)
    times = {run.spec.process.name: run.spec.times.name for run in plan.of("classifier")}
    assert times == {"vp": "uniform", "edm": "lognormal"}
    plan = planned(f"{text}\nclassifier: {{times: {{name: mixed}}}}")
    assert {run.spec.times.name for run in plan.of("classifier")} == {"mixed"}


def test_what_a_benchmark_offers_in_vain_to_a_variant_is_a_refusal(planned):
    plan = planned(
        "solvers: {guided: {name: ddim, steps: 7, w: 2}, none-such: {name: ddim, steps: 7, labels: [99]}}",
        variants="[ddpm-cosine, ddpm-cosine-cond]",
    )
    reasons = {(each.variant, each.item): each.reason for each in plan.refusals}
    assert "unconditional" in reasons["ddpm-cosine", "guided"]
    assert "99 is not a class of digits" in reasons["ddpm-cosine-cond", "none-such"]
    assert plan.job("sample", "ddpm-cosine-cond", 0, "guided")


@pytest.mark.parametrize("name", ["ddpm-linear", "ddpm-cosine", "edm"])
def test_a_conditional_twin_differs_in_nothing_else(name):
    pair = {"variants": [name, f"{name}-cond"], "overrides": {}, "tables": [], "figures": []}
    plan = load_plan([REPOSITORY / "config/digits.yaml"], pair, REPOSITORY)
    both = [plan.variants[each].model_dump(mode="json") for each in (name, f"{name}-cond")]
    for each in both:
        for key in ("paper", "note", "seeds", "solvers", "likelihoods"):
            each.pop(key)
    assert both[0]["objective"].pop("label_dropout") is None
    assert both[1]["objective"].pop("label_dropout") == 0.1
    assert [each["denoiser"].pop("conditional") for each in both] == [False, True]
    assert both[0] == both[1]


#: The benchmarks that test claims; each claim belongs to one of them.
CLAIMING = [
    "digits-full",
    "digits-guidance",
    "digits-sde",
    "digits-churn",
    "digits-blur",
    "digits-along",
    "digits-reflected",
    "digits-restore-seeds",
    "patches-along",
    "patches-reflected",
]


@pytest.mark.parametrize("name", CLAIMING)
def test_every_claim_of_the_full_benchmarks_has_its_seeds(name):
    """And they are such as nothing was tuned on."""
    plan = load_plan([REPOSITORY / f"config/{name}.yaml"], {}, REPOSITORY)
    metrics = read_tables(REPOSITORY).metrics
    tuned = {seed for each in plan.benchmark.tuned.values() for seed in each.seeds}
    assert tuned
    for claim in chosen(read_claims(REPOSITORY, metrics), plan.benchmark.claims).values():
        for cell in claim.cells:
            (item,) = cell.item
            wanted = (cell.variant, plan.item_at(cell.variant, item, cell.at))
            seeds = [run.seed for run in plan.jobs if (run.variant, run.item) == wanted]
            assert len(seeds) >= claim.seeds, (claim.claim, cell)
            assert not tuned & set(seeds)


def test_what_is_tuned_is_tuned_on_the_seeds_that_are_said():
    plan = load_plan([REPOSITORY / "config/digits-tune.yaml"], {}, REPOSITORY)
    tuned = plan.benchmark.tuned["snr"]
    assert (tuned.seeds, tuned.file) == (plan.benchmark.seeds, "config/digits-tune.yaml")


def test_every_claim_belongs_to_a_benchmark():
    metrics = read_tables(REPOSITORY).metrics
    claims = read_claims(REPOSITORY, metrics)
    tested = set()
    for name in CLAIMING:
        plan = load_plan([REPOSITORY / f"config/{name}.yaml"], {}, REPOSITORY)
        tested |= set(chosen(claims, plan.benchmark.claims))
    assert tested == set(claims)


def test_an_analysis_reads_the_data_alone(planned):
    plan = planned(
        "overrides: {iddpm-hybrid: {analyses: {noise: {name: gradient-noise, draws: 2}}}}",
        variants="[iddpm-hybrid]",
    )
    (run,) = plan.of("analysis")
    assert (run.item, run.product.name) == ("noise", "noise.json")
    assert plan.inputs(run) == [paths.dataset(plan.root)]
    assert run.spec.train == plan.job("train", "iddpm-hybrid").spec


def test_an_analysis_of_the_model_waits_for_its_training(planned):
    plan = planned(
        "overrides: {vp: {analyses: {latents: {name: latents, solver: {name: ddim, steps: 10}}}}}",
        seeds="[0, 1]",
    )
    for seed in (0, 1):
        run, train = plan.job("analysis", "vp", seed, "latents"), plan.job("train", "vp", seed)
        assert plan.inputs(run) == [paths.dataset(plan.root), train.product]
        assert run.spec.train == train.spec
        assert run.product == plan.root / f"runs/vp/seed{seed}/analysis/latents.json"


#: An analysis that brings all it needs.
COUNTING = """
from typing import ClassVar, Literal
from diffbench.specs.analyses import AnalysisSpec


class Counting:
    def __init__(self, spec):
        self.spec = spec

    def measure(self, bench):
        assert bench.data is None
        value = self.spec.start + bench.seed
        return {"metrics": {"count": {"value": value, "se": None}}}, None


class CountingSpec(AnalysisSpec):
    name: Literal["counting"] = "counting"
    implementation: ClassVar[type] = Counting
    uses_variant: ClassVar[bool] = False
    start: int = 10
"""
ALONE = """
extensions: [counting.py]
solvers: {heun-5: {name: heun, steps: 5}}
likelihoods: {vlb: {name: vlb}}
defaults: {objective: {times: {name: uniform}}}
methods:
  alone: {paper: mine, note: by itself, analyses: {count: {name: counting, start: 20}}}
overrides: {vp: {analyses: {count: {name: counting}}}}
"""


def test_a_variant_may_be_analyses_alone(planned, tmp_path):
    """It takes no defaults, is offered no solvers, and waits for nothing; beside a model it is the same job."""
    (tmp_path / "counting.py").write_text(COUNTING)
    plan = planned(ALONE, variants="[alone, vp]", seeds="[0, 1]")
    alone = plan.variants["alone"]
    assert (alone.network, alone.process, alone.trained) == (None, None, False)
    assert [run.stage for run in plan.jobs if run.variant == "alone"] == 2 * ["analysis"]
    assert {each.variant for each in plan.refusals} == {"vp"}
    for name in ("alone", "vp"):
        run = plan.job("analysis", name, 1, "count")
        assert (run.spec.train, plan.inputs(run), plan.upstream(run)) == (None, [], [])
        assert run.product == plan.root / f"runs/{name}/seed1/analysis/count.json"
        assert list(run.spec.extensions) == ["counting.py"]
        assert jobs.STAGES["analysis"].read(run.spec.canonical()) == run.spec
    before = digests(plan)
    after = digests(planned(ALONE, variants="[alone, vp]", seeds="[0, 1]", training="{steps: 9}"))
    assert {key[1] for key in before if before[key] != after[key]} == {"vp"}
    assert before["analysis", "vp", "count"] == after["analysis", "vp", "count"]


@pytest.mark.parametrize(
    "analyses",
    ["{noise: {name: gradient-noise}}", "{a: {name: counting}, noise: {name: gradient-noise}}"],
)
def test_an_analysis_of_a_variant_is_refused_alone(planned, tmp_path, analyses):
    (tmp_path / "counting.py").write_text(COUNTING)
    with pytest.raises(PlanError, match=r"^[^\n]*$") as error:
        planned(
            f"extensions: [counting.py]\nmethods: {{alone: {{analyses: {analyses}}}}}",
            variants="[alone]",
        )
    wanted = (
        "alone: analyses.noise: gradient-noise needs a process and a denoiser, and they are missing"
    )
    assert wanted in str(error.value)


RESTORED = """
restorations:
  images: 6
  draws: 3
  tasks:
    box: {operator: {name: box-mask, height: 4, width: 3}}
    jpeg: {operator: {name: jpeg, quality: 20}, noise: 0.1}
  variants: ["v*"]
  restorers: {ddrm-20: {name: ddrm, steps: 20}, replace-10: {name: replace, solver: {name: ancestral, steps: 10}}}
overrides:
  edm: {restorers: {snips: {name: snips}, ddrm-20: {name: ddrm, steps: 5}}}
"""
RESTORED_VARIANTS = "[vp, edm, ve, baselines]"


def restored(plan):
    """(variant, item) of the jobs of stage restore."""
    return [(run.variant, run.item) for run in plan.of("restore")]


def test_every_restorer_meets_every_task_that_it_can_serve(planned):
    plan = planned(RESTORED, variants=RESTORED_VARIANTS)
    assert restored(plan) == [
        *[("vp", item) for item in ("box/ddrm-20", "box/replace-10", "jpeg/ddrm-20")],
        *[("edm", item) for item in ("box/snips", "box/ddrm-20", "jpeg/ddrm-20")],
        *[("ve", item) for item in ("box/ddrm-20", "box/replace-10", "jpeg/ddrm-20")],
        ("baselines", "box/pseudo-inverse"),
        ("baselines", "box/posterior-mean"),
        ("baselines", "jpeg/pseudo-inverse"),
    ]
    reason = "needs a linear operator, and jpeg is not linear"
    assert {(each.variant, each.item, each.reason) for each in plan.refusals} == {
        ("vp", "jpeg/replace-10", f"replace {reason}"),
        ("edm", "jpeg/snips", f"snips {reason}"),
        ("ve", "jpeg/replace-10", f"replace {reason}"),
        ("baselines", "jpeg/posterior-mean", f"posterior-mean {reason}"),
    }
    assert {each.stage for each in plan.refusals} == {"restore"}


def test_a_restoration_waits_for_data_reference_and_model(planned):
    plan = planned(RESTORED, variants=RESTORED_VARIANTS, seeds="[0, 1]")
    run, train = plan.job("restore", "edm", 1, "jpeg/ddrm-20"), plan.job("train", "edm", 1)
    names = ("levels.npz", "reference/statistics.npz", "extractor/model.safetensors")
    shared = [plan.root / "data" / name for name in names]
    assert plan.inputs(run) == [*shared, train.product]
    spec = run.spec
    assert (spec.images, spec.draws, spec.chunk, spec.task.noise) == (6, 3, 500, 0.1)
    assert (spec.restorer.steps, spec.task.operator.quality) == (5, 20)
    assert (spec.train, spec.reference) == (train.spec, plan.job("reference").spec)
    alone = plan.job("restore", "baselines", 1, "box/posterior-mean")
    assert (plan.inputs(alone), alone.spec.train) == (shared, None)
    assert [str(path.relative_to(plan.root)) for path in run.products] == [
        "runs/edm/seed1/restore/jpeg/ddrm-20.json",
        "runs/edm/seed1/restore/jpeg/ddrm-20/images.npz",
    ]
    made = [path for job in plan.jobs for path in job.products]
    assert len(set(made)) == len(made)


def test_a_restorer_without_a_model_does_not_wait_for_one(planned):
    """Offered to a model's variant, it is the same in each: only the range of images is the usual one."""
    plan = planned(
        "restorations: {tasks: {clean: {operator: identity}}, variants: [vp], restorers: {p: pseudo-inverse}}"
    )
    run = plan.job("restore", "vp", 0, "clean/p")
    assert (run.spec.train, restored(plan)) == (None, [("vp", "clean/p")])


def test_what_is_noted_and_not_refused(planned, monkeypatch):
    monkeypatch.setattr(devices, "has_cuda", lambda: False)
    text = "overrides: {edm: {solvers: {twin: {name: heun, steps: 18}, other: {name: heun, steps: 9}}}}"
    found = list(remarks(planned(text, device="cuda")))
    assert "edm: twin is the same as heun-18, and is computed again" in found
    assert found[0].startswith("device: cuda: this machine has none")
    assert not any("other" in line or "device" in line for line in found[1:])
    assert not any("device" in line for line in remarks(planned(device="auto")))


def test_a_benchmark_may_remove_what_its_base_adds(planned, tmp_path):
    (tmp_path / "base.yaml").write_text(
        "overrides: {edm: {solvers: {heun-9: {name: heun, steps: 9}}}}"
    )
    text = "base: base.yaml\noverrides: {edm: {solvers: {heun-9: none}}}"
    assert "heun-9" not in planned(text).variants["edm"].solvers
    added = "base: base.yaml"
    removed = planned(added, {"overrides.edm.solvers.heun-9": "none"})
    assert "heun-9" in planned(added).variants["edm"].solvers
    assert "heun-9" not in removed.variants["edm"].solvers


def test_a_line_names_where_tables_and_claims_are_asked_for(planned):
    for key in ("tables", "figures", "claims"):
        with pytest.raises(PlanError, match=rf"bench.yaml:8: {key}: no \w+ 'nosuch'"):
            tables.table_params(planned(f"{key}: [nosuch]"))


@pytest.mark.parametrize(
    ("text", "shows"),
    [
        ("tables: [overview, guidance]", "'guidance' .*ddpm-cosine-cond "),
        ("figures: [trajectories]", "'trajectories' .*any job of the stage trajectory"),
        ("figures: [gradient-noise]", "'gradient-noise' .*iddpm-hybrid gradient-noise"),
        ("figures: [digits-along]", "'digits-along' .*"),
        ("seeds: [5]\nclaims: [iddpm-hybrid-*, ddpm-*]", "'ddpm-\\*' .*ddpm-"),
    ],
)
def test_what_has_nothing_of_the_plan_to_show_is_refused_in_one_line(planned, text, shows):
    key = text.splitlines()[-1].partition(":")[0]
    # `variants` is moved from the seven lines of the benchmark to the end.
    last = 6 + len(text.splitlines())
    variants = "[vp, iddpm-hybrid]" if key == "claims" else "[vp]"
    line = rf"^bench.yaml:{last}: {key}: {shows}[^\n]*leave '[^\n]*' out$"
    with pytest.raises(PlanError, match=line):
        tables.table_params(planned(text, variants=variants))


def test_what_a_part_of_a_benchmark_leaves_out_is_not_refused(planned):
    """``only`` and ``seeds`` run a part; a table of the rest is a table of dashes then."""
    text = "overrides: {ddpm-cosine-cond: {seeds: [1]}}\ntables: [overview, guidance]"
    variants = "[control-test, ddpm-cosine-cond]"
    for part in ({"only": ["control-test"]}, {"seeds": [0]}):
        plan = planned(text, {"seeds": [0, 1]} | part, variants=variants)
        assert plan.left_out == {"ddpm-cosine-cond"}
        tables.table_params(plan)
    with pytest.raises(PlanError, match="'guidance'"):
        tables.table_params(planned("tables: [guidance]", variants="[control-test]"))


def test_the_tables_of_a_benchmark_that_names_none_are_not_refused(planned):
    plan = planned(variants="[baselines]")
    assert "sample" not in {job.stage for job in plan.jobs}
    tables.table_params(plan)


def test_without_tasks_there_is_nothing_to_restore(planned):
    plan = planned(variants="[vp, baselines]")
    assert (restored(plan), plan.refusals) == ([], ())
    assert {run.variant for run in plan.jobs} == {"", "vp"}


def test_none_in_an_override_drops_a_restorer(planned):
    text = (
        "restorations: {tasks: {clean: {operator: identity}}}\n"
        "overrides: {baselines: {restorers: {posterior-mean: none}}}"
    )
    assert restored(planned(text, variants="[baselines]")) == [
        ("baselines", "clean/pseudo-inverse")
    ]


def test_a_part_of_a_benchmark_restores_its_part(planned):
    plan = planned(RESTORED, {"only": ["edm"]}, variants=RESTORED_VARIANTS)
    assert {variant for variant, _ in restored(plan)} == {"edm"}


def test_a_new_task_adds_its_jobs_and_changes_none(planned):
    before = planned(RESTORED, variants=RESTORED_VARIANTS)
    other = {"restorations": {"tasks": {"clean": {"operator": "identity"}}}}
    after = planned(RESTORED, other, variants=RESTORED_VARIANTS)
    assert changed(before, after) == set()
    added = digests(after).keys() - digests(before).keys()
    assert len(added) == 8 and {item.partition("/")[0] for _, _, item in added} == {"clean"}


def test_an_unknown_shape_is_left_to_the_job(planned):
    text = "restorations: {tasks: {box: {operator: {name: box-mask, height: 99, width: 3}}}}"
    assert planned(text, data="{name: folder, path: images}").jobs


def test_a_benchmark_may_lie_over_another(planned, tmp_path):
    planned("overrides: {vp: {seeds: [0]}, edm: {seeds: [1]}}", seeds="[0, 1]")
    over = tmp_path / "over.yaml"
    over.write_text("base: bench.yaml\nname: over\noverrides: {edm: {seeds: [0]}}\n")
    plan = load_plan([over], {"samples": 50}, REPOSITORY)
    assert (plan.root, plan.benchmark.samples) == (Path("results/over"), 50)
    assert (plan.seeds("vp"), plan.seeds("edm")) == ([0], [0])
    with pytest.raises(PlanError, match="base: over.yaml names a base itself"):
        third = tmp_path / "third.yaml"
        third.write_text("base: over.yaml\nname: third\n")
        load_plan([third], {}, REPOSITORY)


def test_a_wrong_value_of_the_base_is_reported_where_it_was_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bench.yaml").write_text(BENCHMARK + "sede: 1\n")
    (tmp_path / "over.yaml").write_text("base: bench.yaml\nname: over\n")
    with pytest.raises(PlanError, match=r"^bench.yaml:8: sede"):
        load_plan([tmp_path / "over.yaml"], {}, REPOSITORY)


def test_every_spec_survives_the_command_line(planned):
    files = [REPOSITORY / f"config/{name}.yaml" for name in ("digits-full", "digits-guidance")]
    shown = "trajectory: {images: 2}\nschedules: true\n"
    plans = *(load_plan([file], {}, REPOSITORY) for file in files), planned(RESTORED + shown)
    runs = [run for plan in plans for run in plan.jobs]
    assert {run.stage for run in runs} == set(jobs.STAGES) - {"shard"}
    for run in runs:
        again = jobs.STAGES[run.stage].read(run.spec.canonical())
        assert again == run.spec
        assert again.digest() == run.spec.digest()


def changed(before, after):
    old, new = digests(before), digests(after)
    return {key for key in old.keys() & new.keys() if old[key] != new[key]}


def test_changing_one_variant_changes_its_jobs_alone(planned):
    before = planned()
    after = planned("overrides: {vp: {training: {lr: 2e-4}}}")
    assert {variant for _, variant, _ in changed(before, after)} == {"vp"}


def test_a_new_solver_adds_its_job_and_the_score(planned):
    before = planned()
    after = planned("overrides: {vp: {solvers: {heun-5: {name: heun, steps: 5}}}}")
    assert changed(before, after) == {("score", "vp", "")}
    assert digests(after).keys() - digests(before).keys() == {("sample", "vp", "heun-5")}


def test_device_comments_and_notes_are_in_no_spec(planned):
    before = planned()
    after = planned("# a comment\nnote: for the poster", device="cuda")
    assert digests(before) == digests(after)
    assert after.device == "cuda"


def test_the_variants_own_keys_lie_between_defaults_and_overrides(planned):
    plan = planned(
        "defaults: {dequantise: none, denoiser: {data_std: 0.25, skip: edm}}\n"
        "overrides: {'e*': {denoiser: {data_std: 0.75}}}"
    )
    assert plan.variants["vp"].dequantise == "uniform"
    assert plan.variants["vp"].denoiser.data_std == 0.25
    assert plan.variants["edm"].denoiser.data_std == 0.75


def test_none_in_an_override_drops_a_solver(planned):
    plan = planned("overrides: {vp: {solvers: {em-100: none}}}")
    assert "em-100" not in plan.variants["vp"].solvers
    assert "heun-18" in plan.variants["vp"].solvers


def test_offered_solvers_become_footnotes_where_they_cannot_serve(planned):
    plan = planned(
        "solvers: {ddim-9: {name: ddim, steps: 9, grid: strided}, heun-3: {name: heun, steps: 3}}\n"
        "likelihoods: {vlb: {name: vlb}}",
        variants="[vp, ddpm-cosine, control-noise]",
    )
    assert [(each.variant, each.item) for each in plan.refusals] == [
        ("vp", "ddim-9"),
        ("vp", "vlb"),
    ]
    assert "strided needs integer times, and vp is continuous" in plan.refusals[0].reason
    assert plan.job("sample", "ddpm-cosine", 0, "ddim-9")
    assert plan.job("sample", "vp", 0, "heun-3")
    assert plan.job("likelihood", "ddpm-cosine", 0, "vlb")
    with pytest.raises(KeyError):
        plan.job("sample", "vp", 0, "ddim-9")


def test_a_sweep_makes_one_variant_of_each_value(planned):
    plan = planned(
        "methods:\n"
        "  'v-b{b}':\n"
        "    sweep: {b: [10, 20.5]}\n"
        "    note: 'at {b}'\n"
        "    process: {name: vp, beta_max: '{b}'}\n"
        "    denoiser: {predict: eps}\n"
        "    objective: simple\n"
        "    solvers: {heun-3: {name: heun, steps: 3}}\n"
        "overrides:\n"
        "  'v-b{b}': {sweep: {b: [10, 30]}}\n"
        "  v-b30: {dequantise: uniform}\n",
        variants="['v-*']",
    )
    found = {
        name: (each.process.beta_max, each.note, each.dequantise)
        for name, each in plan.variants.items()
    }
    assert found == {"v-b10": (10.0, "at 10", "none"), "v-b30": (30.0, "at 30", "uniform")}


def test_exact_denoisers_and_controls_take_no_network_and_no_defaults(planned):
    plan = planned(
        "defaults: {dequantise: uniform, denoiser: {data_std: 0.7}}",
        variants="[control-exact, control-train]",
    )
    exact = plan.job("train", "control-exact").spec
    assert (exact.network, exact.objective, exact.training) == (None, None, None)
    assert exact.dequantise == "none"
    stages_of = [(run.stage, run.item) for run in plan.jobs if run.variant == "control-train"]
    assert stages_of == [("sample", "draw"), ("score", "")]


def test_only_and_seeds_may_be_given_in_short(planned):
    plan = planned(overrides={"only": "edm", "seeds": 1})
    assert list(plan.variants) == ["edm"]
    assert plan.benchmark.seeds == [1]


def test_a_variant_may_be_run_with_some_of_the_seeds(planned):
    few = "overrides: {edm: {seeds: [0, 2]}}"
    plan = planned(few, seeds="[0, 1, 2]")
    assert {name: plan.seeds(name) for name in plan.variants} == {"vp": [0, 1, 2], "edm": [0, 2]}
    assert {run.seed for run in plan.jobs if run.variant == "edm"} == {0, 2}
    assert list(planned(few, seeds="[1]").variants) == ["vp"]
    with pytest.raises(PlanError, match="seeds: none of the chosen variants has a seed among 1"):
        planned(few, seeds="[1]", variants="[edm]")


def test_the_last_file_counts_and_none_means_the_digits(planned, tmp_path):
    planned()
    other = tmp_path / "other.yaml"
    other.write_text(BENCHMARK.replace("name: bench", "name: other", 1))
    assert load_plan([tmp_path / "bench.yaml", other], {}, REPOSITORY).root == Path("results/other")
    assert load_plan([], {}, REPOSITORY).benchmark.name == "digits"


#: All benchmark files of the repository: those that name where their results go.
SHIPPED = [
    path
    for folder in ("config", "tests")
    for path in sorted((REPOSITORY / folder).glob("*.yaml"))
    if re.search("^name: ", path.read_text(), re.MULTILINE)
]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_benchmarks_of_the_repository_are_valid(path):
    """With their tables, figures and claims; the files that they read need not be there."""
    plan = load_plan([path], {}, REPOSITORY, needs_files=False)
    assert plan.jobs
    tables.table_params(plan)


def test_every_method_of_the_repository_is_valid(planned):
    assert len(planned(variants='["*"]').variants) >= 11


EXTENSION = """\
from typing import ClassVar, Literal
from diffbench.specs.processes import ProcessSpec

class Mine:
    def __init__(self, spec, scale=1):
        self.answer = spec.strength * scale

class MineSpec(ProcessSpec):
    name: Literal["{name}"] = "{name}"
    implementation: ClassVar[type] = Mine
    strength: float = 2.0
"""


@pytest.fixture
def extension(tmp_path):
    """An extension file that defines the process ``mine-too``; what it registers is forgotten."""
    path = tmp_path / "mine.py"
    path.write_text(EXTENSION.format(name="mine-too"))
    yield path
    ProcessSpec.known.pop("mine-too", None)
    sys.modules.pop("diffbench_extension_mine", None)


def test_an_extension_is_named_in_the_specs_that_use_it_alone(planned, extension):
    from diffbench.store.files import sha256

    plan = planned(
        "extensions: [mine.py]\n"
        "methods:\n"
        "  mine:\n"
        "    process: {name: mine-too, strength: 3}\n"
        "    denoiser: {predict: eps}\n"
        "    objective: simple\n"
        "    solvers: {heun-3: {name: heun, steps: 3}}\n",
        variants="[vp, mine]",
    )
    used = {"mine.py": sha256(extension)}
    for run in plan.jobs:
        assert run.spec.extensions == (used if run.variant == "mine" else {}), run
    built = build(plan.variants["mine"].process, scale=2)
    assert built.answer == 6


def test_an_extension_that_does_not_import_says_why(planned, tmp_path):
    (tmp_path / "mine.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(PlanError, match=r"bench\.yaml:8: .*mine\.py.*nothing_of_this_name"):
        planned("extensions: [mine.py]")


def test_an_extension_cannot_take_a_name_that_is_taken(tmp_path):
    path = tmp_path / "thief.py"
    path.write_text(EXTENSION.format(name="vp"))
    with pytest.raises(PlanError, match="two classes of the kind process have the name 'vp'"):
        source(path).load()


def test_build_imports_the_class_that_a_spec_names():
    from diffbench.specs.controls import NoiseControlSpec

    assert type(build(NoiseControlSpec())).__name__ == "NoiseControl"


@pytest.mark.parametrize(
    ("visible", "torch", "node", "device"),
    [
        (None, "2.9.0", True, "cuda"),
        (None, "2.9.0+cu128", True, "cuda"),
        (None, "2.9.0", False, "cpu"),
        (None, "2.9.0+cpu", True, "cpu"),
        ("", "2.9.0", True, "cpu"),
        ("-1", "2.9.0", True, "cpu"),
        ("0", "2.9.0", False, "cuda"),
    ],
)
def test_auto_is_resolved_without_torch(monkeypatch, tmp_path, visible, torch, node, device):
    monkeypatch.setattr(devices, "NVIDIA", tmp_path / "nvidia0")
    monkeypatch.setattr(devices.metadata, "version", lambda name: torch)
    if node:
        (tmp_path / "nvidia0").touch()
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices.resolved("auto") == device
    assert devices.resolved("cpu") == "cpu"


def test_a_results_folder_that_cannot_be_made_is_refused(tmp_path, monkeypatch):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(PlanError, match=r"cannot be written .* is not a folder"):
        check_writable(tmp_path / "results" / "digits")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(PlanError, match="no permission"):
        check_writable(tmp_path / "elsewhere")


def test_planning_loads_no_torch():
    code = (
        "import sys; from pathlib import Path; from diffbench.plan.loading import load_plan;"
        "load_plan([], {}, Path(sys.argv[1])); print(sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(REPOSITORY)], capture_output=True, text=True, check=True
    )
    assert not {"'torch'", "'numpy'", "'pandas'"} & set(done.stdout.strip("[]\n").split(", "))


EMPTY = hashlib.sha256(b"").hexdigest()
INCEPTION = f"name: inception, weights: network.pth, sha256: {EMPTY}, opinions: [clean_fid]"


def test_scores_wait_for_the_reference_and_training_does_not(planned):
    plan = planned()
    reference, score = plan.job("reference"), plan.job("score", "vp")
    assert plan.inputs(reference) == [paths.dataset(plan.root)]
    assert plan.inputs(score)[:3] == [paths.dataset(plan.root), *reference.products]
    assert score.spec.reference == reference.spec
    assert plan.inputs(plan.job("train", "vp")) == [paths.dataset(plan.root)]
    changed = planned(extractor="{epochs: 3}")
    for stage in ("data", "train"):
        assert [each.spec for each in changed.of(stage)] == [each.spec for each in plan.of(stage)]
    assert changed.job("score", "vp").spec != score.spec


def test_the_reference_says_how_images_are_measured(planned):
    spec = planned().job("reference").spec
    assert (spec.library, spec.split) == ("torch-fidelity 0.4.0", "train")
    assert spec.conversion == "grey levels to [-1, 1]"


def test_where_weights_lie_is_in_no_spec_and_what_they_are_is(planned, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("network.pth").touch()
    plan = planned(extractor=f"{{{INCEPTION}}}")
    spec = plan.job("reference").spec
    assert plan.benchmark.extractor.files == spec.extractor.files == {"weights": "network.pth"}
    assert "network.pth" not in spec.canonical()
    assert EMPTY in spec.canonical()
    assert jobs.STAGES["reference"].read(spec.canonical()).extractor.opinions == ("clean_fid",)
    elsewhere = planned(extractor=f"{{{INCEPTION.replace('weights: network.pth, ', '')}}}")
    assert elsewhere.job("reference").spec.digest() == spec.digest()
    assert plan.job("reference").products == (plan.root / "data/reference/statistics.npz",)


@pytest.mark.parametrize(
    ("extractor", "words"),
    [
        (
            "{name: inception, weights: gone.pth}",
            ["extractor.weights", "no file 'gone.pth'", "github.com/toshas", "sha256 6726825d"],
        ),
        ("{name: inception, sha256: abc}", ["extractor.sha256", "abc"]),
        ("{name: inception, opinions: [other]}", ["extractor.opinions", "clean_fid"]),
        ("{name: inseption}", ["inseption", "did you mean 'inception'"]),
        ("{name: inception, epochs: 3}", ["epochs"]),
    ],
)
def test_an_extractor_that_cannot_be_is_refused_in_one_line(planned, extractor, words):
    with pytest.raises(PlanError) as caught:
        planned(extractor=extractor)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text


def precisions(plan, stage):
    return {(run.variant, run.item): run.spec.precision for run in plan.of(stage)}


def test_sampling_has_a_precision_of_its_own_and_retrains_nothing(planned):
    """In fp32 unless it says otherwise, whatever the training's; what controls its error is always in fp32."""
    training = "{steps: 5, precision: bf16}"
    own = "overrides: {vp: {solvers: {rk45: ode-adaptive}, likelihoods: {vlb: {name: vlb, steps: 9, grid: log-snr}}}}\n"
    plain = planned(own, training=training)
    assert set(precisions(plain, "sample").values()) == {"fp32"}
    assert {run.spec.training.precision for run in plain.of("train")} == {"bf16"}
    low = planned(own, training=training, sampling="{precision: fp16}")
    assert [run.spec for run in low.of("train")] == [run.spec for run in plain.of("train")]
    found = precisions(low, "sample")
    assert found.pop(("vp", "rk45")) == "fp32" and set(found.values()) == {"fp16"}
    bounds = precisions(low, "likelihood")
    assert bounds["vp", "vlb"] == "fp16"
    assert {value for (_, item), value in bounds.items() if item == "ode"} <= {"fp32"}


def test_what_has_no_network_is_asked_in_no_precision(planned):
    methods = "methods: {exact: {process: vp, denoiser: gaussian, solvers: {em-5: {name: euler-maruyama, steps: 5}}}}\n"
    plan = planned(methods, variants="[exact, control-test, vp]", sampling="{precision: bf16}")
    assert plan.job("sample", "exact", item="em-5").spec.precision == "fp32"
    asked = {run.variant: run.spec.asked_in for run in plan.of("sample")}
    assert (asked["exact"], asked["control-test"], asked["vp"]) == ("", "", "bf16")
    with pytest.raises(PlanError, match="the gaussian denoiser is exact and has no sampling"):
        planned(
            methods.replace("solvers", "sampling: {precision: bf16}, solvers"), variants="[exact]"
        )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "methods: {'a-{x}{y}': {sweep: {x: [%s], y: [%s]}}}"
            % ((",".join(map(str, range(40))),) * 2),
            ["a-{x}{y}.sweep", "1,600 variants", "at most 1,000"],
        ),
        ("methods: {'a-{x}': {sweep: {x: []}}}", ["bench.yaml:8", "a-{x}.sweep.x", "empty"]),
        (
            "methods: {'a-{x}': {sweep: {x: 3}}}",
            ["bench.yaml:8", "sweep.x", "list of values, not 3"],
        ),
        (f"seeds: [{','.join(map(str, range(10001)))}]", ["bench.yaml:8: seeds", "20,002 runs"]),
        ("shards: 100000", ["bench.yaml:8: shards", "at most 10,000"]),
        ("base: [a]", ["bench.yaml:8: base: must be the path of a file"]),
        ("extensions: [3]", ["bench.yaml:8: extensions: must be paths", "not 3"]),
        ("overrides: {vp: {denoiser: }}", ["bench.yaml:8: vp.denoiser: is empty"]),
    ],
)
def test_a_plan_is_bounded_and_says_what_is_left_empty(planned, text, said):
    with pytest.raises(PlanError) as error:
        planned(text)
    for part in said:
        assert part in str(error.value)


@pytest.mark.parametrize(("length", "fits"), [(200, True), (201, False)])
def test_an_id_fits_into_the_name_of_a_file(planned, length, fits):
    """`.tmp.`, the id, `@`, a step and `.spec.json` are less than 255 bytes."""
    text = f"overrides: {{vp: {{solvers: {{{'s' * length}: {{name: heun, steps: 2}}}}}}}}"
    if fits:
        assert planned(text).jobs
        return
    with pytest.raises(PlanError, match="at most 200 characters; it has 201"):
        planned(text)


@pytest.mark.parametrize("key", ["network", "training"])
def test_what_a_benchmark_lacks_is_not_blamed_on_the_methods(tmp_path, key):
    lines = [line for line in BENCHMARK.splitlines() if not line.startswith(f"{key}:")]
    (tmp_path / "bench.yaml").write_text("\n".join(lines))
    with pytest.raises(PlanError, match=rf"bench\.yaml:\d: {key}: this key is missing, and vp"):
        load_plan([tmp_path / "bench.yaml"], {}, REPOSITORY)


# What is added or replaced, and the one line that says why a setting has no effect.
IDLE = [
    (
        "overrides: {vp: {solvers: {h: {name: heun, steps: 3, percentile: 0.9}}}}",
        {},
        "vp.solvers.h.percentile: 0.9 has no effect without threshold: dynamic, and threshold is none; leave",
    ),
    (
        "solvers: {h: {name: heun, steps: 3, churn_min: 0.1}}",
        {},
        "^bench.yaml:8: solvers.h.churn_min: 0.1 has no effect without churn, and churn is 0; leave churn_min out$",
    ),
    (
        "overrides: {vp: {solvers: {h: {name: heun, steps: 3, churn: 1, sigma_max: 5, churn_min: 9}}}}",
        {},
        "vp.solvers.h.churn_min: 9 leaves no step to churn: the grid goes from 0.002 to 5",
    ),
    (
        "solvers: {e: {name: euler-maruyama, steps: 3, corrector: {step_size: 1e-3, levels: 9}}}",
        {},
        "solvers.e.corrector.levels: 9 has no effect without snr, and snr is none",
    ),
    (
        "overrides: {edm: {solvers: {l: {name: euler-maruyama, steps: 3, corrector: {snr: 0.1, levels: 9}}}}}",
        {},
        "^bench.yaml:8: edm.solvers.l.corrector.levels: 9 has no effect with process: edm, only with one of continuous "
        "time that scales the image; leave levels out$",
    ),
    (
        "overrides: {ddpm-linear: {objective: {times: {name: uniform, last: 0.1}}}}",
        {"variants": "[ddpm-linear, vp]"},
        "objective.times.last: 0.1 has no effect with process: discrete, only with one of continuous time; leave last",
    ),
    (
        "solvers: {d: {name: ddim, steps: 3, rho: 3}}",
        {},
        "solvers.d.rho: 3 has no effect without grid: karras, and grid is uniform",
    ),
    ("likelihoods: {o: {name: ode, trace: exact, probes: 4}}", {}, "probes: 4 .*trace: hutchinson"),
    ("likelihoods: {o: {name: ode, grid: uniform}}", {}, "grid: uniform .*without steps"),
    (
        "overrides: {vp: {denoiser: {data_std: 0.7, skip: none}}}",
        {},
        "vp.denoiser.data_std: 0.7 has no effect without skip: edm or predict: edm; leave data_std out",
    ),
    ("floors: {redraws: 0, seed: 3}", {}, "floors.seed: 3 has no effect without redraws"),
    ("restorations: {images: 9}", {}, "images: 9 .*without tasks, and tasks is a mapping of 0"),
    ("gpus: 2", {"device": "cpu"}, "gpus: 2 has no effect without device: auto or cuda"),
    ("", {"data": "{name: folder, path: images, resize: lanczos}"}, "resize: lanczos .* size"),
    (
        "",
        {"data": "{name: lsun, path: images, test_path: images, seed: 3, test_fraction: 0.5}"},
        "data.test_fraction: 0.5 has no effect without test_path: none, and test_path is images",
    ),
    ("chunk: 1048577", {}, "chunk: must be at most 1,048,576"),
    ("extractor: {resamples: 1e9}", {}, "extractor.resamples: must be at most 1,000,000"),
]


@pytest.mark.parametrize(("text", "replace", "line"), IDLE, ids=[line for *_, line in IDLE])
def test_a_setting_without_effect_is_refused_in_one_line(planned, text, replace, line):
    with pytest.raises(PlanError, match=r"^[^\n]*$") as error:
        planned(text, **replace)
    assert re.search(line, str(error.value)), error.value


def test_a_warm_up_longer_than_its_training_is_noted(planned):
    noted = "vp, training: warmup: 10 of 9 steps: the rate 0.001 is never reached"
    assert noted in list(remarks(planned("", training="{steps: 9, warmup: 10, lr: 1e-3}")))
    assert not list(remarks(planned("", training="{steps: 9, warmup: 9, lr: 1e-3}")))


def test_a_shared_setting_with_an_effect_somewhere_is_accepted(planned):
    """One line for two variants, of which one has EDM's skip."""
    shared = "defaults: {denoiser: {data_std: 0.7}}\noverrides: {edm-eps: {denoiser: {skip: edm}}}"
    planned(shared, variants="[vp, edm-eps]")
    with pytest.raises(PlanError, match=r"^bench.yaml:7: vp.denoiser.data_std: 0.7 has no effect"):
        planned(shared, variants="[vp]")
    # A part of the benchmark: the line is for what is left out.
    planned(shared, {"only": "vp"}, variants="[vp, edm-eps]")


def test_a_later_option_may_turn_off_what_a_setting_belongs_to(planned):
    text = "solvers: {h: {name: heun, steps: 3, churn: 1, churn_noise: 1.1}}"
    planned(text)
    planned(text, {"solvers.h.churn": 0})
    with pytest.raises(PlanError, match="^--config: solvers.h.percentile"):
        planned(text, {"solvers.h.percentile": 0.5})
