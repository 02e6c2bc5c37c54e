"""What is raised where images are not what they should be."""

from __future__ import annotations


class DatasetError(ValueError):
    """What was given cannot become a dataset; the message names it and the fix."""
