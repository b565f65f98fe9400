"""What DIPY fits for us over arrays: response functions, tensors, spherical deconvolution."""
