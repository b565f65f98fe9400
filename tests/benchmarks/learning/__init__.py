"""A step of training: by the kernels, by the reference propagator, and without streamlines."""
