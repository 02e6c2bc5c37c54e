"""What goes wrong with tables."""


class TableError(ValueError):
    """A table that cannot be made or read; the message names the row or file and the fix."""
