"""Preprocessing as functions over arrays: gradient checks, denoising, masks, registration."""
