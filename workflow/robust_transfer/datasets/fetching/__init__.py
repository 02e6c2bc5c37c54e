"""Downloads and archives: whole, verified, and never outside their folder."""
