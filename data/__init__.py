"""Packaged resources and the scripts that made them."""
