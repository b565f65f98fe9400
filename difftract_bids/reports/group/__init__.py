"""The page of a group and its figures."""
