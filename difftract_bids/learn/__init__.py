"""Training of a model from diffusion MRI to fODFs, through the propagator."""
