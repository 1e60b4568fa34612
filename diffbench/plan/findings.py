"""Maintenance of a results folder: each file in it, what it should be, and which are no longer needed.

Every file below the folder is one of these, or a stray:

    product    with its sidecar and the files beside it, which the sidecar has the checksums of
    record     run records, events, reasons of failures, what a state folder belongs to: with seals (`store.seals`)
    state      training states, snapshots and chunks, with checksums in their names; specs of a run's jobs
    table      tables, figures and the page, with checksums in a record of their own
    log        logs, which nobody reads back
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from diffbench.plan.jobs import Job, Plan
from diffbench.specs.jobs import STAGES
from diffbench.store import files, paths, products, run_record, seals, spec_files, state, status
from diffbench.store.manifest import LOGS
from diffbench.store.products import StoreError


def _nothing() -> None:
    """Change nothing."""


@dataclass(frozen=True)
class Finding:
    """A file that is not what the plan wants, and what is wrong with it.

    Attributes:
        path: the file, or a folder of states.
        status: ``missing``, ``stale``, ``corrupt`` (products and tables), ``torn`` (states and records), ``lost`` (run
            records) or ``stray``.
        reason: one line.
        mend: what makes it as it should be: after it, the next run makes again what was removed.
    """

    path: Path
    status: str
    reason: str
    mend: Callable[[], object] = field(default=_nothing, compare=False)

    @property
    def wrong(self) -> bool:
        """Whether there is something that should not be there."""
        return self.status not in ("missing", "stray")

    def line(self) -> str:
        """Return the finding as one line."""
        return f"{self.status:8} {self.path}  {self.reason}".rstrip()


def examine(plan: Plan) -> Iterator[Finding]:
    """Yield what is missing, stale, corrupt (products, tables), torn (states, records) or lost (run records)."""
    for job in plan.every:
        for path in job.products:
            # Shards are gone once their samples are gathered.
            yield from (each for each in _product(job, path) if job in plan.jobs or each.wrong)
        yield from _run_record(job)
        yield from _state(plan.root, job)
    yield from _spec_files(plan.root)
    yield from _partial_scores(plan)
    yield from _tables(plan.root)
    yield from _images(plan)


def _images(plan: Plan) -> Iterator[Finding]:
    """Yield images of the data set or of a control that are not what a quick look took them for; all are read again."""
    from diffbench.store import contents

    located = plan.located
    looks = [(located.places, located.here.listing, located.contents)]
    for control in (each.control for each in plan.variants.values() if each.control):
        path = located.controls.get(control.planned_contents or "")
        if path is not None:
            listing = control.at(str(path), None).listing
            looks.append(({"path": path}, listing, control.planned_contents))
    for here, listing, known in looks:
        if known is None or not all(path.exists() for path in here.values()):
            continue
        found = contents.again(here, listing)
        if found != known:
            reason = f"its images have the contents {found}, and were taken for {known}"
            yield Finding(here["path"], "stale", reason, partial(contents.forget, here, listing))


def _product(job: Job, path: Path) -> Iterator[Finding]:
    found = products.status_of(path, job.spec)
    if found != "ok":
        yield Finding(path, found, _reason(path, job), partial(_remove_product, path))
        return
    known = products.beside(path)
    for file, digest in known.items():
        if not file.is_file() or files.sha256(file) != digest:
            reason = "was altered since it was made"
            if not file.is_file():
                reason = f"is not there, or {paths.sidecar(path).name}, which names it, was altered"
            yield Finding(file, "corrupt", reason, partial(_remove_product, path))
    if path == job.product:
        for file in job.extras:
            if not file.is_file():
                yield Finding(file, "missing", "")


def _remove_product(path: Path) -> None:
    """Remove a product with all that was made beside it."""
    try:
        known = list(products.beside(path))
    except StoreError:
        known = []
    for file in known:
        files.remove(file)
    products.remove_product(path)


def _reason(path: Path, job: Job) -> str:
    if not os.path.lexists(path):
        return ""
    if not path.is_file():
        return "is not a file"
    try:
        products.read_product(path, job.spec)
    except (StoreError, OSError) as error:
        text = status.one_line(error).removesuffix(f": {products.REMEDY}")
        return text.removeprefix(f"{path} ").removeprefix("is stale, ")
    return ""


def _run_record(job: Job) -> Iterator[Finding]:
    """Yield a run record that cannot be read; in its place one is put that says so, for the product need not go."""
    if products.status_of(job.product, job.spec) != "ok":
        return
    try:
        run_record.read(job.product)
    except StoreError as error:
        path = paths.run_record(job.product)
        reason = (
            status.one_line(error).removesuffix(f": {products.REMEDY}").removeprefix(f"{path} ")
        )
        yield Finding(path, "lost", reason, partial(run_record.write_lost, job.product))


def _state(root: Path, job: Job) -> Iterator[Finding]:
    folder = paths.state(root, job.spec)
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        for check in (_belonging, _whole, _events, _attempt):
            yield from check(path, job)


def _belonging(path: Path, job: Job) -> Iterator[Finding]:
    """Yield what says that a state folder belongs to another job: it is damaged, or the states are another job's."""
    if path.name != state.SPEC:
        return
    try:
        found = state.spec_of(path.parent)
    except ValueError as error:
        yield Finding(path, "torn", str(error), partial(files.remove, path))
        return
    if reason := products.difference(found, job.spec.model_dump(mode="json")):
        yield Finding(path.parent, "stale", reason, partial(files.remove, path.parent))


def _whole(path: Path, job: Job) -> Iterator[Finding]:
    if not state.is_named(path):
        return
    try:
        whole = state.is_whole(path)
    except OSError:
        whole = False
    if not whole:
        reason = "its checksum is not the one in its name"
        yield Finding(path, "torn", reason, partial(files.remove, path))


def _events(path: Path, job: Job) -> Iterator[Finding]:
    if path.name != state.EVENTS:
        return
    lines = state.event_lines(path.parent)
    whole = b"".join(line + b"\n" for line, event in lines if event is not None)
    if path.is_file() and path.read_bytes() == whole:
        return
    reason = f"{sum(event is None for _, event in lines)} of {len(lines)} lines are damaged"
    yield Finding(path, "torn", reason, partial(_rewrite, path, whole))


def _rewrite(path: Path, content: bytes) -> None:
    files.remove(path)
    files.write(path, content)


def _attempt(path: Path, job: Job) -> Iterator[Finding]:
    """Yield the mark of an attempt or the reason of a failure when it is damaged."""
    if path.name in (status.NAME, status.MARK) and not status.is_running(path.parent):
        yield from _sealed(path, path.parent.name, needed=False)


def _sealed(path: Path, of: str, *, needed: bool) -> Iterator[Finding]:
    try:
        seals.opened(path.read_bytes(), of, needed=needed)
    except (OSError, ValueError) as error:
        yield Finding(path, "torn", status.one_line(error), partial(files.remove, path))


def _spec_files(root: Path) -> Iterator[Finding]:
    """Yield the specs of a run that are not those that their names say; the next run writes them."""
    folder = paths.spec_files(root)
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not (path.is_file() and spec_files.is_whole(path, path.read_bytes())):
            reason = "it is not the spec that its name says"
            yield Finding(path, "torn", reason, partial(files.remove, path))


def _partial_scores(plan: Plan) -> Iterator[Finding]:
    for job in plan.jobs:
        path = paths.partial_scores(plan.root, job.variant, job.seed)
        if job.spec.partial and os.path.lexists(path):
            yield from _sealed(path, "", needed=True)


def _tables(root: Path) -> Iterator[Finding]:
    """Yield tables, figures or a page that are not as they were made; the next run makes all of them."""
    record = paths.tables_record(root)
    if not os.path.lexists(record):
        return
    try:
        made = dict(seals.opened(record.read_bytes(), needed=True)["sha256"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        yield Finding(record, "torn", status.one_line(error), partial(_unmake, root, record))
        return
    for name, digest in made.items():
        path = root / name
        if not os.path.lexists(path):
            yield Finding(path, "missing", "")
        elif not path.is_file() or files.sha256(path) != digest:
            reason = "was altered since it was made"
            yield Finding(path, "corrupt", reason, partial(_unmake, root, path))


def _unmake(root: Path, path: Path) -> None:
    files.remove(path)
    files.remove(paths.tables_complete(root))


def altered(made: Iterable[Path]) -> Iterator[str]:
    """Yield a line for each of these products, where it is there, that is not as it was made."""
    for path in made:
        if path.is_file():
            try:
                products.read_product(path)
            except StoreError as error:
                yield str(error)


def strays(plan: Plan) -> Iterator[Finding]:
    """Yield the files below the results folder that no job of a plan makes, and folders of states that none needs.

    The plan should be of the whole benchmark (no ``only``), else the rest of it counts as stray.
    """
    known = _known(plan)
    for folder in _unneeded_states(plan):
        yield Finding(folder, "stray", "a state that no job of the plan needs")
    for path in sorted(plan.root.iterdir()) if plan.root.is_dir() else []:
        if path != paths.states(plan.root) and path.name not in LOGS:
            yield from _strays_in(path, known)


def _strays_in(path: Path, known: set[Path]) -> Iterator[Finding]:
    inner = sorted(path.rglob("*")) if path.is_dir() and not path.is_symlink() else [path]
    for each in inner:
        if each in known or (each.is_dir() and not each.is_symlink()):
            continue
        unfinished = each.name.startswith(files.TEMPORARY)
        yield Finding(each, "stray", "unfinished" if unfinished else "no job of the plan makes it")


def _known(plan: Plan) -> set[Path]:
    """Return the files that the jobs of a plan make, with tables where it is known which were made."""
    found: set[Path] = set()
    for job in plan.every:
        found.update(paths.made(job.root, job.spec))
        if job.spec.partial:
            found.add(paths.partial_scores(plan.root, job.variant, job.seed))
        for path in job.products:
            found |= _beside(path)
    return found | _made_tables(plan.root)


def _beside(path: Path) -> set[Path]:
    try:
        return set(products.beside(path))
    except StoreError:
        # What it names is not known: nothing beside it is called a stray.
        return set(path.parent.iterdir()) if path.parent.is_dir() else set()


def _made_tables(root: Path) -> set[Path]:
    own = {paths.tables_record(root), paths.tables_complete(root)}
    try:
        names = dict(seals.opened(paths.tables_record(root).read_bytes())["sha256"])
        return own | {root / name for name in names}
    except (OSError, ValueError, LookupError, TypeError):
        folders = (paths.table(root, "", "").parent, paths.figure(root, "", "").parent)
        within = (path for folder in folders for path in folder.rglob("*"))
        return own | {paths.page(root), *within}


def are_of_jobs(found: Finding, root: Path) -> bool:
    """Say whether a stray is what jobs make: a file with a sidecar, a sidecar or a run record, where products lie."""
    path = found.path
    places = {Path(stage.template).parts[0] for stage in STAGES.values()}
    if path.relative_to(root).parts[0] not in places:
        return False
    if path.name.endswith((".run.json", ".partial.json")):
        return True
    sidecars = {path.with_name(state.SPEC), *path.parent.glob("*.spec.json")}
    return path in sidecars or any(path.name in _named(each) for each in sidecars)


def _named(sidecar: Path) -> set[str]:
    try:
        return set(seals.opened(sidecar.read_bytes())["sha256"])
    except (OSError, ValueError, LookupError, TypeError):
        return set()


def unneeded(plan: Plan) -> list[Path]:
    """Return the files that no job of the plan needs: states of other specs, and unfinished files.

    The plan should be of the whole benchmark (no ``only``), else the rest of it counts as unneeded.
    """
    unfinished = sorted(plan.root.rglob(f"{files.TEMPORARY}*")) if plan.root.is_dir() else []
    return _unneeded_states(plan) + unfinished


def _unneeded_states(plan: Plan) -> list[Path]:
    """Return the folders of states that no job needs; those of a run's specs and links are kept."""
    folder = paths.states(plan.root)
    of_runs = {paths.spec_files(plan.root), paths.finished(plan.root)}
    needed = {folder / plan.digests[job.key] for job in plan.jobs} | of_runs
    return (
        [path for path in sorted(folder.iterdir()) if path not in needed] if folder.is_dir() else []
    )
