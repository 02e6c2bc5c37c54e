"""Datasets: where images come from (`origins`), what is stored of them (`images`, `storing`, `prepare`), and how they
are read (`arrow`), split (`splits`) and held in memory (`resident`). `shapes` generates the synthetic ones.
"""
