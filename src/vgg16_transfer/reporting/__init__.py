"""Figures, tables and the page, from what the studies measured."""
