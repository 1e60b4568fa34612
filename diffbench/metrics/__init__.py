"""Measures of image quality: fidelity to a data set, on features of one named extractor."""
