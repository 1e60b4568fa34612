"""What is on disk for each number a plan wants, and whether it can be used.

    ok        made from the plan's spec, and so is every product it was made from that still exists
    failed    its job, or a job that it builds on, left a reason; or its file is damaged
    stale     the product was made from another spec
    missing   there is no product, and no reason for that

Reasons are looked for from the data set onwards, so that a cell quotes the first thing that went
wrong.  ``scores.json`` holds all solvers of a run and its sidecar each one's spec: a solver counts
when its own spec is the plan's, whatever else the file holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from diffbench.plan.jobs import Job, Key, Plan
from diffbench.reporting.layout import BITS
from diffbench.specs.jobs import AskingSpec
from diffbench.store import paths, products, run_record
from diffbench.store.products import StoreError
from diffbench.store.seals import opened
from diffbench.store.status import one_line, quoted, read_status

Status = Literal["ok", "failed", "stale", "missing"]
SECONDS = "seconds"
#: How many specs and files of scores are kept: those that the solvers of a run share.
KEPT = 16


@dataclass(frozen=True)
class Outcome:
    """One job's numbers with one seed, or why there are none.

    Attributes:
        status: see the module.
        reason: one line; empty when ok, and when missing without a reason.
        scores: metric -> ``value`` and ``se`` (standard error or None); a metric without a number has the value None
            and a ``reason``.
        floors: metric -> ``mean``, ``sd`` and ``value`` of the scores of as many real images.
        nfe: calls of the network.
        images: number of images that the scores are of.
        protocol: how the scores were made.
        seconds: wall time of training and of the job itself; None when a record is missing.
        gpu_seconds: the part of it that ran on a GPU.
        content: the whole file of a likelihood, a restoration or an analysis; of samples their part of the scores.
    """

    status: Status
    reason: str = ""
    scores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    floors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    nfe: float | None = None
    images: int | None = None
    protocol: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    gpu_seconds: float | None = None
    content: Mapping[str, Any] = field(default_factory=dict)


MISSING = Outcome("missing")


class Results:
    """The files of a plan's results below ``root``, job by job."""

    def __init__(self, plan: Plan, root: Path) -> None:
        self.plan = plan
        self.root = root
        self._known: dict[Path, Outcome] = {}
        self._outcomes: dict[tuple[str, str, int, str], Outcome] = {}
        self._statuses: dict[Path, str] = {}
        self._links: dict[Path, Outcome] = {}
        # A score of a thousand solvers is asked for each of them, and its file and spec have megabytes.
        self._wanted = lru_cache(KEPT)(self._dumped)
        self._made = lru_cache(KEPT)(_whole)

    def _dumped(self, key: Key) -> Mapping[str, Any]:
        """Return the spec of a job as a sidecar has it."""
        return self.plan.job(*key).spec.model_dump(mode="json")

    def outcome(self, job: Job) -> Outcome:
        """Return a job's outcome: the scores of samples, bits per dimension, restorations' scores, or an analysis.

        It is kept.
        """
        if job.key not in self._outcomes:
            self._outcomes[job.key] = self._read(job)
        return self._outcomes[job.key]

    def _read(self, job: Job) -> Outcome:
        jobs = [*self.plan.upstream(job), job]
        if job.stage == "sample":
            return self._score(jobs)
        return self._file(jobs, READ.get(job.stage, _of_metrics))

    def cost(self, job: Job) -> Outcome:
        """Return the outcome that holds a job's own wall time."""
        if self._link(job).status != "ok":
            return self._trouble([*self.plan.upstream(job), job])
        timed = self._timed(Outcome("ok"), [job])
        return timed if timed.seconds is not None else Outcome("missing", self._untimed(job))

    def _untimed(self, job: Job) -> str:
        """Return why the time of a job is not known."""
        path = paths.product(self.root, job.spec)
        try:
            run_record.read(path)
        except StoreError as error:
            return shortened(paths.run_record(path), error)
        return "the time of its earlier attempts is not known"

    def whole(self, job: Job) -> Outcome:
        """Return whether a job's products are whole and made from the plan's specs, or why not."""
        above = self.plan.upstream(job)
        if self._state(job).status != "ok":
            return self._trouble([*above, job])
        return self._linked(Outcome("ok"), above)

    def status(self, job: Job) -> str:
        """Return the state of a job's product, as ``status_of``."""
        return self._status(paths.product(self.root, job.spec), job)

    def _status(self, path: Path, job: Job) -> str:
        """Return the state of one of a job's products.  It is kept, since checksums take time."""
        if path not in self._statuses:
            self._statuses[path] = products.status_of(path, job.spec)
        return self._statuses[path]

    def _score(self, above: Sequence[Job]) -> Outcome:
        """Return the scores of the samples that the last of these jobs makes."""
        jobs, sample = [self.plan.job("reference"), *above], above[-1]
        job = self.plan.job("score", sample.variant, sample.seed)
        found = self._scored(job, sample.item)
        for outcome in (found, self._partly_scored(job, sample.item)):
            if outcome.status == "ok":
                return self._timed(self._linked(_asked(outcome, sample), jobs), _own(jobs))
        trouble = self._trouble(jobs)
        if trouble.status == "missing" and found.status != "failed":
            trouble = self._failure(job)
        return found if trouble.status == "missing" else trouble

    def measure(self, name: str) -> float | None:
        """Return a measure of the training images, from the data set's manifest; None where it has none."""
        try:
            path, made = paths.data_manifest(self.root), paths.dataset(self.root)
            return float(json.loads(products.read_beside(path, made))[name]["train"])
        except (OSError, StoreError, ValueError, KeyError, TypeError):
            return None

    def _file(self, jobs: Sequence[Job], outcome_of: Callable[[Any], Outcome]) -> Outcome:
        """Return the outcome in the JSON file that the last of these jobs makes."""
        path = paths.product(self.root, jobs[-1].spec)
        if self._state(jobs[-1]).status != "ok":
            return self._trouble(jobs)
        try:
            outcome = _asked(outcome_of(products.read_json(path)), jobs[-1])
        except (StoreError, ValueError, KeyError, TypeError) as error:
            return Outcome("failed", shortened(path, error))
        return self._timed(self._linked(outcome, jobs[:-1]), _own(jobs))

    def _scored(self, job: Job, solver: str) -> Outcome:
        path = paths.product(self.root, job.spec)
        if not path.is_file():
            return MISSING
        try:
            return _of_solver(*self._made(path), self._wanted(job.key), solver)
        except (StoreError, ValueError, KeyError, TypeError) as error:
            return Outcome("failed", shortened(path, error))

    def _partly_scored(self, job: Job, solver: str) -> Outcome:
        """Return the outcome in a file that was scored after a failure; it has no sidecar: spec and seal are inside."""
        try:
            path = paths.partial_scores(self.root, job.variant, job.seed)
            content = opened(path.read_bytes(), needed=True)
            return _of_solver(content, content["spec"], self._wanted(job.key), solver)
        except (OSError, ValueError, KeyError, TypeError):
            return MISSING

    def _linked(self, outcome: Outcome, jobs: Sequence[Job]) -> Outcome:
        """Return the outcome, or why not: its samples, model or data set have since been made from another spec."""
        links = (self._link(job) for job in jobs)
        return next((each for each in links if each.status in _WRONG), outcome)

    def _link(self, job: Job) -> Outcome:
        """Return whether a product's sidecar has the plan's spec, which is kept.

        No checksum is computed, which is slow.
        """
        path = paths.product(self.root, job.spec)
        if path not in self._links:
            self._links[path] = self._compared(path, job)
        return self._links[path]

    def _compared(self, path: Path, job: Job) -> Outcome:
        if not path.is_file():
            return MISSING
        try:
            found = products.read_sidecar(path)["spec"]
        except StoreError as error:
            return Outcome("failed", f"{job.stage}: {shortened(path, error)}")
        reason = products.difference(found, self._wanted(job.key))
        return (
            Outcome("stale", f"{job.stage}: {path.name} was {reason}") if reason else Outcome("ok")
        )

    def _trouble(self, jobs: Sequence[Job]) -> Outcome:
        """Return the first reason why the last of these jobs has no product of the plan's spec."""
        states = (self._state(job) for job in jobs)
        return next((each for each in states if each.status in _WRONG), MISSING)

    def _state(self, job: Job) -> Outcome:
        """Return the state of a job's products together.  It is kept."""
        path = paths.product(self.root, job.spec)
        if path not in self._known:
            found = [self._product(each, job) for each in paths.products(self.root, job.spec)]
            self._known[path] = self._judged(job, found)
        return self._known[path]

    def _judged(self, job: Job, found: Sequence[Outcome]) -> Outcome:
        if all(each.status == "ok" for each in found):
            return Outcome("ok")
        found = [self._failure(job), *found]
        wrong = [each for status in _WRONG for each in found if each.status == status]
        return wrong[0] if wrong else MISSING

    def _product(self, path: Path, job: Job) -> Outcome:
        status = self._status(path, job)
        if status in ("ok", "missing"):
            return Outcome("ok") if status == "ok" else MISSING
        try:
            products.read_product(path, job.spec)
        except StoreError as error:
            reason = f"{job.stage}: {shortened(path, error)}"
            return Outcome("failed" if status == "corrupt" else "stale", reason)
        return Outcome("ok")

    def _failure(self, job: Job) -> Outcome:
        status = read_status(paths.state(self.root, job.spec))
        if not status or status.get("status") != "failed":
            return MISSING
        return Outcome("failed", f"{job.stage}: {quoted(status)}")

    def _timed(self, outcome: Outcome, jobs: Sequence[Job]) -> Outcome:
        if outcome.status != "ok":
            return outcome
        records = [run_record.known(paths.product(self.root, job.spec)) for job in jobs]
        times = [float(each[SECONDS]) for each in records if each.get(SECONDS) is not None]
        if len(times) < len(jobs):
            return outcome
        on_gpu = [str(record.get("device", "")).startswith("cuda") for record in records]
        gpu = sum(time for time, is_gpu in zip(times, on_gpu, strict=True) if is_gpu)
        return replace(outcome, seconds=sum(times), gpu_seconds=gpu)


_WRONG = ("failed", "stale")
_HASH = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{56}\b")


def _own(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs that belong to the variant; the others are about the data set."""
    return [job for job in jobs if job.variant]


def _asked(outcome: Outcome, job: Job) -> Outcome:
    """Return the outcome with the network's precision in its protocol, if the job used a network."""
    precision = job.spec.asked_in if isinstance(job.spec, AskingSpec) else ""
    if not precision:
        return outcome
    return replace(outcome, protocol={**outcome.protocol, "precision": precision})


def _of_likelihood(content: Any) -> Outcome:
    return Outcome(
        "ok",
        scores={BITS: content[BITS]},
        nfe=content.get("nfe"),
        images=content["images"],
        protocol=content.get("protocol", {}),
        content=content,
    )


def _of_restoration(content: Any) -> Outcome:
    return Outcome(
        "ok",
        scores=content["metrics"],
        floors=content.get("floors", {}),
        nfe=content["nfe"],
        images=content["samples"],
        protocol=content["protocol"],
        content=content,
    )


def _of_metrics(content: Any) -> Outcome:
    scores, images = content.get("metrics", {}), content.get("images")
    return Outcome("ok", scores=scores, images=images, content=dict(content))


#: The function that reads a job's file, by stage; of others, ``metrics`` and ``images`` are read.
READ: Mapping[str, Callable[[Any], Outcome]] = {
    "likelihood": _of_likelihood,
    "restore": _of_restoration,
}


def _whole(path: Path) -> tuple[Any, Any]:
    """Return a file of scores and the spec that it was made from."""
    return products.read_json(path), products.read_sidecar(path)["spec"]


def _of_solver(content: Any, made_of: Any, wanted: Mapping[str, Any], solver: str) -> Outcome:
    """Return one solver's outcome from a score file that was made from the spec ``made_of``, of which one is wanted."""
    if solver not in made_of["samples"] or solver not in content["solvers"]:
        return MISSING
    reason = products.difference(_part(made_of, solver), _part(wanted, solver))
    if reason:
        return Outcome("stale", f"score: {reason}")
    scores = content["solvers"][solver]
    return Outcome(
        "ok",
        scores=scores["metrics"],
        floors=scores.get("floors", {}),
        nfe=scores["nfe"],
        images=scores["samples"],
        protocol=content.get("protocol", {}),
        content=scores,
    )


def _part(spec: Mapping[str, Any], solver: str) -> dict[str, Any]:
    """Return what one solver's scores depend on; extensions count where they are used."""
    kept = {key: value for key, value in spec.items() if key not in ("samples", "extensions")}
    return kept | {"sample": spec["samples"][solver]}


def shortened(path: Path, error: Exception) -> str:
    """Return an error about a file in one line: the file's name alone, short hashes, no remedy."""
    text = one_line(error).removesuffix(f": {products.REMEDY}").replace(str(path), path.name)
    text = _HASH.sub(r"\1", text)
    return text if path.name in text else f"{path.name}: {text}"
