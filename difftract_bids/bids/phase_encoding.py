"""Phase encoding and fieldmaps of a diffusion run, and what is done about its distortion."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
from nibabel.filebasedimages import ImageFileError

from difftract_bids.bids.filters import Filters
from difftract_bids.bids.inherited import companions, read_sidecars
from difftract_bids.bids.listing import names_in
from difftract_bids.bids.templates import entities_of
from difftract_bids.config import PreprocessingConfig
from difftract_bids.errors import InputError, UsageError
from difftract_bids.io.fsl_storage import misfit
from difftract_bids.io.gradients import read_bvals

AXES = "ijk"
#: Fieldmaps that are found and not used, by their suffix.
_OTHER_KINDS = ("phasediff", "phase1", "phase2", "fieldmap", "magnitude", "magnitude1")
_URI = re.compile(r"^bids:[^:]*:")


@dataclass(frozen=True)
class PhaseEncoding:
    """How an echo-planar image was encoded.

    Attributes
    ----------
    axis
        Voxel axis, ``i``, ``j`` or ``k``.
    sign
        1, or -1 where the direction was written with a minus.
    readout_s
        Total readout time, seconds; ``None`` where it is unknown.
    """

    axis: str
    sign: int
    readout_s: float | None = None

    @property
    def direction(self) -> str:
        """As BIDS writes it: ``j-``."""
        return self.axis + ("-" if self.sign < 0 else "")

    @property
    def index(self) -> int:
        """Which voxel axis: 0, 1 or 2."""
        return AXES.index(self.axis)

    def opposes(self, other: PhaseEncoding) -> bool:
        """Say whether the other one runs the other way along the same axis."""
        return self.axis == other.axis and self.sign == -other.sign

    def acqparams(self) -> str:
        """Write the row of topup's and eddy's table: a vector and the readout time, seconds.

        The vector is along the voxel axes as FSL holds images, the first one reversed where the
        affine has a positive determinant (https://fsl.fmrib.ox.ac.uk/fsl/docs, Orientation
        Explained). It is right as it stands only for images with a negative determinant: those
        that are given to FSL here are stored so.

        Raises
        ------
        InputError
            If the readout time is unknown.
        """
        if self.readout_s is None:
            raise InputError(
                "The readout time is unknown.",
                remedy="Write TotalReadoutTime (seconds) into the sidecar.",
            )
        vector = [self.sign if axis == self.axis else 0 for axis in AXES]
        return " ".join(map(str, vector)) + f" {self.readout_s:.8g}"


def read_phase_encoding(metadata: Mapping[str, Any], where: object) -> PhaseEncoding | None:
    """Read the phase encoding from the content of a sidecar; ``None`` where it is not told.

    The name of a file (``dir-AP``) is not looked at: it is free text, and often wrong.

    Parameters
    ----------
    metadata
        Content of the sidecar.
    where
        What an error names.

    Raises
    ------
    InputError
        If the direction or a time is none.
    """
    direction = metadata.get("PhaseEncodingDirection")
    if direction is None:
        return None
    if not (isinstance(direction, str) and re.fullmatch(r"[ijk]-?", direction)):
        raise InputError(
            f"PhaseEncodingDirection is {direction!r}: it must be i, i-, j, j-, k or k-.",
            where=where,
            remedy="Mend the sidecar: the letter is the voxel axis, not a direction of the body.",
        )
    sign = -1 if direction.endswith("-") else 1
    return PhaseEncoding(direction[0], sign, _readout_s(metadata, where))


def _readout_s(metadata: Mapping[str, Any], where: object) -> float | None:
    """TotalReadoutTime, else echo spacing times the echoes but one, as BIDS defines it."""
    if "TotalReadoutTime" in metadata:
        return _seconds("TotalReadoutTime", metadata["TotalReadoutTime"], where)
    spacing, lines = metadata.get("EffectiveEchoSpacing"), metadata.get("ReconMatrixPE")
    if spacing is None or lines is None:
        return None
    if not isinstance(lines, int) or lines < 2:
        raise InputError(
            f"ReconMatrixPE is {lines!r}: it must be a whole number above 1.",
            where=where,
            remedy="Mend the sidecar, or leave it out.",
        )
    return _seconds("EffectiveEchoSpacing", spacing, where) * (lines - 1)


def _seconds(name: str, value: object, where: object) -> float:
    if (
        not isinstance(value, (int, float))
        or isinstance(value, bool)
        or not (math.isfinite(value) and 0 < value < 1)
    ):
        raise InputError(
            f"{name} is {value!r}: it must be a time in seconds, between 0 and 1.",
            where=where,
            remedy="Mend the sidecar; scanners write milliseconds, BIDS wants seconds.",
        )
    return float(value)


def slice_direction(metadata: Mapping[str, Any]) -> str:
    """Give the voxel axis that slices follow one another along, as in BIDS; the third if not told.

    Parameters
    ----------
    metadata
        Content of the sidecar.
    """
    direction = metadata.get("SliceEncodingDirection")
    told = isinstance(direction, str) and re.fullmatch(r"[ijk]-?", direction)
    return str(direction) if told else "k"


@dataclass(frozen=True)
class OpposedImage:
    """An image whose distortion is opposite to that of a run.

    Attributes
    ----------
    image
        An ``_epi`` image, or another diffusion run of which the b=0 volumes count.
    phase_encoding
        How it was encoded.
    bval
        b-values of a diffusion run; ``None`` for an image all of whose volumes are b=0.
    """

    image: Path
    phase_encoding: PhaseEncoding
    bval: Path | None = None


@dataclass(frozen=True)
class Fieldmaps:
    """Fieldmaps of a run: those of use, the meant ones first, and why others are not used."""

    opposed: tuple[OpposedImage, ...] = ()
    unused: tuple[str, ...] = ()


def find_fieldmaps(
    root: Path,
    dwi: Path,
    metadata: Mapping[str, Any],
    b0_threshold_s_mm2: float = 50.0,
    *,
    parts: Sequence[Path] = (),
    filters: Filters | None = None,
) -> Fieldmaps:
    """Find images that tell of a diffusion run's distortion.

    In this order: ``fmap/*_epi`` tied to the run by B0FieldIdentifier and B0FieldSource, else by
    IntendedFor (BIDS URI, or relative to the participant); other diffusion runs of the session
    that are encoded the opposite way and have b=0 volumes. Both only on a grid like the run's.

    Parameters
    ----------
    root
        Folder of the dataset.
    dwi
        The run.
    metadata
        Content of its sidecars.
    b0_threshold_s_mm2
        Volumes up to this b-value count as b=0.
    parts
        Files of the run where it is made of several; a fieldmap may be meant for any.
    filters
        Which images count as inputs; all when ``None``.

    Raises
    ------
    InputError
        If a sidecar or a table of b-values cannot be read.
    """
    filters = filters or Filters()
    own = read_phase_encoding(metadata, dwi)
    opposed: list[OpposedImage] = []
    unused: list[str] = []
    tied = _tied_fieldmaps(root, parts or (dwi,), metadata)
    for path, content in tied:
        encoding = read_phase_encoding(content, path) if path.name.count("_epi.") else None
        left_out = "" if filters.keep("fmap", path) else "the filter file leaves it out"
        reason = left_out or _why_unused(path, encoding, own) or _misfit(path, dwi)
        if encoding is None or reason:
            unused.append(f"{path.name} was not used: {reason}.")
        else:
            opposed.append(OpposedImage(path, encoding))
    own_files = {dwi, *parts}
    for path in _images(dwi.parent, "dwi"):
        if path in own_files:
            continue
        encoding = read_phase_encoding(read_sidecars(root, path), path)
        if not (own and encoding and own.opposes(encoding)):
            continue
        bval = next(iter(companions(root, path, "bval")), None)
        left_out = "" if filters.keep("dwi", path) else "the filter file leaves it out"
        reason = left_out or _lacking_b0(path, bval, b0_threshold_s_mm2) or _misfit(path, dwi)
        if reason:
            unused.append(f"{path.name} was not used: {reason}.")
        else:
            opposed.append(OpposedImage(path, encoding, bval))
    return Fieldmaps(tuple(opposed), tuple(unused))


def _lacking_b0(path: Path, bval: Path | None, b0_threshold_s_mm2: float) -> str:
    """Say why a series gives no b=0 volume; a single volume without a table is taken for one."""
    if bval is not None:
        has_b0 = bool((read_bvals(bval) <= b0_threshold_s_mm2).any())
        return "" if has_b0 else "it has no b=0 volume"
    try:
        volumes = nib.load(path).shape[3:]
    except (OSError, EOFError, ValueError, ImageFileError) as error:
        return f"it cannot be read ({error})"
    return "" if volumes in {(), (1,)} else "it has several volumes and no b-values"


def _why_unused(path: Path, encoding: PhaseEncoding | None, own: PhaseEncoding | None) -> str:
    kind = path.name.split(".")[0].rsplit("_", maxsplit=1)[-1]
    if kind != "epi":
        return f"fieldmaps of the kind {kind} are not supported, only pairs of opposed images"
    if encoding is None:
        return "its sidecar has no PhaseEncodingDirection"
    if own is None:
        return "the phase-encoding direction of the diffusion run is unknown"
    if not own.opposes(encoding):
        return f"it is encoded along {encoding.direction}, the diffusion run along {own.direction}"
    return ""


def _misfit(path: Path, dwi: Path) -> str:
    try:
        image, other = nib.load(path), nib.load(dwi)
    except (OSError, EOFError, ValueError, ImageFileError) as error:
        return f"it cannot be compared with the diffusion image ({error})"
    return misfit(image.shape, image.affine, other.shape, other.affine)


def _tied_fieldmaps(
    root: Path, parts: Sequence[Path], metadata: Mapping[str, Any]
) -> list[tuple[Path, dict[str, Any]]]:
    """List the fieldmaps meant for a run: by the newer key if any has it, else by the older."""
    folder = parts[0].parent.parent / "fmap"
    found = []
    for suffix in ("epi", *_OTHER_KINDS):
        found += [(path, read_sidecars(root, path, suffix)) for path in _images(folder, suffix)]
    sources = set(_listed(metadata.get("B0FieldSource")))
    by_key = [(p, m) for p, m in found if sources & set(_listed(m.get("B0FieldIdentifier")))]
    return by_key or [(p, m) for p, m in found if any(_is_intended(m, root, dwi) for dwi in parts)]


def _images(folder: Path, suffix: str) -> list[Path]:
    """List the images in a folder with a suffix, without phase images."""
    endings = f"_{suffix}.nii.gz", f"_{suffix}.nii"
    paths = [folder / name for name in names_in(folder) if name.endswith(endings)]
    return [path for path in paths if entities_of(path).get("part", "mag") == "mag"]


def _is_intended(metadata: Mapping[str, Any], root: Path, dwi: Path) -> bool:
    relative = dwi.relative_to(root)
    names = {relative.as_posix(), Path(*relative.parts[1:]).as_posix()}
    return any(_URI.sub("", entry) in names for entry in _listed(metadata.get("IntendedFor")))


def _listed(value: object) -> list[str]:
    entries = value if isinstance(value, list) else [value]
    return [entry for entry in entries if isinstance(entry, str)]


@dataclass(frozen=True)
class Decision:
    """What is done about susceptibility distortion.

    Attributes
    ----------
    method
        By topup, by registration to the T1w, or not at all.
    reason
        A sentence for the report.
    """

    method: Literal["topup", "t1w", "none"]
    reason: str


#: Of a run that is not planned yet.
NO_CORRECTION = Decision("none", "")


def decide_correction(
    config: PreprocessingConfig,
    fieldmaps: Fieldmaps,
    encoding: PhaseEncoding | None,
    *,
    has_t1w: bool,
    fsl_present: bool,
    where: object = None,
) -> Decision:
    """Choose how a run's susceptibility distortion is corrected.

    Parameters
    ----------
    config
        Settings of this stage.
    fieldmaps, encoding
        What is known of the run.
    has_t1w
        Whether there is a T1w of the participant.
    fsl_present
        Whether topup is on the PATH.
    where
        What an error names.

    Raises
    ------
    UsageError
        If what is asked for explicitly cannot be done.
    """
    asked = config.susceptibility_correction
    if asked == "none":
        return Decision("none", "It was not asked for.")
    if asked == "t1w":
        _require_t1w(encoding, where, has_t1w=has_t1w)
        return Decision("t1w", "It was estimated by registration to the T1w, as asked for.")
    lacking, remedy = _lacking_for_topup(fieldmaps, encoding, fsl_present=fsl_present)
    if lacking and asked == "topup":
        raise UsageError(f"topup cannot be used: {lacking}.", where=where, remedy=remedy)
    if lacking:
        return Decision("none", f"topup cannot be used: {lacking}.")
    names = ", ".join(opposed.image.name for opposed in fieldmaps.opposed)
    return Decision("topup", f"It was estimated by topup with the opposed image(s) {names}.")


def _lacking_for_topup(
    fieldmaps: Fieldmaps, encoding: PhaseEncoding | None, *, fsl_present: bool
) -> tuple[str, str]:
    """Say what topup lacks and the remedy; empty if nothing."""
    if encoding is None:
        return (
            "the phase-encoding direction is unknown",
            "Write PhaseEncodingDirection into the sidecar of the diffusion image.",
        )
    if not fieldmaps.opposed:
        return (
            "there is no image encoded the opposite way",
            "Name this run in IntendedFor or B0FieldSource of an fmap/*_epi, or ask for t1w.",
        )
    if encoding.axis == "k":
        return "it takes no phase encoding along the third voxel axis", "Ask for t1w or none."
    if None in {encoding.readout_s, *(o.phase_encoding.readout_s for o in fieldmaps.opposed)}:
        return (
            "the readout time is unknown",
            "Write TotalReadoutTime (seconds) into the sidecars of all images concerned.",
        )
    if not fsl_present:
        return "it is not on the PATH", "Install FSL and put its bin folder on the PATH."
    return "", ""


def _require_t1w(encoding: PhaseEncoding | None, where: object, *, has_t1w: bool) -> None:
    if not has_t1w:
        raise UsageError(
            "Susceptibility correction by the T1w was asked for, and there is no T1w.",
            where=where,
            remedy="Add the T1w, or ask for topup or none.",
        )
    if encoding is None:
        raise UsageError(
            "Susceptibility correction by the T1w needs the phase-encoding direction.",
            where=where,
            remedy="Write PhaseEncodingDirection into the sidecar of the diffusion image.",
        )


def say_uncorrected(decision: Decision, fieldmaps: Fieldmaps) -> str:
    """Say plainly that distortion is left in, and why; empty where it was corrected."""
    if decision.method != "none":
        return ""
    unused = "".join(f" {note}" for note in fieldmaps.unused)
    return (
        "Susceptibility distortion was NOT corrected: near the frontal sinus and the ear canals "
        "the images are displaced by up to several millimetres along the phase-encoding axis. "
        f"{decision.reason}{unused}"
    )
