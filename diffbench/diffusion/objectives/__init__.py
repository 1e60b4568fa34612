"""What a network is trained for: training times, losses, augmentation."""
