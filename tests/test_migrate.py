"""Spellings of before are rewritten, with everything around them left as it is."""

from pathlib import Path

import fast_yaml
import pytest
from commands import REPOSITORY

from diffbench.cli import main
from diffbench.reporting import layout
from diffbench.reporting.claims import CLAIMS, read_claims
from diffbench.reporting.layout import PUBLISHED, TABLES
from diffbench.reporting.migrate import migrate
from diffbench.specs.errors import PlanError

OLD = """\
# Ours.
metrics:
  fid: {head: FID, best: lower}   # kept
  bias: {head: bias}
  is: {head: IS, better: higher}
  bits_per_dim: {head: bits/dim, better: lower}
tables:
  paper:
    name: paper   # the layout
    title: A paper
    context: published
    protocol: {data: cifar10, samples: 1, images: 1, extractor: e, steps: 1, batch: 1}
    each: {published: {paper: ddpm}, solvers: [ancestral-1000]}
    rows:
      - row: first
        variant: a
        # either
        likelihoods: [vlb-large]
        published: {table: Table 1}
        cells: &cells
          fid: {metric: FID}
          bits_per_dim: {metric: BPD}
      - {row: second, variant: b, solvers: [x, "y"], likelihoods: [vlb], cells: *cells}
      - row: third
        variant: c
        cells:
          fid:
            metric: FID
            table: Table 2
  every:
    name: overview
    title: Everything   # in one place
    metrics: [fid, is]
  restored: {name: restorations, title: R, metrics: [fid], truth: [bias]}
figures:
  terms:
    name: terms
    title: Terms
    series:
      - {label: l, variant: v, likelihood: vlb}
"""
NEW = """\
# Ours.
metrics:
  train_seconds: {head: train, unit: s}
  sample_seconds: {head: sample, unit: s}
  restore_seconds: {head: seconds, unit: s}
  fid: {head: FID, better: lower}   # kept
  bias: {head: bias}
  is: {head: IS, better: higher}
  bits_per_dim: {head: bits/dim, better: lower}
tables:
  paper:
    layout: paper   # the layout
    title: A paper
    context: published
    protocol: {data: cifar10, samples: 1, images: 1, extractor: e, steps: 1, batch: 1}
    each: {published: {paper: ddpm}, item: ancestral-1000}
    rows:
      - row: first
        variant: a
        # either
        cells: {bits_per_dim: vlb-large}
        published: {table: Table 1}
        columns: &cells
          fid: {published: {metric: FID}}
          bits_per_dim: {published: {metric: BPD}}
      - {row: second, variant: b, item: [x, "y"], cells: {bits_per_dim: vlb}, columns: *cells}
      - row: third
        variant: c
        columns:
          fid:
            {published: {metric: FID, table: Table 2}}
  every:
    layout: listing
    stage: sample
    likelihoods: true
    title: Everything   # in one place
    columns: [fid, is, train_seconds, sample_seconds]
  restored: {layout: listing, stage: restore, title: R, columns: [fid, bias, restore_seconds], where_known: [bias]}
figures:
  terms:
    layout: terms
    title: Terms
    series:
      - {label: l, variant: v, item: vlb}
"""
OLD_CLAIMS = """\
# What is claimed.
one:
  claim: Many steps are better than few
  source: Somebody 2020
  better: {variant: a, solver: many, metric: fid}
  worse:
    - {variant: a, item: few, metric: fid}
    - {solver: fewer, metric: fid, variant: a}
  direction: lower   # of FID

two: {claim: Bound, source: S, direction: higher, better: &b {variant: a, likelihood: vlb, metric: is}, worse: *b}
"""
NEW_CLAIMS = """\
# What is claimed.
one:
  claim: Many steps are better than few
  source: Somebody 2020
  better: {variant: a, item: many, metric: fid}
  worse:
    - {variant: a, item: few, metric: fid}
    - {item: fewer, metric: fid, variant: a}

two: {claim: Bound, source: S, better: &b {variant: a, item: vlb, metric: is}, worse: *b}
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "config").mkdir()
    (tmp_path / TABLES).write_text(OLD)
    (tmp_path / CLAIMS).write_text(OLD_CLAIMS)
    (tmp_path / PUBLISHED).write_bytes((REPOSITORY / PUBLISHED).read_bytes())
    return tmp_path


def test_files_are_rewritten_with_their_comments_and_anchors(repository: Path) -> None:
    made = migrate(repository / TABLES, repository)
    assert (repository / TABLES).read_text() == NEW
    assert (made["name -> layout"], made["solvers -> item"], made["best -> better"]) == (4, 2, 1)
    migrate(repository / CLAIMS, repository)
    assert (repository / CLAIMS).read_text() == NEW_CLAIMS
    known = layout.read_tables(repository)
    first, second, third = known.tables["paper"].rows
    assert first.cells["fid"].item == ["ancestral-1000"]
    assert first.cells["fid"].published == {"paper": "ddpm", "table": "Table 1", "metric": "FID"}
    assert first.cells["bits_per_dim"].item == ["vlb-large"]
    assert second.cells["fid"].item == ["x", "y"]
    assert list(third.cells) == ["fid"]
    assert known.tables["restored"].where_known == ["bias"]
    assert set(read_claims(repository, known.metrics)) == {"one", "two"}


def test_a_file_of_today_stays_as_it_is(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (TABLES, CLAIMS):
        migrate(repository / file, repository)
        before = (repository / file).read_text()
        assert not migrate(repository / file, repository)
        assert (repository / file).read_text() == before
    shipped = sorted(str(path) for path in (REPOSITORY / "config").glob("*.yaml"))
    assert main(["migrate", *shipped]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{path}: nothing to change" for path in shipped
    ]


def test_a_likelihood_that_all_rows_share_is_the_columns(repository: Path) -> None:
    content = fast_yaml.load(OLD)
    table = content["tables"]["paper"]
    table["each"] = {"likelihoods": ["ode"], "cells": {"bits_per_dim": {"metric": "BPD"}}}
    table["rows"] = [{"row": "r", "variant": "a", "published": {"paper": "ddpm"}}]
    (repository / TABLES).write_text(fast_yaml.dump(content, sort_keys=False))
    migrate(repository / TABLES, repository)
    (row,) = layout.read_tables(repository).tables["paper"].rows
    assert row.cells["bits_per_dim"].item == ["ode"]
    assert row.cells["bits_per_dim"].published == {"paper": "ddpm", "metric": "BPD"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("direction: lower", "direction: higher"), "says that lower values of 'fid' are better"),
        (("metric: fid", "metric: fidd"), "does not say which values of 'fidd' are better"),
    ],
)
def test_what_cannot_be_rewritten_is_refused(
    repository: Path, change: tuple[str, str], named: str
) -> None:
    changed = OLD_CLAIMS.replace(*change)
    (repository / CLAIMS).write_text(changed)
    with pytest.raises(PlanError, match=named):
        migrate(repository / CLAIMS, repository)
    assert (repository / CLAIMS).read_text() == changed


def test_a_file_of_before_is_refused_with_the_new_name(repository: Path) -> None:
    with pytest.raises(
        PlanError,
        match=r"tables.yaml:3: metrics.fid.best: 'best' is now 'better': `diffbench migrate",
    ):
        layout.read_tables(repository)
