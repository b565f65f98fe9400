"""Figures and tables of the report, one interface each."""
