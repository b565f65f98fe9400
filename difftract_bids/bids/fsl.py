"""Which of FSL's programs are on the PATH."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from difftract_bids.bids.phase_encoding import PhaseEncoding
from difftract_bids.config import PreprocessingConfig
from difftract_bids.errors import UsageError

#: Names that eddy has had on CPUs, the newest first; the last one chooses by itself.
_CPU_NAMES = ("eddy_cpu", "eddy_openmp", "eddy")


def has_topup() -> bool:
    """Say whether topup is on the PATH."""
    return shutil.which("topup") is not None


def find_eddy() -> str | None:
    """Name the eddy that is on the PATH, one for GPUs (``eddy_cuda10.2``) first, if any is.

    FSL's installer brings those for GPUs along to every machine: they count where NVIDIA's driver
    is installed, as ``nvidia-smi`` on the PATH shows.
    """
    folders = [Path(folder) for folder in os.get_exec_path()]
    has_gpu = shutil.which("nvidia-smi") is not None
    cuda = {path.name for folder in folders for path in folder.glob("eddy_cuda*") if has_gpu}
    names = (*sorted(cuda, key=_version, reverse=True), *_CPU_NAMES)
    return next((name for name in names if shutil.which(name)), None)


def _version(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


def check_path(folder: Path) -> None:
    """Check that FSL's programs can work in a folder: Nipype gives its path to a shell as it is.

    Parameters
    ----------
    folder
        Folder for intermediate files.

    Raises
    ------
    UsageError
        If its path holds a blank or what means something to a shell.
    """
    if not re.fullmatch(r"[\w/.,:=@+-]*", str(folder)):
        raise UsageError(
            "FSL's programs cannot be run below a path with blanks or signs of a shell.",
            where=folder,
            remedy="Give another --work-dir, or leave FSL out (--motion-correction dipy, "
            "--susceptibility-correction none).",
        )


def require_eddy(
    config: PreprocessingConfig, encoding: PhaseEncoding | None, where: object = None
) -> None:
    """Check, before anything starts, that eddy can be used if it is asked for.

    Parameters
    ----------
    config
        Settings of this stage.
    encoding
        Phase encoding of the run.
    where
        What an error names.

    Raises
    ------
    UsageError
        If eddy is not on the PATH, or the phase encoding is unknown or along the third axis.
    """
    if config.motion_correction != "eddy":
        return
    if find_eddy() is None:
        raise UsageError(
            "FSL's eddy was asked for and is not on the PATH.",
            where="--motion-correction eddy",
            remedy="Install FSL and put its bin folder on the PATH, or use --motion-correction "
            "dipy.",
        )
    if encoding is None or encoding.axis == "k":
        found = "unknown" if encoding is None else encoding.direction
        raise UsageError(
            f"eddy needs phase encoding along i or j; that of the run is {found}.",
            where=where,
            remedy="Write PhaseEncodingDirection into the sidecar, or use --motion-correction "
            "dipy.",
        )
