"""Head motion of one diffusion run, its confounds, and the one resampling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from difftract_bids.interfaces.threads import ThreadedSpec, limited_threads

#: Framewise displacement above this is worth a word.
_MUCH_MM = 2.0
_AXIS_DIRECTIONS = ("i", "i-", "j", "j-", "k", "k-")


class _SeriesInputSpec(BaseInterfaceInputSpec):
    dwi = File(exists=True, mandatory=True, desc="Diffusion image, not interpolated.")
    bval = File(exists=True, mandatory=True, desc="b-values, s/mm².")
    bvec = File(exists=True, mandatory=True, desc="b-vectors, FSL's convention.")
    b0_threshold_s_mm2 = traits.Float(50.0, usedefault=True, desc="Largest b-value of b=0, s/mm².")


class EstimateHeadMotionInputSpec(ThreadedSpec, _SeriesInputSpec):
    """Inputs of :class:`EstimateHeadMotion`."""

    mask = File(exists=True, desc="Rough brain mask at the first b=0 volume; made if not given.")
    pe_direction = traits.Enum(
        *_AXIS_DIRECTIONS, desc="Phase encoding as in BIDS; judged by the images if not given."
    )


class EstimateHeadMotionOutputSpec(TraitedSpec):
    """Outputs of :class:`EstimateHeadMotion`."""

    affines = File(desc="Reference position to each volume, RAS+ mm: 12 numbers a row.")
    rigid = File(desc="The same without distortion by eddy currents: movement of the head.")
    bval = File(desc="b-values, s/mm².")
    bvec = File(desc="b-vectors turned into the reference position, FSL's convention.")
    mask = File(desc="Rough brain mask in the reference position.")
    notes = traits.List(traits.Str, desc="What the user should know.")


class EstimateHeadMotion(SimpleInterface):
    """Align every volume to what the others predict of it.

    Examples
    --------
    >>> from difftract_bids.interfaces.motion import EstimateHeadMotion
    >>> estimate = EstimateHeadMotion(
    ...     dwi="raw.nii.gz", bval="raw.bval", bvec="raw.bvec", pe_direction="j-", num_threads=4
    ... )
    >>> sorted(estimate.output_spec().get())
    ['affines', 'bval', 'bvec', 'mask', 'notes', 'rigid']
    >>> found = estimate.run().outputs  # minutes  # doctest: +SKIP
    """

    input_spec, output_spec = EstimateHeadMotionInputSpec, EstimateHeadMotionOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.io.gradients import write_gradients
        from difftract_bids.io.images import save_volume
        from difftract_bids.preprocessing.confounds import write_affines
        from difftract_bids.preprocessing.motion import estimate_head_motion

        image, data, gradients = _load_series(self.inputs)
        mask = _mask_of(self.inputs, image, data, gradients)
        with limited_threads(self.inputs.num_threads):
            found = estimate_head_motion(
                data,
                image.affine,
                gradients,
                mask,
                pe_axis=_axis_of(self.inputs.pe_direction),
                num_threads=self.inputs.num_threads,
            )
        folder = Path(runtime.cwd)
        bval, bvec = write_gradients(found.gradients, image.affine, folder / "rotated")
        self._results.update(
            affines=str(write_affines(folder / "affines.txt", found.affines)),
            rigid=str(write_affines(folder / "rigid.txt", found.rigid)),
            bval=str(bval),
            bvec=str(bvec),
            mask=str(save_volume(mask, image.affine, folder / "mask.nii.gz")),
            notes=[
                *_eddy_notes(self.inputs.pe_direction, found.pe_axis),
                *_motion_notes(found.rigid, mask, image.affine),
            ],
        )
        return runtime


class ResampleDWIInputSpec(ThreadedSpec):
    """Inputs of :class:`ResampleDWI`."""

    dwi = File(exists=True, mandatory=True, desc="Diffusion image, not interpolated yet.")
    affines = File(exists=True, desc="Reference position to each volume, RAS+ mm.")
    displacement = File(
        exists=True, requires=["pe_direction"], desc="Susceptibility distortion, mm, same grid."
    )
    pe_direction = traits.Enum(*_AXIS_DIRECTIONS, desc="Phase encoding as in BIDS.")
    output_resolution_mm = traits.Union(
        None, traits.Float(), usedefault=True, desc="Isotropic voxel size of the result, mm."
    )


class ResampleDWIOutputSpec(TraitedSpec):
    """Outputs of :class:`ResampleDWI`."""

    dwi = File(desc="Diffusion image in the reference position, float32.")


class ResampleDWI(SimpleInterface):
    """Apply motion, distortion and output voxel size in one interpolation.

    Examples
    --------
    >>> import nibabel
    >>> from difftract_bids.interfaces.motion import ResampleDWI
    >>> resample = ResampleDWI(dwi="raw.nii.gz", affines="affines.txt", output_resolution_mm=8.0)
    >>> nibabel.load(resample.run().outputs.dwi).shape
    (24, 27, 21, 32)
    """

    input_spec, output_spec = ResampleDWIInputSpec, ResampleDWIOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.io.images import load_volume, save_volume
        from difftract_bids.preprocessing.confounds import read_affines
        from difftract_bids.preprocessing.resampling import (
            Displacement,
            Grid,
            isotropic_grid,
            resample_series,
        )

        image, data = _open_series(self.inputs.dwi)
        size_mm, given = self.inputs.output_resolution_mm, self.inputs.displacement
        grid = Grid(tuple(image.shape[:3]), image.affine)
        if size_mm is not None:
            grid = isotropic_grid(image.shape, image.affine, size_mm)
        affines = self.inputs.affines
        displacement = None
        if isdefined(given):
            along_mm = load_volume(given, ndim=3).data
            displacement = Displacement(along_mm, _axis_of(self.inputs.pe_direction))
        resampled = resample_series(
            data,
            image.affine,
            read_affines(affines) if isdefined(affines) else None,
            grid,
            displacement=displacement,
            num_threads=self.inputs.num_threads,
        )
        path = save_volume(resampled, grid.vox2ras, Path(runtime.cwd) / "dwi.nii.gz")
        self._results["dwi"] = str(path)
        return runtime


class FlagOutliersInputSpec(ThreadedSpec, _SeriesInputSpec):
    """Inputs of :class:`FlagOutliers`."""

    affines = File(exists=True, desc="Reference position to each volume, RAS+ mm.")
    mask = File(exists=True, desc="Rough brain mask in the reference position; made if not given.")
    slice_direction = traits.Enum(
        *_AXIS_DIRECTIONS[4:],
        *_AXIS_DIRECTIONS[:4],
        usedefault=True,
        desc="SliceEncodingDirection as in BIDS.",
    )


class FlagOutliersOutputSpec(TraitedSpec):
    """Outputs of :class:`FlagOutliers`."""

    outliers = File(desc="Table of flags: a row a slice, a column a volume.")
    notes = traits.List(traits.Str, desc="What the user should know.")


class FlagOutliers(SimpleInterface):
    """Find slices whose signal fell out; b-vectors must be those of the reference position.

    Examples
    --------
    >>> from difftract_bids.interfaces.motion import FlagOutliers
    >>> series = {"dwi": "dwi.nii.gz", "bval": "dwi.bval", "bvec": "dwi.bvec"}
    >>> flagged = FlagOutliers(**series, mask="mask.nii.gz").run().outputs
    >>> flagged.outliers
    '/.../outliers.tsv'
    >>> flagged.notes  # no slice lost signal
    []
    """

    input_spec, output_spec = FlagOutliersInputSpec, FlagOutliersOutputSpec

    def _run_interface(self, runtime):
        import numpy as np

        from difftract_bids.preprocessing.confounds import read_affines, write_outliers
        from difftract_bids.preprocessing.outliers import find_outlier_slices

        image, data, gradients = _load_series(self.inputs)
        still = np.tile(np.eye(4)[:3], (image.shape[3], 1, 1))
        affines = read_affines(self.inputs.affines) if isdefined(self.inputs.affines) else still
        with limited_threads(self.inputs.num_threads):
            outliers, _ = find_outlier_slices(
                data,
                image.affine,
                affines,
                gradients,
                _mask_of(self.inputs, image, data, gradients),
                slice_axis=_axis_of(self.inputs.slice_direction),
                num_threads=self.inputs.num_threads,
            )
        self._results["outliers"] = str(
            write_outliers(Path(runtime.cwd) / "outliers.tsv", outliers)
        )
        self._results["notes"] = _outlier_notes(outliers)
        return runtime


class WriteConfoundsInputSpec(_SeriesInputSpec):
    """Inputs of :class:`WriteConfounds`."""

    rigid = File(exists=True, desc="Movement of the head, 12 numbers a row; none if not given.")
    outliers = File(exists=True, desc="Flagged slices.")
    mask = File(exists=True, desc="Brain mask; its centre is what translations are of.")


class WriteConfoundsOutputSpec(TraitedSpec):
    """Outputs of :class:`WriteConfounds`."""

    confounds = File(desc="Table, a row a volume.")


class WriteConfounds(SimpleInterface):
    r"""Write motion parameters, framewise displacement, gradients and outliers of each volume.

    Examples
    --------
    >>> import pandas
    >>> from difftract_bids.interfaces.motion import WriteConfounds
    >>> series = {"dwi": "dwi.nii.gz", "bval": "dwi.bval", "bvec": "dwi.bvec"}
    >>> write = WriteConfounds(**series, rigid="rigid.txt", outliers="outliers.tsv")
    >>> confounds = pandas.read_csv(write.run().outputs.confounds, sep="\t")
    >>> float(confounds.framewise_displacement.max())
    0.5
    """

    input_spec, output_spec = WriteConfoundsInputSpec, WriteConfoundsOutputSpec

    def _run_interface(self, runtime):
        import numpy as np

        from difftract_bids.preprocessing.confounds import (
            motion_parameters,
            read_affines,
            read_outliers,
            write_confounds,
        )

        image, data, gradients = _load_series(self.inputs)
        given = self.inputs.rigid
        still = np.tile(np.eye(4)[:3], (image.shape[3], 1, 1))
        mask = _mask_of(self.inputs, image, data, gradients)
        path = write_confounds(
            Path(runtime.cwd) / "confounds.tsv",
            motion_parameters(
                read_affines(given) if isdefined(given) else still, _centre(mask, image.affine)
            ),
            gradients,
            read_outliers(self.inputs.outliers) if isdefined(self.inputs.outliers) else None,
        )
        self._results["confounds"] = str(path)
        return runtime


def _open_series(path: str) -> tuple[Any, Any]:
    """Open a series; its volumes stay on disk where the file is not compressed."""
    import nibabel as nib
    import numpy as np

    from difftract_bids.io.images import readable_image

    with readable_image(path):
        image = nib.load(path)
        proxy = image.dataobj
        if (proxy.slope, proxy.inter) != (1, 0):  # scaled integers become float64 otherwise
            return image, proxy.get_scaled(np.float32)
        return image, np.asanyarray(proxy)


def _load_series(inputs: Any) -> tuple[Any, Any, Any]:
    from difftract_bids.io.gradients import read_gradients

    image, data = _open_series(inputs.dwi)
    gradients = read_gradients(
        inputs.bval,
        inputs.bvec,
        image.affine,
        n_volumes=image.shape[3],
        b0_threshold_s_mm2=inputs.b0_threshold_s_mm2,
    )
    return image, data, gradients


def _mask_of(inputs: Any, image: Any, data: Any, gradients: Any) -> Any:
    """Load the mask that was given, or find the brain in the first b=0 volume."""
    import numpy as np

    from difftract_bids.io.images import load_volume
    from difftract_bids.preprocessing.mask import brain_mask

    if isdefined(inputs.mask):
        return load_volume(inputs.mask, ndim=3).data > 0
    first = int(np.flatnonzero(gradients.b0_mask)[0])
    voxel_sizes_mm = np.linalg.norm(image.affine[:3, :3], axis=0)
    return brain_mask(np.asarray(data[..., first], np.float32), voxel_sizes_mm)


def _axis_of(direction: Any) -> Any:
    return "ijk".index(direction[0]) if isdefined(direction) else None


def _centre(mask: Any, vox2ras: Any) -> Any:
    import numpy as np

    return vox2ras[:3, :3] @ np.argwhere(mask).mean(axis=0) + vox2ras[:3, 3]


def _eddy_notes(pe_direction: Any, found_axis: int | None) -> list[str]:
    if isdefined(pe_direction) or found_axis is None:
        return []
    axis = "ijk"[found_axis]
    return [
        (
            f"The volumes are distorted along their voxel axis {axis}, as eddy currents do along "
            "the phase-encoding axis, which is not given: this was corrected. Put "
            f"PhaseEncodingDirection ({axis} or {axis}-) into the sidecar."
        )
    ]


def _motion_notes(rigid: Any, mask: Any, vox2ras: Any) -> list[str]:
    import numpy as np

    from difftract_bids.preprocessing.confounds import framewise_displacement, motion_parameters

    moved = framewise_displacement(motion_parameters(rigid, _centre(mask, vox2ras)))[1:]
    much = int((moved > _MUCH_MM).sum())
    if not much:
        return []
    return [
        (
            f"Framewise displacement (the sum of six changes) is above {_MUCH_MM:g} mm {much} "
            f"time(s), {np.max(moved):.1f} mm at most: look at the figure of the motion."
        )
    ]


def _outlier_notes(outliers: Any) -> list[str]:
    n_slices, n_volumes = int(outliers.sum()), int(outliers.any(axis=0).sum())
    if not n_slices:
        return []
    return [
        (
            f"{n_slices} slices in {n_volumes} volumes have lost signal: they are listed in the "
            "confounds, and neither replaced nor left out."
        )
    ]
