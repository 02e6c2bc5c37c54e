"""Published weights: where their files are, and how a checkpoint is read without executing anything in it."""
