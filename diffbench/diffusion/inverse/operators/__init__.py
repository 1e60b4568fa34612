"""What degrades an image: linear operators by their singular value decompositions, and JPEG."""
