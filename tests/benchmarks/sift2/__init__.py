"""From streamlines and fODFs to a weight for each streamline, beside tcksift2."""
