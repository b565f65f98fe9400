"""A simulated head from its signal to its connectome: what the tests of the whole chain share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from difftract_bids.bids.nodes import NodeTable, read_nodes
from difftract_bids.config import TrackingConfig
from difftract_bids.core.connectome.soft import SoftConnectome
from difftract_bids.core.end_to_end import DWIToConnectome, FODFToConnectome
from difftract_bids.core.seeding import RandomSeeds
from difftract_bids.core.voxelwise import VoxelwiseFit
from difftract_bids.io.gradients import GradientTable, read_gradients
from difftract_bids.io.images import load_volume
from difftract_bids.modelling.deconvolution import build_deconvolution
from difftract_bids.modelling.response import Response, estimate_response
from difftract_bids.phantom.dataset import write_phantom
from difftract_bids.phantom.settings import PhantomConfig


@dataclass(frozen=True)
class Chain:
    """A simulated subject, and what leads from its signal to its connectome."""

    folder: Path
    dwi: torch.Tensor
    mask: torch.Tensor
    vox2ras: torch.Tensor
    gradients: GradientTable
    response: Response
    parcellation: torch.Tensor
    nodes: NodeTable

    @classmethod
    def simulated(cls, folder: Path, **settings: object) -> Chain:
        """Simulate a subject with the phantom's settings."""
        write_phantom(folder, PhantomConfig(**settings))
        return cls.read(folder)

    @classmethod
    def read(cls, folder: Path) -> Chain:
        stem = folder / "sub-01" / "dwi" / "sub-01_dwi"
        truth = folder / "derivatives" / "truth" / "sub-01" / "dwi"
        image = load_volume(f"{stem}.nii.gz", ndim=4)
        gradients = read_gradients(f"{stem}.bval", f"{stem}.bvec", image.vox2ras)
        labels = load_volume(truth / "sub-01_atlas-Phantom_dseg.nii.gz", dtype=np.int32).data
        tissue = load_volume(truth / "sub-01_desc-tissue_dseg.nii.gz", dtype=np.int32).data
        mask = np.isin(tissue, (1, 2, 3))
        response = estimate_response(image.data, gradients, mask)
        return cls(
            folder=folder,
            dwi=torch.from_numpy(image.data).double(),
            mask=torch.from_numpy(mask),
            vox2ras=torch.from_numpy(image.vox2ras),
            gradients=gradients,
            response=response,
            parcellation=torch.from_numpy(labels),
            nodes=read_nodes(truth / "sub-01_atlas-Phantom_dseg.tsv"),
        )

    def cropped(self) -> Chain:
        """Keep one hemisphere of the brain, and a slab of it: a sixth of the voxels."""
        inside = torch.zeros_like(self.mask)
        x, y, z = (size for size in self.mask.shape)
        inside[x // 2 :, y // 3 : 2 * y // 3 + 2, z // 8 :] = True
        return replace(self, mask=self.mask & inside)

    def model(
        self, sigma_mm: float = 1.0, softness: float | None = None, **settings: object
    ) -> DWIToConnectome:
        """Make the chain; settings are those of tracking."""
        connectome = SoftConnectome(
            self.parcellation,
            self.vox2ras,
            sigma_mm=sigma_mm,
            node_labels=torch.tensor(self.nodes.index),
        )
        tracking = FODFToConnectome(
            connectome, self.vox2ras, TrackingConfig(**settings), survival_softness=softness
        )
        fit = build_deconvolution(self.gradients, {"WM": self.response}, "csd", 8)
        return DWIToConnectome(fit, tracking)

    def seeds(self, n: int, random_seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw seeds in the mask."""
        return RandomSeeds(self.mask, self.vox2ras, random_seed).draw(0, n)

    def fit(self, model: DWIToConnectome) -> VoxelwiseFit:
        """Fit the fODFs."""
        with torch.no_grad():
            fodf = model.fodf(self.dwi, self.mask)
        return VoxelwiseFit(model.deconvolution, self.dwi, fodf)

    def boxed(self, first: tuple[int, int, int], beyond: tuple[int, int, int]) -> Chain:
        """Keep a box of voxels, where it was."""
        box = tuple(slice(a, b) for a, b in zip(first, beyond, strict=True))
        vox2ras = self.vox2ras.clone()
        vox2ras[:3, 3] += vox2ras[:3, :3] @ torch.tensor(first, dtype=vox2ras.dtype)
        images = {name: getattr(self, name)[box] for name in ("dwi", "mask", "parcellation")}
        return replace(self, vox2ras=vox2ras, **images)


def part_of_a_head(folder: Path) -> Chain:
    """Simulate a head, and keep a part of one hemisphere."""
    whole = Chain.simulated(folder, voxel_size_mm=5.0, t1w_voxel_size_mm=4.0, n_directions=48)
    return whole.boxed((21, 14, 14), (32, 24, 28))
