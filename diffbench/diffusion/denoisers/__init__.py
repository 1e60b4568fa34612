"""What predicts the clean image from a noisy one: networks, exact denoisers, boundary conditions, guidance."""
