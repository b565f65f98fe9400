"""Files: images, gradient tables, tractograms, matrices."""
