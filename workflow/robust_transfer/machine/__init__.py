"""Devices, processes that share a training, and how they are started."""
