"""Figures and their assembly into one HTML page per subject."""
