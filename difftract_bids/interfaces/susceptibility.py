"""Susceptibility distortion as a displacement along the phase-encoding axis."""

from __future__ import annotations

from pathlib import Path

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from difftract_bids.interfaces.threads import ThreadedSpec, limited_threads

_DIRECTIONS = ("i", "i-", "j", "j-", "k", "k-")


class EstimateSusceptibilityFromT1wInputSpec(ThreadedSpec):
    """Inputs of :class:`EstimateSusceptibilityFromT1w`."""

    dwiref = File(exists=True, mandatory=True, desc="Mean b=0 image.")
    mask = File(exists=True, mandatory=True, desc="Brain mask on its grid.")
    t1w = File(exists=True, mandatory=True, desc="T1w image, with or without skull.")
    pe_direction = traits.Enum(*_DIRECTIONS, mandatory=True, desc="PhaseEncodingDirection.")


class EstimateSusceptibilityFromT1wOutputSpec(TraitedSpec):
    """Outputs of :class:`EstimateSusceptibilityFromT1w`."""

    displacement = File(desc="Displacement along the phase-encoding voxel axis, mm.")
    notes = traits.List(traits.Str, desc="What the user should know.")


class EstimateSusceptibilityFromT1w(SimpleInterface):
    """Register a b=0 image to the T1w along the phase-encoding axis.

    Examples
    --------
    >>> from difftract_bids.interfaces.susceptibility import EstimateSusceptibilityFromT1w
    >>> estimate = EstimateSusceptibilityFromT1w(
    ...     dwiref="dwiref.nii.gz", mask="mask.nii.gz", t1w="T1w.nii.gz", pe_direction="j-"
    ... )
    >>> sorted(estimate.output_spec().get())
    ['displacement', 'notes']
    >>> found = estimate.run().outputs  # seconds  # doctest: +SKIP
    """

    input_spec = EstimateSusceptibilityFromT1wInputSpec
    output_spec = EstimateSusceptibilityFromT1wOutputSpec

    def _run_interface(self, runtime):
        import numpy as np

        from difftract_bids.io.images import load_volume, save_volume
        from difftract_bids.preprocessing.susceptibility import estimate_from_t1w

        dwiref = load_volume(self.inputs.dwiref, ndim=3)
        mask = load_volume(self.inputs.mask, ndim=3).data > 0
        # Sums of other numbers of threads differ in their last digits: one thread is enough.
        with limited_threads(1):
            field = estimate_from_t1w(
                dwiref, mask, load_volume(self.inputs.t1w, ndim=3), self.inputs.pe_direction[0]
            )
        path = save_volume(field, dwiref.vox2ras, Path(runtime.cwd) / "displacement.nii.gz")
        inside = np.abs(field[mask])
        self._results["displacement"] = str(path)
        self._results["notes"] = [
            (
                f"The displacement of the brain found from the T1w is up to {inside.max():.1f} mm "
                f"(median {np.median(inside):.1f} mm); a fieldmap would tell it more surely."
            )
        ]
        return runtime


class FieldToDisplacementInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`FieldToDisplacement`."""

    field = File(exists=True, mandatory=True, desc="Off-resonance field, Hz.")
    dwiref = File(exists=True, mandatory=True, desc="An image with the axes of the run.")
    pe_direction = traits.Enum(*_DIRECTIONS, mandatory=True, desc="PhaseEncodingDirection.")
    readout_s = traits.Float(mandatory=True, desc="Total readout time. Unit: s.")


class FieldToDisplacementOutputSpec(TraitedSpec):
    """Outputs of :class:`FieldToDisplacement`."""

    displacement = File(desc="Displacement along the phase-encoding voxel axis, mm.")


class FieldToDisplacement(SimpleInterface):
    """Turn a field in Hz, as topup writes it, into a displacement on the grid of the run.

    Examples
    --------
    >>> import nibabel
    >>> from difftract_bids.interfaces.susceptibility import FieldToDisplacement
    >>> convert = FieldToDisplacement(
    ...     field="field_hz.nii.gz", dwiref="dwiref.nii.gz", pe_direction="j-", readout_s=0.05
    ... )
    >>> shift_mm = nibabel.load(convert.run().outputs.displacement).get_fdata()
    >>> f"{shift_mm.min():g}"  # 10 Hz for 0.05 s are half a voxel of 6 mm
    '-3'
    """

    input_spec, output_spec = FieldToDisplacementInputSpec, FieldToDisplacementOutputSpec

    def _run_interface(self, runtime):
        import nibabel as nib

        from difftract_bids.io.fsl_storage import restored
        from difftract_bids.io.images import load_volume, save_volume
        from difftract_bids.preprocessing.susceptibility import displacement_from_field

        vox2ras = nib.load(self.inputs.dwiref).affine
        # Signs are of the run's own axes: the field is brought back from FSL's storage first.
        field = restored(load_volume(self.inputs.field, ndim=3), vox2ras)
        direction = self.inputs.pe_direction
        shift = displacement_from_field(
            field.data,
            -1 if direction.endswith("-") else 1,
            self.inputs.readout_s,
            float(field.voxel_sizes_mm["ijk".index(direction[0])]),
        )
        path = save_volume(shift, vox2ras, Path(runtime.cwd) / "displacement.nii.gz")
        self._results["displacement"] = str(path)
        return runtime


class UndistortMaskInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`UndistortMask`."""

    mask = File(exists=True, mandatory=True, desc="Brain mask of distorted images.")
    displacement = File(exists=True, mandatory=True, desc="Of FieldToDisplacement, same grid.")
    pe_direction = traits.Enum(*_DIRECTIONS, mandatory=True, desc="PhaseEncodingDirection.")


class UndistortMaskOutputSpec(TraitedSpec):
    """Outputs of :class:`UndistortMask`."""

    mask = File(desc="Where the brain is without the distortion, uint8.")


class UndistortMask(SimpleInterface):
    """Undo the distortion of a mask: eddy, told of a field, wants it where the brain really is.

    Examples
    --------
    >>> from difftract_bids.interfaces.susceptibility import UndistortMask
    >>> undo = UndistortMask(
    ...     mask="epi_mask.nii.gz", displacement="displacement.nii.gz", pe_direction="j-"
    ... )
    >>> undo.run().outputs.mask
    '/.../mask.nii.gz'
    """

    input_spec, output_spec = UndistortMaskInputSpec, UndistortMaskOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.io.images import load_volume, save_volume
        from difftract_bids.preprocessing.susceptibility import undistort_mask

        mask = load_volume(self.inputs.mask, ndim=3)
        axis = self.inputs.pe_direction[0]
        straight = undistort_mask(
            mask.data > 0,
            load_volume(self.inputs.displacement, ndim=3).data,
            axis,
            float(mask.voxel_sizes_mm["ijk".index(axis)]),
        )
        path = save_volume(straight, mask.vox2ras, Path(runtime.cwd) / "mask.nii.gz")
        self._results["mask"] = str(path)
        return runtime
