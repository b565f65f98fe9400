"""FSL's topup and eddy: preparing what they read, and collecting what they write.

The programs themselves are called through Nipype's own interfaces.
"""

from __future__ import annotations

import re
from pathlib import Path

from nipype.interfaces import fsl
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    InputMultiPath,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)
from nipype.interfaces.fsl.epi import EddyInputSpec

_DIRECTIONS = ("i", "i-", "j", "j-")
#: More b=0 volumes of a direction hardly tell topup more, and cost as much each.
_B0_PER_DIRECTION = 3
#: What eddy is told where the time is unknown: without a field it scales what is not used.
_USUAL_READOUT_S = 0.05


class PrepareTopupInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PrepareTopup`."""

    dwi = File(exists=True, mandatory=True, desc="Diffusion image to be corrected.")
    bval = File(exists=True, mandatory=True, desc="b-values, s/mm².")
    pe_direction = traits.Enum(*_DIRECTIONS, mandatory=True, desc="PhaseEncodingDirection.")
    readout_s = traits.Float(mandatory=True, desc="Total readout time. Unit: s.")
    opposed = InputMultiPath(File(exists=True), mandatory=True, desc="Images encoded otherwise.")
    opposed_bvals = traits.List(
        traits.Str, mandatory=True, desc="Their b-values; empty where all volumes are b=0."
    )
    opposed_directions = traits.List(
        traits.Enum(*_DIRECTIONS), mandatory=True, desc="Their PhaseEncodingDirection."
    )
    opposed_readouts_s = traits.List(
        traits.Float, mandatory=True, desc="Their total readout times. Unit: s."
    )
    b0_threshold_s_mm2 = traits.Float(
        50.0, usedefault=True, desc="Volumes up to this b-value count as b=0. Unit: s/mm²."
    )


class PrepareTopupOutputSpec(TraitedSpec):
    """Outputs of :class:`PrepareTopup`."""

    in_file = File(desc="b=0 volumes, those of the run first.")
    encoding_file = File(desc="A row for each volume: phase-encoding vector, readout time (s).")
    config = traits.Str(desc="Name of topup's configuration for images of this size.")


class PrepareTopup(SimpleInterface):
    """Put the b=0 volumes of both directions together, stored as FSL holds images.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.interfaces.fsl import PrepareTopup
    >>> prepare = PrepareTopup(
    ...     dwi="raw.nii.gz",
    ...     bval="raw.bval",
    ...     pe_direction="j-",
    ...     readout_s=0.05,
    ...     opposed=["epi.nii.gz"],
    ...     opposed_bvals=[""],  # all of it is b=0
    ...     opposed_directions=["j"],
    ...     opposed_readouts_s=[0.05],
    ... )
    >>> prepared = prepare.run().outputs
    >>> Path(prepared.encoding_file).read_text().splitlines()
    ['0 -1 0 0.05', '0 -1 0 0.05', '0 1 0 0.05']
    >>> prepared.config
    'b02b0_1.cnf'
    """

    input_spec, output_spec = PrepareTopupInputSpec, PrepareTopupOutputSpec

    def _run_interface(self, runtime):
        import numpy as np

        from difftract_bids.bids.phase_encoding import PhaseEncoding
        from difftract_bids.errors import InputError
        from difftract_bids.io.fsl_storage import misfit, signed_direction, stored_for_fsl
        from difftract_bids.io.images import load_volume, save_volume

        inputs = self.inputs
        images = [inputs.dwi, *inputs.opposed]
        bvals = [inputs.bval, *inputs.opposed_bvals]
        directions = [inputs.pe_direction, *inputs.opposed_directions]
        readouts = [inputs.readout_s, *inputs.opposed_readouts_s]
        stacks, rows = [], []
        own = stored_for_fsl(load_volume(inputs.dwi))
        for image, bval, direction, readout_s in zip(
            images, bvals, directions, readouts, strict=True
        ):
            volume = _b0_volumes(load_volume(image), bval, inputs.b0_threshold_s_mm2)
            stored = stored_for_fsl(volume)
            reason = misfit(stored.data.shape, stored.vox2ras, own.data.shape, own.vox2ras)
            if not reason and not stored.data.shape[3]:
                reason = "it has no b=0 volume"
            if reason:
                raise InputError(
                    f"The image does not go with the diffusion image, {reason}: topup needs the "
                    "same grid, and b=0.",
                    where=image,
                    remedy="Leave the fieldmap out, or use --susceptibility-correction t1w.",
                )
            stacks.append(stored.data)
            along = signed_direction(direction, volume.vox2ras)
            sign = -1 if along.endswith("-") else 1
            row = PhaseEncoding(along[0], sign, readout_s).acqparams()
            rows += [row] * stored.data.shape[3]
        folder = Path(runtime.cwd)
        merged = np.concatenate(stacks, axis=3)
        self._results["in_file"] = str(
            save_volume(merged, own.vox2ras, folder / "opposed_b0.nii.gz")
        )
        self._results["encoding_file"] = _written(folder / "acqparams.txt", rows)
        self._results["config"] = topup_config(merged.shape[:3])
        return runtime


def topup_config(shape: tuple[int, ...]) -> str:
    """Name topup's configuration: the usual one halves images, which odd sizes do not allow.

    https://fsl.fmrib.ox.ac.uk/fsl/docs, topup, configuration files.
    """
    return "b02b0_1.cnf" if any(size % 2 for size in shape) else "b02b0.cnf"


def _b0_volumes(volume, bval, threshold_s_mm2):
    from difftract_bids.io.gradients import read_bvals
    from difftract_bids.io.images import Volume

    data = volume.data if volume.data.ndim == 4 else volume.data[..., None]
    if bval:
        data = data[..., read_bvals(bval) <= threshold_s_mm2]
    return Volume(data[..., :_B0_PER_DIRECTION], volume.vox2ras)


def _written(path, rows) -> str:
    path.write_text("\n".join(rows) + "\n", encoding="ascii")
    return str(path)


class PrepareEddyInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PrepareEddy`."""

    dwi = File(exists=True, mandatory=True, desc="Diffusion image.")
    bval = File(exists=True, mandatory=True, desc="b-values, s/mm².")
    bvec = File(exists=True, mandatory=True, desc="b-vectors, FSL's convention.")
    mask = File(exists=True, mandatory=True, desc="Brain mask on the same grid.")
    pe_direction = traits.Enum(*_DIRECTIONS, mandatory=True, desc="PhaseEncodingDirection.")
    readout_s = traits.Float(desc="Total readout time. Unit: s.")
    encoding_file = File(exists=True, desc="topup's table, if it was run.")
    b0_threshold_s_mm2 = traits.Float(
        50.0, usedefault=True, desc="Volumes up to this b-value count as b=0. Unit: s/mm²."
    )


class PrepareEddyOutputSpec(TraitedSpec):
    """Outputs of :class:`PrepareEddy`."""

    in_file = File(desc="The image as FSL holds it.")
    in_mask = File(desc="The mask as FSL holds it.")
    in_bval = File(desc="b-values, one row.")
    in_bvec = File(desc="b-vectors along the axes of that image.")
    in_acqp = File(desc="Table of phase encodings; the first row is that of the image.")
    in_index = File(desc="Row of each volume in that table.")
    notes = traits.List(traits.Str, desc="What the user should know.")


class PrepareEddy(SimpleInterface):
    r"""Store a series as FSL holds images, and write the tables that eddy reads.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.interfaces.fsl import PrepareEddy
    >>> series = {"dwi": "raw.nii.gz", "bval": "raw.bval", "bvec": "raw.bvec"}
    >>> prepare = PrepareEddy(**series, mask="mask.nii.gz", pe_direction="j-", readout_s=0.05)
    >>> prepared = prepare.run().outputs
    >>> Path(prepared.in_acqp).read_text()
    '0 -1 0 0.05\n'
    """

    input_spec, output_spec = PrepareEddyInputSpec, PrepareEddyOutputSpec

    def _run_interface(self, runtime):
        import numpy as np

        from difftract_bids.bids.phase_encoding import PhaseEncoding
        from difftract_bids.io.fsl_storage import signed_direction, stored_for_fsl
        from difftract_bids.io.gradients import read_gradients, write_gradients
        from difftract_bids.io.images import load_volume, save_volume

        folder = Path(runtime.cwd)
        dwi = load_volume(self.inputs.dwi, ndim=4)
        stored = stored_for_fsl(dwi)
        mask = stored_for_fsl(load_volume(self.inputs.mask, ndim=3, dtype=np.uint8))
        table = read_gradients(
            self.inputs.bval,
            self.inputs.bvec,
            dwi.vox2ras,
            b0_threshold_s_mm2=self.inputs.b0_threshold_s_mm2,
        )
        bval, bvec = write_gradients(table, stored.vox2ras, folder / "eddy_in")
        readout_s = self.inputs.readout_s if isdefined(self.inputs.readout_s) else None
        along = signed_direction(self.inputs.pe_direction, dwi.vox2ras)
        sign = -1 if along.endswith("-") else 1
        acqp = self.inputs.encoding_file
        if not isdefined(acqp):
            row = PhaseEncoding(along[0], sign, readout_s or _USUAL_READOUT_S).acqparams()
            acqp = _written(folder / "acqparams.txt", [row])
        self._results.update(
            in_file=str(save_volume(stored.data, stored.vox2ras, folder / "eddy_in.nii.gz")),
            in_mask=str(save_volume(mask.data, mask.vox2ras, folder / "eddy_mask.nii.gz")),
            in_bval=str(bval),
            in_bvec=str(bvec),
            in_acqp=acqp,
            in_index=_written(folder / "index.txt", [" ".join(["1"] * dwi.data.shape[3])]),
            notes=[] if readout_s else ["The readout time is unknown: eddy was told 0.05 s."],
        )
        return runtime


class _EddyInputSpec(EddyInputSpec):
    program = traits.Str(
        "eddy_openmp", usedefault=True, nohash=True, desc="Name of the program on the PATH."
    )


class Eddy(fsl.Eddy):
    """Nipype's eddy, by whichever of its names it is on the PATH.

    Examples
    --------
    The command line; ``run()`` needs FSL.

    >>> from difftract_bids.interfaces.fsl import Eddy
    >>> eddy = Eddy(
    ...     program="eddy_cpu",
    ...     in_file="eddy_in.nii.gz",
    ...     in_mask="eddy_mask.nii.gz",
    ...     in_bval="eddy_in.bval",
    ...     in_bvec="eddy_in.bvec",
    ...     in_acqp="acqparams.txt",
    ...     in_index="index.txt",
    ...     repol=True,
    ...     num_threads=4,
    ... )
    >>> eddy.cmdline.split()[0], eddy.cmdline.split()[-1]
    ('eddy_cpu', '--nthr=4')
    """

    input_spec = _EddyInputSpec

    @property
    def cmd(self):
        """Name of the program."""
        return self.inputs.program

    def _run_interface(self, runtime):
        # Nipype's own would look for another name under FSLDIR.
        return super(fsl.Eddy, self)._run_interface(runtime)

    def _parse_inputs(self, skip=None):
        arguments = super()._parse_inputs(skip=skip)
        if self.inputs.program == "eddy_cpu":  # it does not read OMP_NUM_THREADS
            option = "nthr"  # eddy's own, not one of ours
            arguments.append(f"--{option}={self.inputs.num_threads}")
        return arguments


class CollectEddyInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`CollectEddy`."""

    corrected = File(exists=True, mandatory=True, desc="eddy's image.")
    rotated_bvecs = File(exists=True, mandatory=True, desc="eddy's b-vectors.")
    eddy_parameters = File(exists=True, mandatory=True, desc="eddy's parameters.")
    outlier_report = File(exists=True, desc="eddy's report of outlier slices.")
    bval = File(exists=True, mandatory=True, desc="b-values, s/mm².")
    dwi = File(exists=True, mandatory=True, desc="The image as it was before eddy.")
    b0_threshold_s_mm2 = traits.Float(
        50.0, usedefault=True, desc="Volumes up to this b-value count as b=0. Unit: s/mm²."
    )


class CollectEddyOutputSpec(TraitedSpec):
    """Outputs of :class:`CollectEddy`."""

    dwi = File(desc="Corrected image, stored as it was before.")
    bval = File(desc="b-values, one row.")
    bvec = File(desc="Rotated b-vectors, FSL's convention.")
    affines = File(desc="Rigid part, a row of 3x4 numbers a volume, RAS+ mm, fixed to moving.")
    outliers = File(desc="Table of flags: a row a slice, a column a volume.")
    notes = traits.List(traits.Str, desc="What the user should know.")


class CollectEddy(SimpleInterface):
    """Bring eddy's image and tables back to the axes and the forms that we use.

    Examples
    --------
    >>> import numpy
    >>> from difftract_bids.interfaces.fsl import CollectEddy
    >>> collect = CollectEddy(
    ...     corrected="eddy_corrected.nii.gz",
    ...     rotated_bvecs="eddy_corrected.eddy_rotated_bvecs",
    ...     eddy_parameters="eddy_corrected.eddy_parameters",
    ...     bval="raw.bval",
    ...     dwi="raw.nii.gz",
    ... )
    >>> collected = collect.run().outputs
    >>> numpy.loadtxt(collected.affines).shape  # a row a volume
    (32, 12)
    """

    input_spec, output_spec = CollectEddyInputSpec, CollectEddyOutputSpec

    def _run_interface(self, runtime):
        import nibabel as nib
        import numpy as np

        from difftract_bids.io.fsl_storage import eddy_affines, read_eddy_motion, restored
        from difftract_bids.io.gradients import read_gradients, write_gradients
        from difftract_bids.io.images import load_volume, save_volume
        from difftract_bids.preprocessing.confounds import write_outliers

        folder, original = Path(runtime.cwd), nib.load(self.inputs.dwi)
        corrected = load_volume(self.inputs.corrected, ndim=4)
        table = read_gradients(
            self.inputs.bval,
            self.inputs.rotated_bvecs,
            corrected.vox2ras,
            b0_threshold_s_mm2=self.inputs.b0_threshold_s_mm2,
        )
        bval, bvec = write_gradients(table, original.affine, folder / "dwi")
        # The splines of eddy's interpolation leave values below 0.
        data = np.maximum(restored(corrected, original.affine).data, 0)
        movement = read_eddy_motion(self.inputs.eddy_parameters)
        affines = eddy_affines(movement, corrected.data.shape[:3], corrected.vox2ras)
        np.savetxt(folder / "affines.txt", affines.reshape(-1, 12), fmt="%.9g")
        outliers = self._outliers()
        flags = np.zeros(corrected.data.shape[2:], dtype=bool)
        for volume, part in outliers:
            flags[part, volume] = True
        replaced = f"eddy replaced {len(outliers)} outlier slice(s) by their prediction."
        self._results.update(
            dwi=str(save_volume(data, original.affine, folder / "dwi.nii.gz")),
            bval=str(bval),
            bvec=str(bvec),
            affines=str(folder / "affines.txt"),
            outliers=str(write_outliers(folder / "outliers.tsv", flags)),
            notes=[replaced] if outliers else [],
        )
        return runtime

    def _outliers(self) -> list[tuple[int, int]]:
        if not isdefined(self.inputs.outlier_report):
            return []
        text = Path(self.inputs.outlier_report).read_text(encoding="utf-8")
        found = re.findall(r"Slice (\d+) in scan (\d+) is an outlier", text)
        return [(int(scan), int(part)) for part, scan in found]
