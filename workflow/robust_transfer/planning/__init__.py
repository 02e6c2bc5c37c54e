"""What an experiment will take before it runs: jobs, images, FLOPs, disk, hours and a price, from the grid alone."""
