"""The training loop and what one step, one epoch and one transfer are made of."""
