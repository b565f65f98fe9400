"""The propagator compiled: one streamline at a time, for processors and for NVIDIA GPUs.

A streamline is in `streamline`, a step in `step`, a peak in `peak`, an image in `lookup`, over the
sums in `contraction`; `cpu` and `cuda` share the work out.
"""

from difftract_bids.core.kernels.job import Backend, Job, PulledBack, backend_for

__all__ = ["Backend", "Job", "PulledBack", "backend_for"]
