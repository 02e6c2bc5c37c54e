"""Galleries: pictures of what a network responds to, and the numbers beside them."""
