"""Shared by several tests: files, datasets and entries that they need, processes that they start and kill."""
