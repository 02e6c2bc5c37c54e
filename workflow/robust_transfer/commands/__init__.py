"""The commands beside those of stages: their options, and what they run."""
