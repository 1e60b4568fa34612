"""What is on disk: paths, sidecars, checksums, training states, status; without torch."""
