"""Operators that degrade an image: linear ones by their singular value decompositions, and JPEG."""
