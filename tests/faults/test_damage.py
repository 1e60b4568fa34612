"""Whatever happens to any file of a run, doctor names it or it is harmless, and after its --fix a run ends as before.

A file is damaged by a flipped bit, by being cut short, deleted, exchanged with another, or replaced by noise or by a
folder.  After `Finding.mend` every job's files are as they were, or one that Snakemake misses is gone.
"""

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from commands import CONFIG, bench, plan_of, run, said

from diffbench.plan.findings import examine, strays
from diffbench.reporting.results import Results
from diffbench.store import files, paths, run_record, seals, state, status
from diffbench.store.manifest import LOGS, manifest
from diffbench.store.products import StoreError

pytestmark = pytest.mark.slow
KINDS = ("flip", "flip", "flip", "cut", "delete", "swap", "noise", "folder")
ROOT = Path("results/tiny")


class Run:
    """A finished run in the working directory, its files as they were, and what may be done to them."""

    def __init__(self, folder, monkeypatch, seed):
        monkeypatch.chdir(folder)
        self.plan = plan_of(Path())
        self.random = random.Random(seed)
        found = sorted(path for path in ROOT.rglob("*") if path.is_file())
        self.before = {path: path.read_bytes() for path in found}

    def damage(self, kind):
        """Damage a file, or two, which may be gone already; return those that are not as they were."""
        path, other = self.random.sample(sorted(self.before), 2)
        for each in (path, other):
            if not each.is_file():
                files.remove(each)
        content = bytearray(self.before[path])
        if kind == "flip" and content:
            bit = self.random.randrange(8 * len(content))
            content[bit // 8] ^= 1 << bit % 8
            path.write_bytes(content)
        elif kind == "cut":
            path.write_bytes(content[: self.random.randrange(len(content) + 1)])
        elif kind == "swap":
            path.write_bytes(self.before[other])
            other.write_bytes(content)
        elif kind == "noise":
            path.write_bytes(self.random.randbytes(self.random.randrange(2000)))
        elif kind in ("delete", "folder"):
            files.remove(path)
        if kind == "folder":
            path.mkdir()
        return [each for each in (path, other) if self.changed(each)]

    def changed(self, path):
        return not path.is_file() or path.read_bytes() != self.before[path]

    def restore(self):
        """Put all files back."""
        for path, content in self.before.items():
            if self.changed(path):
                files.remove(path)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

    def harmless(self, path):
        """Whether no number and no product depends on what became of a file, and nothing is said wrongly."""
        name, within = path.name, path.relative_to(ROOT).parts[0]
        if within in LOGS or name in (state.LOCK, paths.tables_complete(ROOT).name):
            return True
        if within == ".state" or path == paths.tables_record(ROOT):
            # What is gone says nothing: a training goes on from another state, or begins anew.
            return not path.exists() or self.says_the_same(path)
        return self.says_the_same(path)

    def says_the_same(self, path):
        """Whether a record, of which any change has to be seen, says what it said."""
        if not path.name.endswith((".run.json", state.EVENTS, state.SPEC, ".made.json")):
            return False
        if not path.is_file():
            return False
        said = self.parsed(path.read_bytes(), path)
        return said is not None and said == self.parsed(self.before[path], path)

    def parsed(self, content, path):
        """What the records of a file say; keys that nobody asks for, such as a misspelled seal, do not count."""
        of = path.parent.name if ".state" in path.parts else ""
        try:
            records = [seals.opened(line, of) for line in self.lines(content, path) if line]
        except ValueError:
            return None
        known = {
            key for each in map(json.loads, self.lines(self.before[path], path)) for key in each
        }
        return [{key: each.get(key) for key in known - {seals.KEY}} for each in records]

    def lines(self, content, path):
        return (
            [each for each in content.split(b"\n") if each]
            if path.name == state.EVENTS
            else [content]
        )

    def names(self, found, path):
        """Whether one of the findings is about a file: its own, its product's, or that of its folder of states."""
        about = {each.path for each in found}
        of_job = [job for job in self.plan.every if path in self.files_of(job)]
        beside = {each for job in of_job for each in (*job.products, *job.extras)}
        # A sidecar may name another file than the one that is there.
        said = any(each.path.parent == path.parent and path.name in each.reason for each in found)
        return (
            bool({path, path.parent, paths.tables_record(ROOT)} & about or beside & about) or said
        )

    def files_of(self, job):
        made = {*job.products, *job.extras, *map(paths.sidecar, job.products)}
        # The picture of an analysis, which only its sidecar names.
        return made | {job.product.with_suffix(".png"), paths.run_record(job.product)}

    def check_mended(self):
        """Of each job all files are as they were, or one that Snakemake has as its output is gone."""
        assert not [each.line() for each in examine(self.plan) if each.wrong]
        for job in self.plan.jobs:
            made = [each for each in self.files_of(job) if each in self.before]
            outputs = [*job.products, *map(paths.sidecar, job.products), *job.extras]
            if all(each.is_file() for each in outputs):
                assert not [
                    each for each in made if self.changed(each) and not self.is_record(each)
                ]

    def is_record(self, path):
        """Whether a run record can be read, which then says what it said, or that it was lost."""
        return path.name.endswith(".run.json") and (
            not path.exists()
            or self.says_the_same(path)
            or "lost" in json.loads(path.read_bytes())["notes"]
        )

    def trial(self, kind):
        """Damage something, see that it is named or harmless, mend it, and put it back; return what came of it."""
        damaged = self.damage(kind)
        found = list(examine(self.plan))
        outcomes = []
        for path in damaged:
            named = self.names(found, path)
            assert named or self.harmless(path), (kind, path, damaged)
            outcomes.append((kind, "named" if named else "harmless"))
        for each in found:
            if each.wrong:
                each.mend()
        self.check_mended()
        self.restore()
        return outcomes


def test_damage_is_named_or_harmless(made, monkeypatch):
    trials = Run(made, monkeypatch, 0)
    outcomes = Counter(outcome for kind in KINDS * 3 for outcome in trials.trial(kind))
    assert sum(count for (_, outcome), count in outcomes.items() if outcome == "named") > 10


@pytest.mark.long
def test_of_a_thousand_flips_none_is_missed(made, monkeypatch):
    trials = Run(made, monkeypatch, 1)
    kinds = ["flip"] * 1000 + [kind for kind in sorted(set(KINDS) - {"flip"}) for _ in range(60)]
    outcomes = Counter(outcome for kind in kinds for outcome in trials.trial(kind))
    print(sorted(outcomes.items()))


def fixed(folder):
    """What doctor prints when it mends a run; then the run is finished."""
    done = run("doctor", "--fix", "--config", CONFIG, cwd=folder)
    assert done.returncode == 0, said(done)
    again = bench("-c2", cwd=folder)
    assert again.returncode == 0, said(again)
    return done.stdout


def test_after_doctors_fix_a_run_ends_as_if_nothing_had_been(made, monkeypatch):
    """Of one variant: a picture, a sidecar, a record, a state and what it belongs to; and a table."""
    before = manifest(made / ROOT)
    trials = Run(made, monkeypatch, 2)
    job = trials.plan.job("train", "edm")
    folder = paths.state(ROOT, job.spec)
    newest = state.generations(folder)[0]
    sampled = trials.plan.job("sample", "edm", 0, "heun-3")
    damaged = [
        sampled.extras[0],
        paths.sidecar(trials.plan.job("score", "edm").product),
        paths.run_record(job.product),
        newest,
        folder / state.SPEC,
        paths.table(ROOT, "overview", "csv"),
    ]
    for path in damaged:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
    said = fixed(made)
    assert [line.split()[0] for line in said.splitlines()[:-1]] == [
        "lost",
        "torn",
        "torn",
        "corrupt",
        "corrupt",
        "corrupt",
    ]
    assert manifest(made / ROOT) == before
    assert run_record.known(job.product)["notes"] == {"lost": "the record was damaged or missing"}
    assert not list(examine(trials.plan))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_after_any_damage_doctors_fix_and_a_run_end_as_if_nothing_had_been(made, monkeypatch, seed):
    before = manifest(made / ROOT)
    trials = Run(made, monkeypatch, seed)
    for kind in KINDS * 3:
        trials.damage(kind)
    fixed(made)
    assert manifest(made / ROOT) == before


def test_what_no_job_makes_is_named_and_stays(made, monkeypatch):
    trials = Run(made, monkeypatch, 0)
    assert not list(strays(trials.plan))
    gone = ROOT / "runs" / "gone" / "seed0"
    gone.mkdir(parents=True)
    (gone / "model.safetensors").write_bytes(b"old")
    (ROOT / "runs" / "notes.txt").write_text("mine")
    (ROOT / ".state" / "0123456789abcdef").mkdir()
    found = {each.path.name for each in strays(trials.plan)}
    assert found == {"model.safetensors", "notes.txt", "0123456789abcdef"}
    done = run("doctor", "--fix", "--config", CONFIG, cwd=made)
    assert done.returncode == 0
    assert (gone / "model.safetensors").exists()
    assert done.stdout.count("stray  ") == 3


def test_altered_inputs_cost_no_good_product(made, monkeypatch):
    """A model that was altered and is newer than its samples: Snakemake would remove these before their job refuses."""
    trials = Run(made, monkeypatch, 0)
    model = trials.plan.job("train", "edm").product
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    done = bench("-c1", cwd=made)
    assert done.returncode == 1
    assert f"{model} has sha256" in said(done) and "doctor --fix" in said(done)
    for path in trials.before:
        assert path == model or path.is_file()


def test_partial_scores_that_were_altered_are_not_shown(made, monkeypatch):
    monkeypatch.chdir(made)
    plan = plan_of(Path())
    job, sampled = plan.job("score", "edm"), plan.job("sample", "edm", 0, "heun-3")
    content = json.loads(job.product.read_bytes()) | {"spec": job.spec.model_dump(mode="json")}
    job.product.unlink()
    partial = paths.partial_scores(ROOT, "edm", 0)
    files.write_json(partial, seals.sealed(content))
    whole = Results(plan, ROOT).outcome(sampled)
    assert whole.status == "ok"
    shown = repr(whole.scores["fid"]["value"]).encode()
    partial.write_bytes(partial.read_bytes().replace(shown, b"1" + shown, 1))
    assert Results(plan, ROOT).outcome(sampled).status == "missing"
    assert partial in {each.path for each in examine(plan)}


def test_a_lost_record_is_a_dash_with_its_reason(made, monkeypatch):
    monkeypatch.chdir(made)
    plan = plan_of(Path())
    job = plan.job("train", "edm")
    paths.run_record(job.product).write_bytes(b"{}}")
    with pytest.raises(StoreError):
        run_record.read(job.product)
    cost = Results(plan, ROOT).cost(job)
    assert (cost.status, cost.seconds) == ("missing", None)
    assert "model.run.json is damaged" in status.one_line(cost.reason)
