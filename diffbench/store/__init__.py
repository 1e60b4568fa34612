"""What is on disk: paths, sidecars, checksums, training state, status.  No torch."""
