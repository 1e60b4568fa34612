"""What restores an image from a degraded measurement of it."""
