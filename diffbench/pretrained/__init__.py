"""The papers' released checkpoints: one module per official layout, and what they share."""
