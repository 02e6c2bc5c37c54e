"""From stored images to batches: where they come from, how they are augmented, and which worker reads them."""
