"""Figures of connectomes: matrices, nodes, edges and their derivatives."""
