"""Figures of the images, and of what preprocessing did to them."""
