"""Figures of fibre orientation distributions and of what they were made with."""
