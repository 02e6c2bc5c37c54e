"""The error of everything that prepares datasets."""

from __future__ import annotations


class DatasetError(ValueError):
    """Something cannot be made into a dataset; the message names it and the fix."""
