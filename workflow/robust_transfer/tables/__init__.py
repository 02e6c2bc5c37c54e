"""The tables that figures and reports are made from: results, trainings, flags, published numbers."""
