"""What is merged into the papers' variants: what a later pattern of `overrides` must not have undone."""

from __future__ import annotations

import pytest
import torch
from commands import REPOSITORY
from toys import Toy, close, toy_eps

from diffbench.diffusion.core.process import float64
from diffbench.diffusion.denoisers.network import noise_input
from diffbench.diffusion.objectives.times import UniformTimes
from diffbench.plan.jobs import Plan
from diffbench.plan.loading import load_plan
from diffbench.reporting import layout
from diffbench.specs.processes import DiscreteSpec
from diffbench.specs.registry import build

CIFAR, DOWN32, CHURCH = "cifar10", "imagenet32", "lsun-church-128"
DOWN64, COND64 = "imagenet64", "imagenet64-cond"
CHURCH_256, MINI = "lsun-church", "cifar10-mini"
#: Of Song et al.'s VE and of reflected diffusion the gradient of half the sum is clipped at 1, of VP that of the mean.
#: DDPM clips that of a single term of the bound, and inverse heat dissipation that of the sum over an image.
TRAINING = {
    (CIFAR, "ddpm-linear"): {"steps": 800_000, "reduction": "mean", "clip": 1, "lr": 2e-4},
    (CIFAR, "ddpm-linear-mean-vlb"): {"steps": 800_000, "reduction": "mean", "clip": 1000},
    (CIFAR, "iddpm-hybrid"): {"steps": 500_000, "clip": None, "flip": False, "lr": 1e-4},
    (CIFAR, "vp"): {"steps": 1_300_000, "reduction": "mean", "clip": 1, "finite": False},
    (CIFAR, "ve-deep"): {"steps": 950_000, "reduction": "half-sum", "clip": 1, "flip": True},
    (CIFAR, "edm"): {"batch": 512, "reduction": "sum", "clip": None, "finite": True, "flip": False},
    (CIFAR, "edm-e-cond"): {"batch": 512, "reduction": "sum", "clip": None, "flip": True},
    (CIFAR, "edm-a"): {"batch": 128, "reduction": "mean", "clip": 1, "lr": 2e-4, "warmup": 5000},
    (CIFAR, "edm-ve-a-cond"): {"batch": 128, "reduction": "half-sum", "clip": 1, "flip": True},
    (CIFAR, "ihdm-paper-raw"): {"clip": pytest.approx(0.01**-2 / (3 * 32**2), rel=1e-4)},
    (CIFAR, "edm-ve-d"): {"batch": 512, "reduction": "sum", "clip": None, "flip": True},
    (CIFAR, "vp-likelihood"): {"steps": 950_000, "flip": False, "warmup": 5000},
    (CIFAR, "reflected-plain"): {"reduction": "half-sum", "clip": 1, "flip": True},
    (CIFAR, "reflected-plain-likelihood"): {"reduction": "half-sum", "flip": False},
    (DOWN32, "reflected-plain-likelihood"): {"reduction": "half-sum", "batch": 512, "flip": False},
    (DOWN32, "vp-likelihood"): {"reduction": "mean", "batch": 128, "flip": False},
    (COND64, "adm-cond"): {"steps": 540_000, "batch": 2048, "lr": 3e-4, "clip": None},
    (COND64, "cfg-p0.1"): {"steps": 400_000, "batch": 2048, "lr": 3e-4, "clip": None},
    (COND64, "edm-cond"): {"batch": 4096, "lr": 1e-4, "reduction": "sum", "finite": True},
    (CHURCH, "ihdm-paper-raw"): {
        "clip": pytest.approx(0.01**-2 / (3 * 128**2), rel=1e-4),
        "steps": 1_300_000,
        "batch": 32,
        "flip": False,
    },
}
NETWORKS = {
    (CIFAR, "iddpm-linear-hybrid"): {"dropout": 0.1},
    (CIFAR, "iddpm-hybrid"): {"dropout": 0.3},
    (CIFAR, "vp-deep"): {"name": "ddpmpp", "blocks": 8, "dropout": 0.1},
    (CIFAR, "vp-likelihood"): {"name": "ddpmpp", "blocks": 8},
    (CIFAR, "ve-discrete"): {"name": "ddpm", "embedding": "positional"},
    (CIFAR, "ve-discrete-ncsnpp"): {"name": "ncsnpp", "embedding": "positional"},
    (CIFAR, "edm-b-cond"): {"multipliers": (1, 2, 2, 2), "dropout": 0.13, "augmentation": 0},
    (CIFAR, "edm-ve-f-cond"): {"name": "edm-ncsnpp", "augmentation": 9},
    (DOWN32, "reflected-plain-likelihood"): {"name": "reflected-vdm", "channels": 128},
    (DOWN32, "vp-likelihood"): {"blocks": 8, "dropout": 0},
    (COND64, "adm-cond"): {"name": "adm", "dropout": 0.1},
    (CHURCH, "ihdm-paper-raw"): {"attention": (32, 16, 8), "dropout": 0.1},
}


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    return {
        name: load_plan([REPOSITORY / f"config/{name}.yaml"], {}, REPOSITORY, needs_files=False)
        for name in (CIFAR, DOWN32, DOWN64, COND64, CHURCH, CHURCH_256, MINI)
    }


@pytest.mark.parametrize(
    ("part", "where", "wanted"),
    [
        (part, where, wanted)
        for part, recipes in (("training", TRAINING), ("network", NETWORKS))
        for where, wanted in recipes.items()
    ],
    ids=lambda each: "-".join(each) if isinstance(each, tuple) else "",
)
def test_a_recipe_is_its_papers(plans, part, where, wanted):
    found = getattr(plans[where[0]].variants[where[1]], part)
    assert {key: getattr(found, key) for key in wanted} == wanted


def test_no_paper_trains_on_dequantised_images(plans):
    """They are so for likelihoods alone."""
    trained = [each for plan in plans.values() for each in plan.variants.values() if each.training]
    assert len(trained) > 40
    assert {each.dequantise for each in trained} == {"none"}


def times_of(plan: Plan, variant: str, item: str) -> list[float]:
    """Where a solver steps, without the data."""
    chosen = plan.variants[variant]
    solver = build(chosen.solvers[item], Toy(build(chosen.process), "eps", toy_eps))
    return [float(t) for t in solver.times()[:-1]]


def test_ddims_grids_are_its_codes(plans):
    """On CIFAR-10 squares up to 800, at S = 1000 all levels; even ones on LSUN, from 900 of 10 steps."""
    for item in ("ddim-10-eta0", "ddim-10-eta1", "sigma-hat-10"):
        squares = [800, 632, 483, 355, 246, 158, 88, 39, 9, 0]
        assert times_of(plans[CIFAR], "ddpm-linear", item) == squares
    assert times_of(plans[CIFAR], "ddpm-linear", "sigma-hat-1000") == list(range(999, -1, -1))
    for item in ("ddim-10-eta0", "ddim-10-eta1"):
        assert times_of(plans[CHURCH_256], "ddpm-linear", item) == list(range(900, -1, -100))


def test_the_large_class_conditional_model_rescales_nothing(plans):
    """A network of 4,000 levels is told the level; the bound's sum has a weight of 1/4000, a single term 1."""
    variant = plans[COND64].variants["iddpm-cond-large"]
    process, t = build(variant.process), float64([0, 1234, 3999])
    told = noise_input(
        process, torch.zeros(3, 1), t[:, None, None, None], variant.denoiser.noise_input
    )
    assert told.tolist() == [0, 1234, 3999]
    assert variant.objective.weight * variant.process.steps == 1


def test_discrete_training_is_on_ddpms_levels(plans):
    for name in ("vp-discrete", "vp-discrete-ddpmpp"):
        variant = plans[CIFAR].variants[name]
        process, chain = build(variant.process), DiscreteSpec(schedule="linear", steps=1000)
        times = UniformTimes(variant.objective.times, process)
        t, _ = times.quantile((torch.arange(1000).double() + 0.5) / 1000)
        close(process.sigma(t), build(chain).sigma(torch.arange(1000).double()), rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", ["digits", "digits-full"])
def test_both_schedules_of_ddpms_table_have_the_published_variance(name):
    """Large: Improved DDPM's rows with L_simple are so, and a row has no other to fall back on."""
    plan = load_plan([REPOSITORY / f"config/{name}.yaml"], {}, REPOSITORY)
    table = layout.read_tables(REPOSITORY).tables["ddpm-table1"]
    for row in table.rows:
        if "bits_per_dim" in row.cells:
            (likelihood,) = row.cells["bits_per_dim"].item
            variant = plan.variants.get(row.variant)
            assert variant is None or variant.likelihoods[likelihood].variance == "large"
