"""Data sets as grey levels, and the one conversion between them and the scale models work in."""
