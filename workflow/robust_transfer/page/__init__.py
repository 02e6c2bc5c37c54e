"""The page of an experiment: one HTML file that opens from the disk and asks nothing of the network."""
