"""From diffusion MRI to structural connectomes through differentiable streamline tractography."""

from importlib.metadata import version

__version__ = version("difftract-bids")
__all__ = ["__version__"]
