"""A simulated head with a known connectome, written as a BIDS dataset."""
