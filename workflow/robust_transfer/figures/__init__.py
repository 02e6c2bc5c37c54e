"""Figures and tables, one module each; `draw.py` draws one by name from the results table."""
