"""Objectives, which train a network: training times, losses, augmentation."""
