"""Deconvolution of single voxels: what an fODF's gradient or covariance means for the signal."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from difftract_bids.core.end_to_end import white_matter

#: Voxels whose derivatives are in memory together.
_VOXELS_AT_ONCE = 8192
#: Relative difference of an fODF fitted again from the one given that rounding can make.
_SAME = 1e-3


@dataclass(frozen=True)
class VoxelwiseFit:
    """The fODF of each voxel as a function of its own signal.

    Attributes
    ----------
    deconvolution
        Fits voxels apart from each other, as `CSD` and `MSMTCSD` do.
    dwi
        The signal.
    fodf
        The fODF image that was tracked: what the deconvolution gives of ``dwi``, but for a factor
        in each voxel, such as a normalisation of intensities, which is held fixed.
    """

    deconvolution: nn.Module
    dwi: Float[Tensor, "x y z volume"]
    fodf: Float[Tensor, "x y z coeff"]

    def explains(self, n: int = 1000) -> bool:
        """Say whether the fODF comes from this signal in this way, by the look of some voxels."""
        voxel = torch.nonzero((self.fodf != 0).any(dim=3).flatten()).squeeze(1)
        voxel = voxel[:: max(1, len(voxel) // n)]
        with torch.no_grad():
            again = self._fitted(self._signal(voxel), voxel)
        given = self.fodf.flatten(0, 2)[voxel].double()
        apart = (again - given).norm(dim=1) / given.norm(dim=1)
        return not len(voxel) or bool(apart.median() < _SAME)

    def to_signal(self, gradient: Float[Tensor, "x y z coeff"]) -> Float[Tensor, "x y z volume"]:
        """Pass a derivative by the fODFs on to the signal, in the voxels where it is not zero."""
        rows = gradient.flatten(0, 2)
        result = torch.zeros_like(self.dwi).flatten(0, 2)
        touched = torch.nonzero((rows != 0).any(dim=1)).squeeze(1)
        for voxel in torch.split(touched, _VOXELS_AT_ONCE):
            signal = self._signal(voxel).requires_grad_()
            with torch.enable_grad():
                fodf = self._fitted(signal, voxel)
                (back,) = torch.autograd.grad(fodf, signal, rows[voxel].double())
            result[voxel] = back.to(result.dtype)
        return result.reshape(self.dwi.shape)

    def covariance(self, voxel: Int[Tensor, " n"]) -> Float[Tensor, "n coeff coeff"]:
        """Give the covariance of an fODF for noise of standard deviation 1 in every volume.

        It is J J', J being the derivative of the fODF at this signal, which is worked out a
        coefficient at a time.
        """
        signal = self._signal(voxel).requires_grad_()
        with torch.enable_grad():
            fodf = self._fitted(signal, voxel)
            rows = [
                torch.autograd.grad(column.sum(), signal, retain_graph=True)[0]
                for column in fodf.unbind(1)
            ]
        jacobian = torch.stack(rows, dim=1)
        return jacobian @ jacobian.mT

    def _signal(self, voxel: Tensor) -> Float[Tensor, "n volume"]:
        return self.dwi.detach().flatten(0, 2)[voxel].double()

    def _fitted(self, signal: Tensor, voxel: Tensor) -> Float[Tensor, "n coeff"]:
        """Fit, and bring to the scale of the fODF given."""
        with warnings.catch_warnings():
            # That there are fewer directions than coefficients was said when it was fitted.
            warnings.filterwarnings("ignore", message=".*super-resolved", category=UserWarning)
            fodf = white_matter(self.deconvolution(signal, None))
        given = self.fodf.detach().flatten(0, 2)[voxel].to(fodf)
        own = fodf.detach()
        along = (own * given).sum(dim=1) / (own * own).sum(dim=1).clamp(min=1e-300)
        return fodf * along[:, None]
