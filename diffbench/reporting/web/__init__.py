"""The page of a benchmark's results: one HTML file that needs no network."""
