"""From stored images to batches: reading, augmentation, worker processes."""
