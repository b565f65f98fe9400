"""Figures of streamlines, on paper and in three dimensions."""
