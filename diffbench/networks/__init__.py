"""Networks F(x; c_noise, y) and the moving average of their weights."""
