"""Gangline: one open language model over the machines you already own."""

__version__ = "0.1.0"
