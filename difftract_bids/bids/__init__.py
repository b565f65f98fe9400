"""BIDS: finding inputs, naming outputs, describing datasets, atlases."""
