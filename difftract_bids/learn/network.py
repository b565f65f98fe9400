"""From a scan to its fODFs by a network."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from difftract_bids.core.sh import lmax_of, n_coefficients
from difftract_bids.errors import InputError
from difftract_bids.io.gradients import GradientTable
from difftract_bids.learn.acquisition import Acquisition
from difftract_bids.learn.architectures import architecture_of
from difftract_bids.learn.frame import VoxelFrame
from difftract_bids.learn.network_settings import NetworkSettings
from difftract_bids.learn.representation import signal_sh
from difftract_bids.learn.starting_point import deconvolved_sh
from difftract_bids.learn.tiles import box_of, tiles_of

__all__ = ["BOX_MARGIN", "FODFNetwork", "NetworkSettings", "RunNetwork"]

#: Scans are cut to the box of their mask and this many voxels more: what a network sees must not
#: depend on how much air was scanned.
BOX_MARGIN = 2
#: Longest side of a tile, voxels: with 32 features, one takes less than 1 GB.
TILE = 72

Affine = Float[Tensor, "4 4"] | Float[np.ndarray, "4 4"]


class FODFNetwork(nn.Module):
    """A network from the signal's SH coefficients to those of fODFs, in the frame of the voxels.

    Parameters
    ----------
    settings
        Architecture, acquisition and degrees.
    architecture_class
        The class that the settings name, if it is not one of this package's.
    random_seed
        Of the weights that it starts with; the state of torch's own generator is left alone.

    Raises
    ------
    InputError
        If the architecture is not one of ours and no class is given, or cannot be made with its
        options.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        *,
        architecture_class: type[nn.Module] | None = None,
        random_seed: int = 0,
    ) -> None:
        super().__init__()
        self.settings = settings
        made_of = architecture_class or architecture_of(settings.architecture)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random_seed)
            try:
                self.architecture = made_of(
                    settings.in_channels, settings.out_channels, **settings.options
                )
            except (TypeError, ValueError, RuntimeError) as error:
                raise InputError(
                    f"{settings.architecture} cannot be made with the options "
                    f"{settings.options}: {error}.",
                    where="settings of the network",
                    remedy="Give it options that it has; its first two arguments are the numbers "
                    "of channels.",
                ) from error

    @property
    def receptive_field(self) -> int | None:
        """Width, voxels, of what a prediction depends on; none if the architecture says none."""
        width = getattr(self.architecture, "receptive_field", None)
        return width if isinstance(width, int) else None

    def forward(
        self, signal: Float[Tensor, "batch channel x y z"]
    ) -> Float[Tensor, "batch coeff x y z"]:
        """Predict fODFs; both in frame axes.

        Raises
        ------
        InputError
            If the architecture gives an image of another shape than it should.
        """
        found: Tensor = self.architecture(signal)
        expected = (len(signal), self.settings.out_channels, *signal.shape[2:])
        if found.shape != expected:
            raise InputError(
                f"{self.settings.architecture} gave the shape {tuple(found.shape)} for "
                f"{tuple(signal.shape)}; it must be {expected}.",
                where="architecture",
                remedy="Pad its convolutions so that the grid stays, and give out_channels.",
            )
        if self.settings.response is None:
            return found
        return found + signal[:, -self.settings.out_channels :]

    def encode(
        self,
        dwi: Float[Tensor, "x y z volume"],
        gradients: GradientTable,
        vox2ras: Affine,
        mask: Bool[Tensor, "x y z"] | None = None,
    ) -> Float[Tensor, "channel i j k"]:
        """Give what the network sees of a scan, in frame axes.

        Parameters
        ----------
        dwi
            Signal, in any unit; differentiable.
        gradients
            Directions in scanner axes. Any that the model's degrees can be fitted to.
        vox2ras
            Voxels to RAS+ millimetres.
        mask
            Voxels that are seen; the others are zero.

        Raises
        ------
        InputError
            If the scan is not one of the kind that the model is for, see `Acquisition.check`; what
            may merely make it worse is for the caller to ask there, and to tell.
        """
        _check_grid(dwi, mask)
        self.settings.acquisition.check(
            Acquisition.of(gradients, vox2ras), signal_lmax=self.settings.signal_lmax
        )
        signal = signal_sh(dwi, gradients, mask, self.settings.signal_lmax)
        if self.settings.response is not None:
            start = deconvolved_sh(
                dwi,
                gradients,
                mask,
                self.settings.response,
                bval_s_mm2=self.settings.acquisition.deconvolved_s_mm2,
                lmax=self.settings.lmax,
            )
            signal = torch.cat([signal, start], dim=3)
        return VoxelFrame.of(vox2ras).to_frame(signal, self.settings.input_lmaxes)

    def encode_fodf(
        self, fodf: Float[Tensor, "x y z coeff"], vox2ras: Affine
    ) -> Float[Tensor, "coeff i j k"]:
        """Bring fODFs into frame axes, as a target; degrees above the network's are left out.

        Parameters
        ----------
        fodf
            MRtrix3's basis, scanner axes.
        vox2ras
            Voxels to RAS+ millimetres.

        Raises
        ------
        InputError
            If their maximum degree is lower than the network's.
        FodfError
            If no even degree has as many coefficients.
        """
        found, lmax = lmax_of(fodf.shape[3]), self.settings.lmax
        if found < lmax:
            raise InputError(
                f"The fODFs have lmax {found}, the network gives lmax {lmax}.",
                where="fODF",
                remedy=f"Set lmax = {found} in [network], or fit fODFs of lmax {lmax}.",
            )
        return VoxelFrame.of(vox2ras).to_frame(fodf[..., : n_coefficients(lmax)], lmax)

    def decode(
        self,
        prediction: Float[Tensor, "coeff i j k"],
        vox2ras: Affine,
        mask: Bool[Tensor, "x y z"] | None = None,
    ) -> Float[Tensor, "x y z coeff"]:
        """Bring a prediction into scanner axes, onto the scan's grid; zero outside the mask."""
        fodf = VoxelFrame.of(vox2ras).to_scan(prediction, self.settings.output_lmaxes)
        return fodf if mask is None else fodf * mask.to(fodf)[..., None]

    def predict(
        self,
        dwi: Float[Tensor, "x y z volume"],
        gradients: GradientTable,
        vox2ras: Affine,
        mask: Bool[Tensor, "x y z"] | None = None,
        *,
        tile: int = TILE,
    ) -> Float[Tensor, "x y z coeff"]:
        """Give the fODFs of a scan, without gradients.

        Worked out in tiles that overlap by the receptive field: the result is that of the whole,
        but for rounding. An architecture that does not say its receptive field is given all.

        Parameters
        ----------
        dwi, gradients, vox2ras, mask
            See `encode`. The network may be on another device than the scan.
        tile
            Longest side of a tile, voxels.

        Returns
        -------
        Tensor
            SH coefficients in MRtrix3's basis and scanner axes, on the scan's device; zero
            outside the mask.

        Raises
        ------
        InputError
            See `encode`.
        """
        _check_grid(dwi, mask)
        was_training, width = self.training, self.receptive_field
        self.eval()
        try:
            with torch.no_grad():
                return self._in_box(dwi, gradients, vox2ras, mask, tile if width else None)
        finally:
            self.train(was_training)

    def for_run(self, gradients: GradientTable, vox2ras: Affine) -> RunNetwork:
        """Give the function from a scan's signal to its fODFs, differentiable in both.

        It stands where `DWIToConnectome` has its deconvolution.

        Raises
        ------
        InputError
            If the scan is not one of the kind that the model is for.
        """
        self.settings.acquisition.check(
            Acquisition.of(gradients, vox2ras), signal_lmax=self.settings.signal_lmax
        )
        return RunNetwork(self, gradients, vox2ras)

    def _in_box(
        self,
        dwi: Tensor,
        gradients: GradientTable,
        vox2ras: Affine,
        mask: Tensor | None,
        tile: int | None,
    ) -> Tensor:
        """Predict within the mask's box, in tiles or at once, and put it back into the grid."""
        seen = torch.ones(dwi.shape[:3], dtype=torch.bool) if mask is None else mask
        seen = seen.to(dwi.device)
        box = box_of(seen, BOX_MARGIN)
        shape = (*dwi.shape[:3], self.settings.out_channels)
        like = self._like(dwi)
        if box is None:
            return torch.zeros(shape, dtype=like.dtype, device=dwi.device)
        dwi, seen = dwi[box], seen[box]
        if tile is None:
            fodf = self._predict_all(dwi, gradients, vox2ras, seen, like)
        else:
            overlap = (self.receptive_field or 1) // 2
            fodf = torch.zeros((*dwi.shape[:3], shape[3]), dtype=like.dtype, device=dwi.device)
            for part in tiles_of((dwi.shape[0], dwi.shape[1], dwi.shape[2]), tile, overlap):
                if seen[part.kept].any():
                    found = self._predict_all(
                        dwi[part.read], gradients, vox2ras, seen[part.read], like
                    )
                    fodf[part.kept] = found[part.within]
        before = [(side.start, size - side.stop) for side, size in zip(box, shape, strict=False)]
        pads = [n for pair in reversed(before) for n in pair]  # the last axis comes first
        return nn.functional.pad(fodf, (0, 0, *pads))

    def _predict_all(
        self, dwi: Tensor, gradients: GradientTable, vox2ras: Affine, mask: Tensor, like: Tensor
    ) -> Tensor:
        encoded = self.encode(dwi, gradients, vox2ras, mask)
        found = self(encoded[None].to(like))[0]
        return self.decode(found.to(dwi.device), vox2ras, mask)

    def _like(self, dwi: Tensor) -> Tensor:
        """Give a tensor of the weights' type and device."""
        return next(self.parameters(), torch.empty(0, device=dwi.device))


class RunNetwork(nn.Module):
    """A network for one scan: from its signal to its fODFs.

    Parameters
    ----------
    network
        Whose weights are used, and trained if they are.
    gradients
        Of the scan; directions in scanner axes.
    vox2ras
        Voxels to RAS+ millimetres.
    """

    def __init__(self, network: FODFNetwork, gradients: GradientTable, vox2ras: Affine) -> None:
        super().__init__()
        self.network, self.gradients, self.vox2ras = network, gradients, vox2ras

    def forward(
        self, dwi: Float[Tensor, "x y z volume"], mask: Bool[Tensor, "x y z"] | None = None
    ) -> Float[Tensor, "x y z coeff"]:
        """Give the fODFs, as `FODFNetwork.predict` does, differentiable in signal and weights."""
        _check_grid(dwi, mask)
        return self.network._in_box(dwi, self.gradients, self.vox2ras, mask, None)  # noqa: SLF001


def _check_grid(dwi: Tensor, mask: Tensor | None) -> None:
    if dwi.ndim != 4 or (mask is not None and mask.shape != dwi.shape[:3]):
        shape = None if mask is None else tuple(mask.shape)
        raise InputError(
            f"The signal has the shape {tuple(dwi.shape)}, the mask {shape}.",
            where="dwi, mask",
            remedy="Give a signal of x, y, z, volume, and a mask on the same grid.",
        )
