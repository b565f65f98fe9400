"""What many participants have in common: statistics of their connectomes, quality, responses."""
