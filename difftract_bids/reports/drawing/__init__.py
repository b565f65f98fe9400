"""What figures have in common: style, slices, projections, and their bytes."""
