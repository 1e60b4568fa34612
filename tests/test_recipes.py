"""What is merged into the papers' variants: what a later pattern of `overrides` must not have undone."""

from __future__ import annotations

import pytest
from commands import REPOSITORY

from diffbench.plan.jobs import Plan
from diffbench.plan.runs import load_plan

CIFAR, DOWN32, DOWN64, CHURCH = "cifar10", "imagenet32", "imagenet64", "lsun-church-128"
MINI = "cifar10-mini"
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
    (CIFAR, "reflected-plain"): {"reduction": "half-sum", "clip": 1, "flip": True},
    (CIFAR, "reflected-plain-likelihood"): {"reduction": "half-sum", "flip": False},
    (DOWN32, "reflected-plain-likelihood"): {"reduction": "half-sum", "batch": 512, "flip": False},
    (DOWN32, "vp-likelihood"): {"reduction": "mean", "batch": 128, "flip": False},
    (DOWN64, "adm-cond"): {"steps": 540_000, "batch": 2048, "lr": 3e-4, "clip": None},
    (DOWN64, "cfg-p0.1"): {"steps": 400_000, "batch": 2048, "lr": 3e-4, "clip": None},
    (DOWN64, "edm-cond"): {"batch": 4096, "lr": 1e-4, "reduction": "sum", "finite": True},
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
    (CIFAR, "edm-b-cond"): {"multipliers": (1, 2, 2, 2), "dropout": 0.13, "augmentation": 0},
    (CIFAR, "edm-ve-f-cond"): {"name": "edm-ncsnpp", "augmentation": 9},
    (DOWN32, "vp-likelihood"): {"blocks": 8, "dropout": 0},
    (DOWN64, "adm-cond"): {"name": "adm", "dropout": 0.1},
    (CHURCH, "ihdm-paper-raw"): {"attention": (32, 16, 8), "dropout": 0.1},
}


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    return {
        name: load_plan([REPOSITORY / f"config/{name}.yaml"], {}, REPOSITORY, needs_files=False)
        for name in (CIFAR, DOWN32, DOWN64, CHURCH, MINI)
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
