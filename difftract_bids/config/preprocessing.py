"""What happens to the diffusion images before any model is fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from difftract_bids.validation import Validated, setting

DenoiseMethod = Literal["mppca", "patch2self", "none"]
UnringingMethod = Literal["auto", "subvoxel", "none"]
MotionCorrection = Literal["dipy", "eddy", "none"]
SusceptibilityCorrection = Literal["auto", "topup", "t1w", "none"]
BiasCorrection = Literal["n4", "none"]


@dataclass(frozen=True)
class PreprocessingConfig(Validated):
    """What happens to the diffusion images before any model is fitted."""

    combine_runs: bool = setting(
        default=False,
        desc="Make one series of all runs of a session that share grid and phase encoding.",
    )
    denoise_method: DenoiseMethod = setting(
        "mppca", "Denoising: Marchenko-Pastur PCA, Patch2Self, or none."
    )
    unringing_method: UnringingMethod = setting(
        "auto",
        "Gibbs unringing: by subvoxel shifts, not at all, or only where the sidecar says that "
        "k-space was sampled fully and the image is not interpolated.",
    )
    fix_gradients: bool = setting(
        default=False, desc="Mend flipped or permuted b-vectors, instead of warning of them."
    )
    motion_correction: MotionCorrection = setting(
        "dipy",
        "Head motion and eddy currents: registration to predicted volumes, FSL's eddy, or none.",
    )
    susceptibility_correction: SusceptibilityCorrection = setting(
        "auto",
        "Susceptibility distortion: by FSL's topup, by registration to the T1w along the "
        "phase-encoding axis, not at all, or by topup where it and opposed images are there.",
    )
    bias_correction: BiasCorrection = setting("n4", "Intensity bias: N4, or none.")
    output_resolution_mm: float | None = setting(
        None, "Isotropic voxel size that the images are brought to.", unit="mm"
    )
    b0_threshold_s_mm2: float = setting(
        50.0, "Volumes with a b-value up to this one count as b=0.", unit="s/mm²"
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self._require("b0_threshold_s_mm2", ok=self.b0_threshold_s_mm2 >= 0, rule="0 or more")
        size = self.output_resolution_mm
        self._require(
            "output_resolution_mm", ok=size is None or 0.3 <= size <= 10, rule="from 0.3 to 10"
        )
