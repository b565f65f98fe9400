"""Deconvolution beside dwi2fod."""

#: Largest degree of white matter, unless another is asked for.
LMAX = 8
