"""Scans as training takes them: encoded once, with what each voxel is for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from difftract_bids.config import TrainingConfig
from difftract_bids.errors import InputError
from difftract_bids.learn.frame import VoxelFrame
from difftract_bids.learn.network import FODFNetwork
from difftract_bids.learn.rotations import GridRotation, rotations_of
from difftract_bids.learn.scan import Scan
from difftract_bids.learn.splits import split_blocks, split_runs
from difftract_bids.learn.targets import PropagationTarget

#: Gap, voxels, between blocks that are learnt from and blocks that check, for an architecture
#: that does not say how far it sees.
_UNKNOWN_GAP = 8


@dataclass(frozen=True, eq=False)
class Material:
    """A scan for a network to learn from, or to be checked with; all on one device.

    Attributes
    ----------
    label
        Of the scan.
    encoded, target
        What the network sees, and what it should give, in frame axes.
    counted
        Voxels whose fODF counts, in frame axes.
    mean_square
        Mean over these voxels of the target's summed squares, which losses are relative to.
    vox2ras
        Affine, voxels to RAS+ millimetres.
    mask
        The brain, on the scan's grid.
    rotations
        The turns of its grid, the first of which is none.
    propagation
        What streamlines are compared with; ``None`` if no loss needs them.
    """

    label: str
    encoded: Float[Tensor, "channel i j k"]
    target: Float[Tensor, "coeff i j k"]
    counted: Bool[Tensor, "i j k"]
    mean_square: float
    vox2ras: Float[Tensor, "4 4"]
    mask: Bool[Tensor, "x y z"]
    rotations: tuple[GridRotation, ...]
    propagation: PropagationTarget | None = None

    def to(self, device: torch.device) -> Material:
        """Put it on a device."""
        target = self.propagation
        if target is not None:
            target = replace(target, **_moved(target, device))
        return replace(self, **{**_moved(self, device), "propagation": target})


@dataclass(frozen=True)
class Parts:
    """Scans that are learnt from and scans that check; in a split by blocks the same ones."""

    training: tuple[Scan, ...]
    validation: tuple[Scan, ...]
    by_blocks: bool

    @property
    def participants(self) -> dict[str, list[str]]:
        """The labels of the participants of either part."""
        parts = {"training": self.training, "validation": self.validation}
        return {name: sorted({scan.participant for scan in part}) for name, part in parts.items()}


def split_scans(scans: Sequence[Scan], config: TrainingConfig) -> Parts:
    """Split scans as `split_runs` does.

    Raises
    ------
    InputError, UsageError
        If there is no scan, they cannot be split, or one has no target or not enough of it.
    """
    if not scans:
        raise InputError(
            "There is no scan to learn from.",
            where="scans",
            remedy="Run difftract-bids first, or name participants that are there.",
        )
    for scan in scans:
        _check(scan, config)
    split = split_runs(scans, config.pairs, config.optimisation.random_seed)
    return Parts(split.training, split.validation, split.by == "blocks")


def prepare(
    parts: Parts, network: FODFNetwork, config: TrainingConfig, device: torch.device
) -> tuple[list[Material], list[Material]]:
    """Encode scans, and say what is learnt from and what checks.

    Parameters
    ----------
    parts
        Scans, split.
    network
        Which encodes them.
    config
        Blocks and propagation.
    device
        Where everything is put.

    Returns
    -------
    tuple of list of Material
        What is learnt from, and what checks.

    Raises
    ------
    InputError
        If a scan is not of the kind that the network is for, or cannot be split into blocks.
    """
    if not parts.by_blocks:
        training, validation = (
            [_material(scan, scan.mask, network, config).to(device) for scan in part]
            for part in (parts.training, parts.validation)
        )
        return training, validation
    gap = _UNKNOWN_GAP if network.receptive_field is None else network.receptive_field // 2
    pairs = []
    for scan in parts.training:
        seed = config.optimisation.random_seed
        blocks = split_blocks(
            scan.mask, scan.vox2ras, config.pairs, gap_voxels=gap, random_seed=seed
        )
        pairs.append([_material(scan, part, network, config).to(device) for part in blocks])
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _moved(holder: object, device: torch.device) -> dict[str, Any]:
    """Give the tensors that something holds, on another device."""
    return {
        name: value.to(device) for name, value in vars(holder).items() if isinstance(value, Tensor)
    }


def digest_of_scan(scan: Scan) -> str:
    """Give the SHA-256 of all that is learnt of a scan, in hexadecimal."""
    digest = hashlib.sha256()
    images = (scan.dwi, scan.vox2ras, scan.mask, scan.fodf, scan.parcellation, scan.node_labels)
    for image in images:
        digest.update(b"-" if image is None else f"{image.dtype}{tuple(image.shape)}".encode())
        if image is not None:
            digest.update(image.contiguous().numpy().tobytes())
    for array in (scan.gradients.bvals_s_mm2, scan.gradients.bvecs):
        digest.update(array.tobytes())
    return digest.hexdigest()


def _check(scan: Scan, config: TrainingConfig) -> None:
    """Check that there is what the settings need, before anything is worked out."""
    lmax = config.network.lmax
    if scan.fodf is None or (scan.lmax or 0) < lmax:
        has = "no fODF to learn" if scan.fodf is None else f"fODFs of lmax {scan.lmax}"
        raise InputError(
            f"{scan.label} has {has}; the network gives fODFs of lmax {lmax}.",
            where=scan.sources.get("fodf", scan.label),
            remedy=f"Set lmax = {scan.lmax or lmax} in [network], or fit fODFs of lmax {lmax}.",
        )
    if config.losses.needs_connectome and scan.parcellation is None:
        raise InputError(
            f"{scan.label} has no parcellation, which losses on connectomes need.",
            where=scan.label,
            remedy="Give its atlas in [pairs], or give the connectome losses the weight 0.",
        )


def _material(
    scan: Scan, part: Bool[Tensor, "x y z"], network: FODFNetwork, config: TrainingConfig
) -> Material:
    """Encode a scan of which a part counts."""
    if scan.fodf is None:
        raise InputError("There is no fODF to learn.", where=scan.label)
    frame = VoxelFrame.of(scan.vox2ras)
    target = network.encode_fodf(scan.fodf, scan.vox2ras)
    counted = frame.grid_to_frame(part)
    encoded = network.encode(scan.dwi, scan.gradients, scan.vox2ras, scan.mask)
    wanted = target.movedim(0, -1)[counted]
    return Material(
        label=scan.label,
        encoded=encoded.float().contiguous(),
        target=target.float().contiguous(),
        counted=counted.contiguous(),
        mean_square=float(wanted.double().square().sum(1).mean()),
        vox2ras=scan.vox2ras,
        mask=scan.mask,
        rotations=tuple(rotations_of(frame.voxel_size_mm)),
        propagation=_propagation(scan, part, config),
    )


def _propagation(
    scan: Scan, part: Bool[Tensor, "x y z"], config: TrainingConfig
) -> PropagationTarget | None:
    if not config.losses.needs_propagation or scan.fodf is None:
        return None
    settings = config.propagation
    with_nodes = config.losses.needs_connectome
    return PropagationTarget(
        fodf=scan.fodf,
        vox2ras=scan.vox2ras,
        mask=scan.mask,
        tracking=config.tracking,
        parcellation=scan.parcellation if with_nodes else None,
        node_labels=scan.node_labels if with_nodes else None,
        sigma_mm=settings.sigma_mm,
        survival_softness=settings.survival_softness,
        seed_mask=part,
        with_density=config.losses.density > 0,
        counts=settings.counts,
        with_amplitudes=config.losses.survival > 0,
    )
