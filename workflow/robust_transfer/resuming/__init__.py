"""Saving the state of a job that is interrupted, and resuming from it."""
