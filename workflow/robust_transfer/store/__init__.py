"""Entries of the store, the fingerprints of the code that made them, and features as they are stored."""
