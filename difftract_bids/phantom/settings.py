"""What a phantom dataset holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from difftract_bids.errors import UsageError


@dataclass(frozen=True)
class PhantomConfig:
    """Settings of a phantom dataset.

    Attributes
    ----------
    n_subjects, n_sessions, n_runs
        How many of each; no sessions, or one run, leave the entity out of the names.
    snr
        White matter at b=0 over the noise of a channel; infinite for none. The T1w has twice it.
    voxel_size_mm, t1w_voxel_size_mm
        Isotropic voxel sizes.
    shells_s_mm2, n_directions, n_b0
        Scheme, unless ``bval`` and ``bvec`` give one.
    bval, bvec
        Scheme to use instead, FSL's files for this grid.
    weight_sd
        Standard deviation of the log edge weights between subjects.
    pose_sd_mm, pose_sd_deg
        Spread of the head's position between subjects and sessions.
    motion_sd_mm, motion_sd_deg
        Spread of the head's position between volumes.
    flip
        Axes of the FSL b-vectors written with the wrong sign, as in "x" or "xz".
    permute
        Which component of the FSL b-vectors is written first, second and third, before the signs:
        "yxz" swaps the first two.
    bias
        Strength of the receive coils' field in the diffusion images; 0 for none.
    distortion_mm
        Largest displacement of the diffusion images by susceptibility; 0 for none.
    phase_encoding
        Their phase-encoding direction, BIDS' i, i-, j, j-, k or k-.
    axes, oblique_deg
        Orientation of the diffusion images' grid.
    seed
        Seed of everything that is drawn.
    field_of_view_mm
        Extent of the images along x, y and z.
    """

    n_subjects: int = 1
    n_sessions: int = 0
    n_runs: int = 1
    snr: float = 30.0
    voxel_size_mm: float = 3.0
    t1w_voxel_size_mm: float = 1.5
    shells_s_mm2: tuple[float, ...] = (1000.0,)
    n_directions: int = 64
    n_b0: int = 6
    bval: Path | None = None
    bvec: Path | None = None
    weight_sd: float = 0.2
    pose_sd_mm: float = 2.0
    pose_sd_deg: float = 3.0
    motion_sd_mm: float = 0.0
    motion_sd_deg: float = 0.0
    flip: str = ""
    permute: str = "xyz"
    bias: float = 0.0
    distortion_mm: float = 0.0
    phase_encoding: str = "j-"
    axes: str = "LAS"
    oblique_deg: float = 5.0
    seed: int = 0
    field_of_view_mm: tuple[float, float, float] = (186.0, 219.0, 171.0)

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises
        ------
        UsageError
            If a setting is outside its range.
        """
        rules = (
            ("n_subjects", self.n_subjects >= 1, "at least 1"),
            ("n_sessions", self.n_sessions >= 0, "0 or more"),
            ("n_runs", self.n_runs >= 1, "at least 1"),
            ("snr", self.snr > 0, "above 0"),
            ("voxel_size_mm", 0.5 <= self.voxel_size_mm <= 6, "from 0.5 to 6"),
            ("t1w_voxel_size_mm", 0.5 <= self.t1w_voxel_size_mm <= 6, "from 0.5 to 6"),
            ("weight_sd", 0 <= self.weight_sd <= 1, "from 0 to 1"),
            ("pose_sd_mm", 0 <= self.pose_sd_mm <= 5, "from 0 to 5"),
            ("pose_sd_deg", 0 <= self.pose_sd_deg <= 10, "from 0 to 10"),
            ("motion_sd_mm", 0 <= self.motion_sd_mm <= 20, "from 0 to 20"),
            ("motion_sd_deg", 0 <= self.motion_sd_deg <= 20, "from 0 to 20"),
            ("flip", set(self.flip) <= set("xyz"), "made of the letters x, y and z"),
            (
                "permute",
                sorted(self.permute) == ["x", "y", "z"],
                "the letters x, y, z in any order",
            ),
            ("bias", 0 <= self.bias <= 1, "from 0 to 1"),
            ("distortion_mm", 0 <= self.distortion_mm <= 12, "from 0 to 12"),
            (
                "phase_encoding",
                self.phase_encoding in {"i", "i-", "j", "j-", "k", "k-"},
                "i, j or k, with a minus sign or without",
            ),
            ("seed", self.seed >= 0, "0 or more"),
            ("bvec", (self.bval is None) == (self.bvec is None), "given together with bval"),
        )
        for name, ok, rule in rules:
            if not ok:
                raise UsageError(
                    f"{name} is {getattr(self, name)!r}, but it must be {rule}.",
                    where=f"--{name.replace('_', '-')}",
                    remedy=f"Give a value that is {rule}, or leave it out for the default.",
                )

    @property
    def sessions(self) -> list[str]:
        """Labels of the sessions; one empty label for none."""
        return [f"{index:02d}" for index in range(1, self.n_sessions + 1)] or [""]

    @property
    def runs(self) -> list[str]:
        """Labels of the runs; one empty label for a single one."""
        return [str(index) for index in range(1, self.n_runs + 1)] if self.n_runs > 1 else [""]
