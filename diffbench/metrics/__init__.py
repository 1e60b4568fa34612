"""Measures of image quality: fidelity to a data set, with features of one named extractor."""
