"""Figures, tables and the report page, made from the results of the studies."""
