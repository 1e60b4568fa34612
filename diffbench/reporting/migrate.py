"""Earlier spellings in files of tables and claims, which ``spelling`` refuses and ``diffbench migrate`` rewrites.

Only the text of the keys and values that changed is edited, so comments, anchors and the order of keys stay; a part in
block style that has to be wrapped becomes one line, without the comments inside it.

    name                        of a table or a figure                 layout
    overview, restorations      as a table's layout                    listing, with its stage and all its columns
    best                        of a metric                            better
    solver, likelihood          of a claim's cell                      item
    direction                   of a claim                             the metric's better
    solvers                     of a paper's row                       item
    likelihoods                 of a paper's row                       cells: {bits_per_dim: item}
    cells                       of a paper's row: {fid: {metric: FID}} columns: {fid: {published: {metric: FID}}}
    likelihood, analysis        of a figure                            item
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from diffbench.plan import reading
from diffbench.plan.reading import dotted
from diffbench.reporting.layout import BITS, TABLES
from diffbench.reporting.spelling import GONE, old_keys
from diffbench.specs.errors import PlanError, shown


def migrate(file: Path, repository: Path) -> Counter[str]:
    """Rewrite a file of tables or claims; any other file, or one that is up to date, stays as it is.

    Args:
        file: the YAML file.
        repository: the folder whose ``config/tables.yaml`` says which values of a metric are better.

    Returns:
        How often each change was made: ``"solver -> item"``.

    Raises:
        PlanError: when the file is not YAML, or for the first thing that cannot be rewritten; nothing is written then.
    """
    tree = reading.read(file)
    text = file.read_text(encoding="utf-8")
    root = yaml.compose(text, yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    edits = _Edits(text, str(shown(file)))
    for pair in _pairs(root, "metrics"):
        edits.rename(pair, "best", "better")
    _costs(edits, root)
    for table in _pairs(root, "tables"):
        if _scalar(table, "name") == "paper" or _has_old_rows(table):
            _paper(edits, table)
        if (name := _scalar(table, "name")) in LISTINGS:
            _listing(edits, table, name)
        else:
            edits.rename(table, "name", "layout")
    for figure in _pairs(root, "figures"):
        _figure(edits, figure)
    if any(
        keys[1:2] == ("direction",) or keys[1:2] in (("better",), ("worse",))
        for keys, _ in old_keys(tree.value)
    ):
        better = {
            name: metric.get("better", metric.get("best"))
            for name, metric in _metrics(repository).items()
        }
        for _, claim in root.value:
            _claim(edits, claim, better)
    if edits.made:
        rewritten = edits.applied()
        _check(rewritten, str(shown(file)))
        file.write_text(rewritten, encoding="utf-8")
    return edits.made


def _check(text: str, file: str) -> None:
    """Refuse a text that is not YAML, or still has an earlier spelling.

    Raises:
        PlanError: with the reason.
    """
    try:
        left = [dotted(keys) for keys, _ in old_keys(yaml.safe_load(text))]
    except yaml.YAMLError as error:
        left = [str(getattr(error, "problem", error))]
    if left:
        raise PlanError(
            f"{file}: {left[0]} cannot be rewritten automatically: edit the file by hand"
        )


def _metrics(repository: Path) -> dict[str, Any]:
    found = reading.read(repository / TABLES).value.get("metrics", {})
    return dict(found) if isinstance(found, dict) else {}


@dataclass
class _Edits:
    """Replacements of parts of a text; a part is replaced once, however often an alias names it."""

    text: str
    file: str
    parts: dict[tuple[int, int], str] = field(default_factory=dict)
    made: Counter[str] = field(default_factory=Counter)

    def put(self, start: int, end: int, new: str, what: str) -> None:
        """Replace a part.

        Raises:
            PlanError: when two different replacements of it are wanted.
        """
        if self.parts.get((start, end), new) != new:
            line = self.text.count("\n", 0, start) + 1
            raise PlanError(
                f"{self.file}:{line}: an alias names one part that would become {self.parts[start, end]} here and "
                f"{new} there: write the part out in place of the alias"
            )
        if (start, end) not in self.parts:
            self.parts[start, end] = new
            self.made[what] += 1

    def rename(self, mapping: yaml.Node, old: str, new: str) -> None:
        """Rename a key of a mapping."""
        if key := _key(mapping, old):
            self.put(key.start_mark.index, key.end_mark.index, new, f"{old} -> {new}")

    def remove(self, mapping: yaml.Node, old: str, what: str) -> None:
        """Remove a key and its value, with the whole line where nothing else is on it."""
        key, value = _key(mapping, old), _value(mapping, old)
        assert key is not None and value is not None
        start, end = key.start_mark.index, self.end(value)
        before, after = self.text[:start], self.text[end:]
        if comma := re.search(r",\s*$", before) if _is_flow(mapping) else None:
            start = comma.start()
        elif _is_flow(mapping):
            end += len(re.match(r"\s*,?\s*", after)[0])  # type: ignore[index]
        else:
            start = before.rfind("\n") + 1
            end += len(re.match(r"[^\n]*\n?", after)[0])  # type: ignore[index]
        self.put(start, end, "", what)

    def start(self, node: yaml.Node) -> int:
        """Return where a node's own text starts, after its anchor."""
        anchor = re.match(r"&\S+\s+", self.text[node.start_mark.index :])
        return int(node.start_mark.index) + (len(anchor[0]) if anchor else 0)

    def end(self, node: yaml.Node) -> int:
        """Return where a node's own text ends, without the blank lines and comments that YAML counts to a block."""
        if isinstance(node, yaml.ScalarNode) or _is_flow(node):
            return int(node.end_mark.index)
        last_child = node.value[-1]
        return self.end(last_child[1] if isinstance(node, yaml.MappingNode) else last_child)

    def of(self, node: yaml.Node) -> str:
        """Return a node's text on one line."""
        if isinstance(node, yaml.ScalarNode) or _is_flow(node):
            return self.text[self.start(node) : node.end_mark.index]
        value = yaml.safe_load(yaml.serialize(node))
        return yaml.safe_dump(value, default_flow_style=True, width=10**6).strip()

    def applied(self) -> str:
        """Return the text with all replacements made."""
        text = self.text
        for (start, end), new in sorted(self.parts.items(), reverse=True):
            text = text[:start] + new + text[end:]
        return text


def _is_flow(node: yaml.Node) -> bool:
    return bool(getattr(node, "flow_style", False))


def _pairs(mapping: yaml.Node | None, key: str) -> list[yaml.Node]:
    """Return the values of the mapping below a key."""
    found = _value(mapping, key)
    return [value for _, value in found.value] if isinstance(found, yaml.MappingNode) else []


def _items(mapping: yaml.Node | None, key: str) -> list[yaml.Node]:
    """Return the parts of the list below a key; a single mapping is a list of one."""
    found = _value(mapping, key)
    if isinstance(found, yaml.SequenceNode):
        return list(found.value)
    return [] if found is None else [found]


def _entry(mapping: yaml.Node | None, key: str) -> tuple[yaml.Node | None, yaml.Node | None]:
    pairs = mapping.value if isinstance(mapping, yaml.MappingNode) else []
    return next(((name, value) for name, value in pairs if name.value == key), (None, None))


def _key(mapping: yaml.Node | None, key: str) -> yaml.Node | None:
    return _entry(mapping, key)[0]


def _value(mapping: yaml.Node | None, key: str) -> yaml.Node | None:
    return _entry(mapping, key)[1]


def _scalar(mapping: yaml.Node | None, key: str) -> str:
    found = _value(mapping, key)
    return str(found.value) if isinstance(found, yaml.ScalarNode) else ""


#: The stage of a listing, and the columns that only its earlier layout had.
LISTINGS = {
    "overview": ("sample", ["train_seconds", "sample_seconds"], "likelihoods: true"),
    "restorations": ("restore", ["restore_seconds"], ""),
}
HEADS = {"train_seconds": "train", "sample_seconds": "sample", "restore_seconds": "seconds"}


def _listing(edits: _Edits, table: yaml.Node, name: str) -> None:
    """Rewrite a table of all solvers, or of all restorations, as a listing."""
    stage, costs, more = LISTINGS[name]
    between = ", " if _is_flow(table) else f"\n{' ' * table.start_mark.column}"
    key, value = _entry(table, "name")
    columns, truth = _value(table, "metrics"), _value(table, "truth")
    if key is None or value is None or columns is None:
        return
    new = between.join(filter(None, ["layout: listing", f"stage: {stage}", more]))
    edits.put(key.start_mark.index, edits.end(value), new, "name -> layout")
    names = [each.value for part in (columns, truth) if part for each in part.value]
    listed = f"columns: [{', '.join([*names, *costs])}]"
    start = _key(table, "metrics").start_mark.index  # type: ignore[union-attr]
    edits.put(start, edits.end(columns), listed, "metrics -> columns")
    edits.rename(table, "truth", "where_known")


def _costs(edits: _Edits, root: yaml.Node) -> None:
    """Add the metrics of the times of jobs, which earlier layouts had built in."""
    named = {_scalar(table, "name") for table in _pairs(root, "tables")} & set(LISTINGS)
    metrics = _value(root, "metrics")
    costs = [name for layout in LISTINGS if layout in named for name in LISTINGS[layout][1]]
    lacking = [name for name in costs if not _key(metrics, name)]
    if not lacking or not isinstance(metrics, yaml.MappingNode) or not metrics.value:
        return
    between = ", " if _is_flow(metrics) else f"\n{' ' * metrics.start_mark.column}"
    new = "".join(f"{name}: {{head: {HEADS[name]}, unit: s}}{between}" for name in lacking)
    start = metrics.value[0][0].start_mark.index
    edits.put(start, start, new, "metrics of what jobs took")


def _has_old_rows(table: yaml.Node) -> bool:
    rows = [_value(table, "each"), *_items(table, "rows")]
    return any(_key(row, key) for row in rows for key in ("solvers", "likelihoods"))


def _paper(edits: _Edits, table: yaml.Node) -> None:
    """Rewrite a paper's table: what its rows and ``each`` say of solvers, likelihoods and cells."""
    each = _value(table, "each")
    for row in [each, *_items(table, "rows")]:
        if not isinstance(row, yaml.MappingNode):
            continue
        if (solvers := _value(row, "solvers")) is not None:
            edits.rename(row, "solvers", "item")
            _one(edits, solvers)
        cells, likelihoods = _value(row, "cells"), _value(row, "likelihoods")
        effective = _value(each, "cells") if cells is None else cells
        if likelihoods is not None and row is not each and _key(effective, BITS):
            new = f"cells: {{{BITS}: {_of_list(edits, likelihoods)}}}"
            key = _key(row, "likelihoods")
            assert key is not None
            start, end = key.start_mark.index, edits.end(likelihoods)
            edits.put(start, end, new, "likelihoods -> cells")
        elif likelihoods is not None:
            edits.remove(row, "likelihoods", "likelihoods -> columns")
        edits.rename(row, "cells", "columns")
        shared = (
            None if likelihoods is not None and row is not each else _value(each, "likelihoods")
        )
        for name, selection in cells.value if isinstance(cells, yaml.MappingNode) else ():
            own = shared if name.value == BITS else None
            item = "" if own is None else f"item: {_of_list(edits, own)}, "
            new = f"{{{item}published: {edits.of(selection)}}}"
            edits.put(edits.start(selection), edits.end(selection), new, "metric -> published")


def _of_list(edits: _Edits, node: yaml.Node) -> str:
    """Return the text of a list; of a list of one, the text of its element."""
    if isinstance(node, yaml.SequenceNode) and len(node.value) == 1:
        return edits.of(node.value[0])
    return edits.of(node)


def _one(edits: _Edits, node: yaml.Node) -> None:
    """Write a list of one as its element."""
    if isinstance(node, yaml.SequenceNode) and _is_flow(node) and len(node.value) == 1:
        edits.put(edits.start(node), edits.end(node), edits.of(node.value[0]), "[item] -> item")


def _figure(edits: _Edits, figure: yaml.Node) -> None:
    edits.rename(figure, "name", "layout")
    for part in [figure, *_items(figure, "series")]:
        for old in ("likelihood", "analysis"):
            edits.rename(part, old, "item")


def _claim(edits: _Edits, claim: yaml.Node, better: Mapping[str, object]) -> None:
    cells = [*_items(claim, "better"), *_items(claim, "worse")]
    for cell in cells:
        for old in ("solver", "likelihood"):
            edits.rename(cell, old, "item")
    direction = _scalar(claim, "direction")
    if not direction:
        return
    metric = _scalar(cells[0], "metric") if cells else ""
    if better.get(metric) != direction:
        said = better.get(metric)
        line = claim.start_mark.line + 1
        raise PlanError(
            f"{edits.file}:{line}: direction: {direction}, but {TABLES} "
            f"{f'says that {said} values of' if said else 'does not say which values of'} {metric!r} are better: "
            f"{'exchange better and worse' if said else f'give it `better: {direction}` first'}"
        )
    edits.remove(claim, "direction", f"direction -> {GONE}")
