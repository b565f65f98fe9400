"""The network that is used unless another is asked for: small, convolutional, residual."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from difftract_bids.errors import ConfigError

#: Larger networks than these are a slip of the hand, or a file made to fill memory.
_MAX_WIDTH, _MAX_BLOCKS = 512, 64
#: PyTorch gives a single image of no more values than this in a layer of voxels not to oneDNN but
#: to matrix products, which take ten times as long on a processor: two at once are faster.
_FEW = 20_480


class ResidualCNN(nn.Module):
    """A linear map of each voxel, plus what convolutions over its neighbourhood correct in it.

    There is no batch normalisation: batches are small, and a prediction must not depend on what
    else is in one. Both parts start at zero, and the loss at that of predicting nothing: a random
    linear map is 14 times as far from the fODFs of a simulated head, and learning does not catch
    up in 300 steps; one fitted by least squares starts at half of it and is overtaken in 200.

    Parameters
    ----------
    in_channels, out_channels
        Number of SH coefficients of signal and fODF.
    width
        Features of each voxel between the layers.
    n_blocks
        Residual blocks, two convolutions of 3×3×3 voxels each.

    Raises
    ------
    ConfigError
        If width or number of blocks is out of range.

    References
    ----------
    He et al. 2016, doi:10.1109/CVPR.2016.90 (residual learning).
    """

    def __init__(
        self, in_channels: int, out_channels: int, width: int = 32, n_blocks: int = 3
    ) -> None:
        super().__init__()
        _require("width", width, 1, _MAX_WIDTH)
        _require("n_blocks", n_blocks, 0, _MAX_BLOCKS)
        self.skip = nn.Conv3d(in_channels, out_channels, 1)
        self.first = nn.Conv3d(in_channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(n_blocks)))
        self.activation = nn.ReLU()
        self.last = nn.Conv3d(width, out_channels, 1)
        for layer in (self.skip, self.last):
            for weight in layer.parameters():
                nn.init.zeros_(weight)
        # A quarter faster on the CPU: oneDNN's convolutions need no reordering.
        for weight in self.parameters():
            if weight.ndim == 5:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last_3d)

    @property
    def receptive_field(self) -> int:
        """Width, in voxels, of the neighbourhood that a voxel's prediction depends on."""
        return 2 * (1 + 2 * len(self.blocks)) + 1

    def forward(
        self, signal: Float[Tensor, "batch channel x y z"]
    ) -> Float[Tensor, "batch out x y z"]:
        """Predict fODFs from the signal, both as SH coefficients."""
        alone = len(signal) == 1 and not signal.is_cuda and signal[0, ..., 0].numel() <= _FEW
        if alone:
            signal = torch.cat([signal, signal])
        signal = signal.contiguous(memory_format=torch.channels_last_3d)
        features = self.blocks(self.first(signal))
        found: Tensor = self.skip(signal) + self.last(self.activation(features))
        return found[:1] if alone else found


class ResidualBlock(nn.Module):
    """Two convolutions whose result is added to what went in.

    References
    ----------
    He et al. 2016, doi:10.1007/978-3-319-46493-0_38 (activation before convolution).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.activation = nn.ReLU()
        self.first = nn.Conv3d(width, width, 3, padding=1)
        self.second = nn.Conv3d(width, width, 3, padding=1)

    def forward(self, features: Float[Tensor, "batch c x y z"]) -> Float[Tensor, "batch c x y z"]:
        """Add the correction."""
        inner = self.first(self.activation(features))
        found: Tensor = features + self.second(self.activation(inner))
        return found


def _require(name: str, value: int, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ConfigError(
            f"{name} is {value!r}, but it must be a whole number from {least} to {most}.",
            where=f"[network] {name}",
            remedy="Give such a number, or leave it out for the default.",
        )
