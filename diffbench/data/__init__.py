"""Data sets as grey levels, and the one conversion between levels and the scale models work in."""
