"""The papers' released checkpoints: one module for each official layout, and the code that they share."""
