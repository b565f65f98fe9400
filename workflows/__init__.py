"""Nipype graphs: nodes and edges, no computing. Imported as ``difftract_bids.workflows``."""
