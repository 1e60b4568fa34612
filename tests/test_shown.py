"""How the report shows what is made of all results."""

from pathlib import Path

import pytest
from commands import REPOSITORY

from diffbench.reporting.shown import shown_as


@pytest.mark.parametrize(
    ("file", "category"),
    [
        ("tables/overview.csv", "Tables"),
        ("tables/claims.md", "Claims"),
        ("tables/records.json", "All numbers"),
        ("figures/fid-nfe.png", "Figures"),
        # A figure may have the name of a table.
        ("figures/claims.png", "Figures"),
        ("index.html", "The page"),
    ],
)
def test_each_file_has_a_category_labels_and_a_caption_that_exists(file, category):
    path = Path("results/tiny") / file
    found = shown_as(path)
    assert found.category == category
    assert found.labels == {"name": path.stem, "format": path.suffix[1:]}
    caption = REPOSITORY / "workflow" / "report" / f"{found.caption}.rst"
    assert len(caption.read_text().split()) > 15
