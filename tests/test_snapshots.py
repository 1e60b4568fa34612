"""Weights along training: what a plan makes of them and refuses, the same bits after any stop, cells that name them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import plan_of, write_config
from layouts import configured, fill, rows_of
from safetensors.torch import load_file
from test_plan import planned

import diffbench
from diffbench.estimate.estimate import estimate
from diffbench.jobs import data, likelihood, sample, shard, train
from diffbench.plan.findings import examine, unneeded
from diffbench.plan.rules import rules
from diffbench.reporting.tables import make, table_params
from diffbench.specs.errors import PlanError
from diffbench.specs.registry import build
from diffbench.specs.solvers import HeunSpec
from diffbench.specs.training import TrainingSpec
from diffbench.specs.weights import OfWeights
from diffbench.store import files, paths
from diffbench.store.products import read_product, write_product
from diffbench.store.state import GENERATIONS, generations, kept
from diffbench.training import models

__all__ = ["planned"]

CPU = torch.device("cpu")
#: A variant with solvers of several steps, a likelihood of one, and one of another length.
ALONG = {
    "only": ["ddpm-cosine"],
    "training": {"steps": 12, "snapshots": [4, 0.5], "ema": {"name": "power"}},
    "tables": [],
    "claims": [],
    "figures": [],
    "samples": 40,
    "chunk": 20,
    "overrides": {
        "ddpm-cosine": {
            "solvers": {
                "ancestral-10": {"at": [4, 6, "last"]},
                "ddim-5": {"at": 0.5},
                "ddim-long": {"name": "ddim", "steps": 5, "at": 12, "ema_std": 0.1},
                "ddim-new": {"name": "ddim", "steps": 5, "ema_std": 0.07},
            },
            "likelihoods": {"vlb-small": {"at": [4, "last"]}},
        }
    },
}


def items(plan, stage):
    return [run.item for run in plan.of(stage)]


def test_snapshots_are_steps_in_order_without_the_last():
    assert TrainingSpec(steps=1000, snapshots=[1000, 0.25, "1e2"]).snapshots == (100, 250)
    spec = TrainingSpec(steps=1000, snapshots=[0.5])
    assert TrainingSpec.read(spec.canonical()) == spec


def test_keys_that_nobody_uses_leave_specs_as_they_were():
    """Results made before there were snapshots stay what a plan wants."""
    assert "snapshots" not in TrainingSpec(steps=3).canonical()
    assert not {"at", "ema_std"} & HeunSpec(steps=3).model_dump(mode="json").keys()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            "training: {snapshots: [11]}",
            ["training.snapshots", "11 is past the budget of 10 steps"],
        ),
        (
            "training: {snapshots: [0]}",
            ["training.snapshots", "0 is not a step", "fraction of the run"],
        ),
        ("training: {snapshots: [1.0]}", ["training.snapshots", "1.0 is not a step"]),
        ("training: {snapshots: [5, 0.5]}", ["training.snapshots", "step 5 appears twice"]),
        ("training: {snapshots: [0.01]}", ["training.snapshots", "0.01 of 10 steps is less than"]),
        ("solver: {at: 11}", ["vp.solvers.heun-18.at: 11 is past the budget of 10 steps"]),
        (
            "solver: {at: 7}",
            [
                "vp.solvers.heun-18.at: 7 is neither one of the snapshots (training.snapshots: 2, 5) "
                "nor the last step, 10"
            ],
        ),
        ("solver: {at: 0.7}", ["heun-18.at: 0.7 (step 7) is neither one of the snapshots"]),
        ("solver: {at: [5, 0.5]}", ["heun-18.at: step 5 appears twice"]),
        ("solver: {at: soon}", ["heun-18.at", "must be a finite number, not 'soon'"]),
        ("solver: {ema_std: 0.07}", ["heun-18.ema_std: 0.07 needs at least two tracked lengths"]),
        ("likelihood: {at: 3}", ["vp.likelihoods.ode.at: 3 is neither one of the snapshots"]),
        ("classifier: {snapshots: [5]}", ["classifier.training.snapshots", "leave it out"]),
    ],
)
def test_what_is_not_kept_is_refused_in_one_line(planned, text, named):
    key, value = text.split(": ", 1)
    training = "{steps: 10, lr: 1e-4, snapshots: [2, 0.5]}"
    texts = {
        "training": "",
        "solver": f"overrides: {{vp: {{solvers: {{heun-18: {value}}}}}}}",
        "likelihood": f"overrides: {{vp: {{likelihoods: {{ode: {value}}}}}}}",
        "classifier": f"classifier: {{training: {value}}}\n"
        "overrides: {vp: {solvers: {heun-18: {classifier_scale: 1}}}}",
    }
    if key == "training":
        training = value.replace("{", "{steps: 10, lr: 1e-4, ")
    with pytest.raises(PlanError) as caught:
        planned(texts[key], training=training)
    assert "\n" not in str(caught.value)
    for words in named:
        assert words in str(caught.value)


def test_a_solver_that_something_else_drives_names_no_weights(planned):
    inner = "{name: latents, solver: {name: ddim, steps: 5, at: 5}}"
    with pytest.raises(PlanError, match="at and ema_std belong to a variant's own solvers"):
        planned(f"overrides: {{vp: {{analyses: {{latents: {inner}}}}}}}")


def test_an_exact_denoiser_has_no_snapshots(planned):
    with pytest.raises(PlanError, match=r"at: the gaussian denoiser is exact and is not trained"):
        planned(
            "methods: {exact: {process: {name: vp}, denoiser: {name: gaussian},"
            " solvers: {heun-3: {name: heun, steps: 3, at: 5}}}}",
            variants="[exact]",
        )


def test_what_is_offered_in_vain_is_a_footnote(planned):
    plan = planned("solvers: {heun-3: {name: heun, steps: 3, at: 5}}")
    assert {(each.item, each.reason[:28]) for each in plan.refusals} == {
        ("heun-3", "at: 5 is neither one of the ")
    }


def test_a_list_makes_a_job_of_each_and_one_step_keeps_its_id(tmp_path):
    write_config(tmp_path, ALONG)
    plan = plan_of(tmp_path)
    steps = {run.item: run.spec.solver.at for run in plan.of("sample")}
    assert steps == {
        "ancestral-10@4": 4,
        "ancestral-10@6": 6,
        "ancestral-10": None,
        "ddim-5": 6,
        "ddim-long": None,
        "ddim-new": None,
    }
    assert items(plan, "likelihood") == ["vlb-small@4", "vlb-small"]
    found = {at: plan.item_at("ddpm-cosine", "ancestral-10", at) for at in (None, 4, 0.5, 12, 5)}
    assert found == {
        None: "ancestral-10",
        4: "ancestral-10@4",
        0.5: "ancestral-10@6",
        12: "ancestral-10",
        5: "ancestral-10@5",
    }
    assert plan.item_at("ddpm-cosine", "ddim-5", 6) == "ddim-5"
    assert plan.item_at("ddpm-cosine", "ddim-5", 12) == "ddim-5@12"
    assert plan.item_at("absent", "ddim-5", 0.5) == "ddim-5@0.5"


def test_a_training_has_a_rule_for_its_list_of_files(tmp_path):
    changes = {
        "only": [],
        "training": {"snapshots": [2]},
        "overrides": {
            "edm": {"training": {"snapshots": []}},
            "ve": {"training": {"ema": {"name": "power"}}},
        },
    }
    write_config(tmp_path, changes)
    plan = plan_of(tmp_path)
    found = {rule.name: rule for rule in rules(plan) if rule.stage.name() == "train"}
    assert set(found) == {"train", "train_along", "train_along_2"}
    folder = "runs/{variant}/seed{seed}"
    assert found["train"].constraints["variant"] == "edm"
    assert found["train"].templates == (f"{folder}/model.safetensors",)
    assert found["train_along"].templates[1:] == (f"{folder}/snapshots/2/model.safetensors",)
    assert found["train_along_2"].constraints["variant"] == "ve"
    for job in plan.of("train"):
        (rule,) = [rule for rule in found.values() if job.variant in rule.variants]
        made = [each.format(variant=job.variant, seed=job.seed) for each in rule.templates]
        assert list(job.products) == [plan.root / each for each in made]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A working directory with data and the model of ALONG, and its plan."""
    folder = tmp_path_factory.mktemp("along")
    write_config(folder, ALONG)
    plan = plan_of(folder)
    root, spec = folder / plan.root, plan.job("data").spec
    write_product(paths.dataset(root), lambda file: data.save(build(spec.data).load(), file), spec)
    train.run(plan.job("train", "ddpm-cosine").spec, root, "cpu")
    return folder, plan


@pytest.fixture
def copied(trained, tmp_path):
    folder = Path(shutil.copytree(trained[0], tmp_path / "copy"))
    return folder / trained[1].root, trained[1].job("train", "ddpm-cosine").spec


def hashes(root, spec):
    return {path: files.sha256(path) for path in paths.products(root, spec)}


def states_at(trained, *steps):
    """The averages of a training in memory after some steps, by step and number of the average."""
    folder, plan = trained
    spec = plan.job("train", "ddpm-cosine").spec
    trainer = train.denoiser_trainer(spec, data.load(folder / plan.root, spec.data), CPU)
    found = {}
    for step in range(1, max(steps) + 1):
        trainer.advance()
        for index in range(2) if step in steps else ():
            averaged = trainer.averaged(index)
            found[step, index] = {name: each.clone() for name, each in averaged.items()}
    return found


def test_products_are_the_averages_after_those_steps(trained):
    folder, plan = trained
    spec, root = plan.job("train", "ddpm-cosine").spec, folder / plan.root
    weights = spec.training.kept
    assert [tuple(each) for each in weights] == [
        (12, 0.05), (12, 0.1), (4, 0.05), (4, 0.1), (6, 0.05), (6, 0.1)
    ]  # fmt: skip
    expected = states_at(trained, 4, 6, 12)
    for each in weights:
        tensors = load_file(read_product(paths.weights(root, spec, each), spec))
        wanted = expected[each.step, (0.05, 0.1).index(each.length)]
        assert all(torch.equal(tensors[name], wanted[name]) for name in wanted)


def test_keeping_snapshots_changes_no_bit_of_the_model(trained, copied):
    root, spec = copied
    other = spec.training.model_copy(update={"snapshots": ()})
    alone = spec.model_copy(update={"training": other})
    before = files.sha256(paths.product(root, spec))
    train.run(alone, root, "cpu")
    assert files.sha256(paths.product(root, alone)) == before


@pytest.mark.parametrize("step", [3, 4, 5, 11])
def test_an_interrupted_training_keeps_the_same_snapshots(trained, copied, monkeypatch, step):
    """Stopped right after a step, wherever its snapshots lie."""
    root, spec = copied
    before = hashes(root, spec)
    for path in (*before, paths.state(root, spec)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    advance, seen = train.Trainer.advance, []

    def stopped(trainer):
        loss = advance(trainer)
        seen.append(trainer.step)
        if trainer.step == step and len(seen) == step:
            raise KeyboardInterrupt
        return loss

    monkeypatch.setattr(train.Trainer, "advance", stopped)
    with pytest.raises(KeyboardInterrupt):
        train.run(spec, root, "cpu")
    assert not any(path.exists() for path in before)
    train.run(spec, root, "cpu")
    # Saved every second step.
    assert seen[step:][0] == (step - 1) // 2 * 2 + 1
    assert hashes(root, spec) == before


@pytest.mark.parametrize("torn", [False, True])
def test_a_lost_snapshot_is_trained_again_from_a_state_before_it(
    trained, copied, torn, monkeypatch
):
    root, spec = copied
    monkeypatch.chdir(root.parent.parent)
    before, folder = hashes(root, spec), paths.state(root, spec)
    assert len(kept(folder)) == 4
    # The states are of steps 10 and 12: neither is of use without the snapshots of step 6.
    for path in (kept(folder)[2], *before):
        path.write_bytes(b"torn") if torn else path.unlink()
    found = [each for each in examine(trained[1]) if each.status == "torn"]
    assert len(found) == torn
    with pytest.warns(UserWarning, match="removed: the snapshot of step 6 is torn or missing"):
        train.run(spec, root, "cpu")
    assert hashes(root, spec) == before
    assert len(kept(folder)) == 4
    assert len(generations(folder)) == GENERATIONS


def test_samples_and_likelihoods_use_the_weights_that_they_name(trained, monkeypatch):
    folder, plan = trained
    root = folder / plan.root
    spec = plan.job("train", "ddpm-cosine").spec
    dataset = data.load(root, spec.data)
    expected = states_at(trained, 4, 6, 12)

    def weights_of(stage, item):
        choice = plan.job(stage, "ddpm-cosine", 0, item).choice
        denoiser = models.load_denoiser(spec, root, dataset, CPU, choice=choice)
        return denoiser.network.network.state_dict()

    wanted = {
        ("sample", "ancestral-10@4"): (4, 0),
        ("sample", "ancestral-10"): (12, 0),
        ("sample", "ddim-5"): (6, 0),
        ("sample", "ddim-long"): (12, 1),
        ("likelihood", "vlb-small@4"): (4, 0),
    }
    for job, key in wanted.items():
        found = weights_of(*job)
        assert all(torch.equal(found[name], each) for name, each in expected[key].items())
    # A length between the two that are tracked is neither.
    between, name = weights_of("sample", "ddim-new"), "attention.qkv.weight"
    assert not any(torch.equal(between[name], expected[12, i][name]) for i in (0, 1))

    asked = []
    loaded = models.load_denoiser
    monkeypatch.setattr(
        models, "load_denoiser", lambda *given: asked.append(given[5]) or loaded(*given)
    )
    job = plan.job("sample", "ddpm-cosine", 0, "ancestral-10@4").spec
    sample.run(job, root, "cpu")
    bound = plan.job("likelihood", "ddpm-cosine", 0, "vlb-small@4").spec
    likelihood.run(bound, root, "cpu")
    assert [each.at for each in asked] == [4, 4]
    with np.load(read_product(paths.product(root, job), job)) as archive:
        whole = archive["levels"]
    for part in plan_of_shards(plan, "ancestral-10@4"):
        shard.run(part.spec, root, "cpu")
    sample.gather(job, root, 2)
    with np.load(read_product(paths.product(root, job), job)) as archive:
        assert np.array_equal(archive["levels"], whole)


def plan_of_shards(plan, item):
    sharded = replace(plan, benchmark=plan.benchmark.model_copy(update={"shards": 2}))
    return sharded.shards(plan.job("sample", "ddpm-cosine", 0, item))


def test_a_notebook_opens_a_run_at_a_step(trained):
    folder, plan = trained
    path = folder / plan.root / "runs" / "ddpm-cosine" / "seed0"
    expected = states_at(trained, 6)[6, 0]
    found = diffbench.load(path, at=0.5).denoiser.network.network.state_dict()
    assert all(torch.equal(found[name], each) for name, each in expected.items())
    with pytest.raises(ValueError, match="at: 5 is neither one of the snapshots"):
        diffbench.load(path, at=5)
    with pytest.raises(ValueError, match=r"give them to diffbench\.load"):
        diffbench.load(path).sample(2, HeunSpec(steps=3, at=6))


def test_doctor_and_clean_know_them(trained, copied, monkeypatch):
    root, _ = copied
    monkeypatch.chdir(root.parent.parent)
    plan = plan_of(root.parent.parent)
    lost = plan.job("train", "ddpm-cosine").products[3]
    lost.unlink()
    assert [each.status for each in examine(plan) if each.path == lost] == ["missing"]
    assert unneeded(plan) == []
    fewer = json.loads(json.dumps(ALONG))
    fewer["overrides"] = {"ddpm-cosine": {"solvers": {"ancestral-10": {"at": 4}}}}
    fewer["training"]["snapshots"] = [4]
    write_config(Path(), fewer)
    assert unneeded(plan_of(Path())) == [paths.state(root, copied[1]).relative_to(Path.cwd())]


@pytest.mark.slow
def test_an_estimate_counts_their_bytes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def size(**training):
        write_config(tmp_path, {"only": ["edm"], "training": training})
        found = estimate(plan_of(tmp_path), 1, clock=iter(range(10**6)).__next__)
        return next(each.size for each in found.costs if each.job.stage == "train")

    plain, one, three = size(), size(snapshots=[1]), size(snapshots=[1, 2, 3])
    network = (one - plain) // 2
    # Each lies among the products and beside the state.
    assert three - plain == 3 * 2 * network > 0
    # Of two lengths the state has two averages of parameters, in each of the generations that are kept.
    both = size(snapshots=[1], ema={"name": "power"})
    assert both - one >= 3 * network + GENERATIONS * network * 0.9


FIGURE = {
    "learning": {
        "layout": "learning",
        "title": "Along training",
        "metrics": ["fid"],
        "series": [
            {"label": "chain", "variant": "ddpm-cosine", "item": "ancestral-10"},
            {"label": "alone", "variant": "edm", "item": "heun-3"},
            {"label": "absent", "variant": "vp", "item": "heun-3"},
        ],
    }
}
FIDS = {
    "ancestral-10@2": [9.0, 10.0, 11.0],
    "ancestral-10": [2.0, 3.0, 4.0],
    "heun-3": [1.0, 1.0, 1.0],
}
STEPPED = {
    "training": {"steps": 4, "snapshots": [2]},
    "overrides": {"ddpm-cosine": {"solvers": {"ancestral-10": {"at": [2, "last"]}}}},
}
CELL = {"variant": "ddpm-cosine", "item": "ancestral-10", "metric": "fid"}


def asked(folder, **more):
    return configured(folder, **STEPPED | more)


def test_a_learning_curve_has_a_point_for_each_step(tmp_path):
    plan = asked(tmp_path, figures=FIGURE)
    fill(plan, tmp_path, FIDS)
    make(plan, tmp_path)
    rows = rows_of(paths.figure(tmp_path, "learning", "csv"))
    found = [[row[key] for key in ("series", "x", "y", "low", "high", "seeds")] for row in rows]
    assert found == [
        ["chain", "2", "10", "9", "11", "3"],
        ["chain", "4", "3", "2", "4", "3"],
        ["alone", "4", "1", "1", "1", "3"],
        ["absent", "-", "-", "-", "-", "0"],
    ]
    assert rows[3]["note"] == "this benchmark has no such variant"


def test_claims_comparisons_and_curves_take_cells_at_a_step(tmp_path):
    claim = {
        "claim": "Training helps",
        "source": "Somebody 2020",
        "better": CELL | {"at": "last"},
        "worse": CELL | {"at": 0.5},
    }
    rows = [
        {"row": "half", "variant": "ddpm-cosine", "item": "ancestral-10", "at": 2},
        {
            "row": "both",
            "variant": "ddpm-cosine",
            "cells": {"then": {"item": "ancestral-10", "at": 0.5}, "now": "ancestral-10"},
        },
    ]
    side = {"layout": "comparison", "title": "Side", "columns": {"then": "fid", "now": "fid"}}
    points = [CELL | {"x": 1, "at": 2}, CELL | {"x": 2}]
    points = [{key: each[key] for key in each if key != "metric"} for each in points]
    curve = {"layout": "curve", "title": "Curve", "x": "x", "metrics": ["fid"]}
    plan = asked(
        tmp_path,
        tables={"side": side | {"rows": rows}},
        figures={"curve": curve | {"series": [{"label": "one", "points": points}]}},
        claims={"one": claim},
    )
    plan = replace(plan, benchmark=plan.benchmark.model_copy(update={"claims": ["one"]}))
    fill(plan, tmp_path, FIDS)
    make(plan, tmp_path)
    (verdict,) = rows_of(paths.table(tmp_path, "claims", "csv"))
    assert [verdict[key] for key in ("better_mean", "worse_mean", "effect")] == ["3", "10", "7"]
    assert verdict["worse"] == "ddpm-cosine ancestral-10 at 0.5"
    found = rows_of(paths.table(tmp_path, "side", "csv"))
    assert [(row["row"], row["solver"], row["ours_mean"]) for row in found] == [
        ("half", "ancestral-10@2", "10"),
        ("half", "ancestral-10@2", "10"),
        ("both", "ancestral-10@2", "10"),
        ("both", "ancestral-10", "3"),
    ]
    drawn = rows_of(paths.figure(tmp_path, "curve", "csv"))
    assert [(row["x"], row["y"]) for row in drawn] == [("1", "10"), ("2", "3")]


@pytest.mark.parametrize(
    ("at", "reason"),
    [(5, "5 is past the budget of 4 steps"), (3, "3 is neither one of the snapshots")],
)
def test_a_cell_at_a_step_that_is_not_kept_is_refused_at_plan_time(tmp_path, at, reason):
    side = {"layout": "comparison", "title": "Side", "columns": {"then": "fid"}}
    rows = [{"row": "r", "variant": "ddpm-cosine", "item": "ancestral-10", "at": at}]
    plan = asked(tmp_path, tables={"side": side | {"rows": rows}})
    with pytest.raises(PlanError, match=f"table side: ddpm-cosine: at: {reason}"):
        table_params(plan)
    elsewhere = [rows[0] | {"at": "last"}, rows[0] | {"variant": "vp"}]
    table_params(asked(tmp_path, tables={"side": side | {"rows": elsewhere}}))


def test_a_claims_cell_has_one_name_of_its_item(tmp_path):
    both = CELL | {"solver": "ancestral-10"}
    claim = {"claim": "c", "source": "s", "better": both, "worse": CELL}
    plan = asked(tmp_path, claims={"one": claim})
    plan = replace(plan, benchmark=plan.benchmark.model_copy(update={"claims": ["one"]}))
    with pytest.raises(PlanError, match="one.better.solver: 'solver' is now 'item'"):
        table_params(plan)


def test_weights_of_a_list_are_not_one(trained):
    assert OfWeights(at=[4, "last"]).step_names == (4, "last")
    with pytest.raises(ValueError, match="the list is empty"):
        OfWeights(at=[])
