"""Gradient tables: one form, and whether they fit their image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, traits

from difftract_bids.config import PreprocessingConfig
from difftract_bids.interfaces.diffusion import load_series
from difftract_bids.interfaces.settings import settings_of, settings_spec
from difftract_bids.interfaces.threads import ThreadedSpec, limited_threads

_Settings: Any = settings_spec(PreprocessingConfig)


class ConformGradientsInputSpec(_Settings):
    """Inputs of :class:`ConformGradients`."""

    dwi = File(exists=True, mandatory=True, desc="Diffusion image that the table belongs to.")
    bval = File(exists=True, mandatory=True, desc="b-values, s/mm².")
    bvec = File(exists=True, mandatory=True, desc="b-vectors, FSL's convention.")
    whole = traits.Bool(
        default_value=True,
        usedefault=True,
        desc="Whether it is a series; a part of one may lack b=0 volumes or directions.",
    )


class ConformGradientsOutputSpec(TraitedSpec):
    """Outputs of :class:`ConformGradients`."""

    bval = File(desc="b-values, one row.")
    bvec = File(desc="b-vectors of unit length (zero where b=0), three rows, FSL's convention.")


class ConformGradients(SimpleInterface):
    """Check a gradient table and write it in one form: rows, unit vectors.

    Examples
    --------
    >>> import numpy
    >>> from difftract_bids.interfaces.gradients import ConformGradients
    >>> conform = ConformGradients(dwi="raw.nii.gz", bval="raw.bval", bvec="raw.bvec")
    >>> numpy.loadtxt(conform.run().outputs.bvec).shape
    (3, 32)
    """

    input_spec, output_spec = ConformGradientsInputSpec, ConformGradientsOutputSpec

    def _run_interface(self, runtime):
        import nibabel as nib

        from difftract_bids.io.gradients import read_gradients, write_gradients

        image = nib.load(self.inputs.dwi)
        gradients = read_gradients(
            self.inputs.bval,
            self.inputs.bvec,
            image.affine,
            n_volumes=image.shape[3],
            b0_threshold_s_mm2=settings_of(self.inputs, PreprocessingConfig).b0_threshold_s_mm2,
            whole=self.inputs.whole,
        )
        stem = Path(runtime.cwd) / "gradients"
        bval, bvec = write_gradients(gradients, image.affine, stem)
        self._results.update(bval=str(bval), bvec=str(bvec))
        return runtime


class CheckGradientsInputSpec(ThreadedSpec, _Settings):
    """Inputs of :class:`CheckGradients`."""

    dwi = File(exists=True, mandatory=True, desc="Diffusion image that the table belongs to.")
    bval = File(exists=True, mandatory=True, desc="b-values, s/mm².")
    bvec = File(exists=True, mandatory=True, desc="b-vectors, FSL's convention.")


class CheckGradientsOutputSpec(TraitedSpec):
    """Outputs of :class:`CheckGradients`."""

    bval = File(desc="b-values, as given.")
    bvec = File(desc="b-vectors, mended if that was wanted and beyond doubt.")
    notes = traits.List(traits.Str, desc="What is wrong with the axes, and what was done.")
    table = File(desc="Coherence of fibres under each of the 24 changes of axes (TSV).")


class CheckGradients(SimpleInterface):
    """Find flipped or permuted b-vectors, and mend them with ``fix_gradients``.

    Examples
    --------
    >>> from difftract_bids.interfaces.gradients import CheckGradients
    >>> check = CheckGradients(dwi="raw.nii.gz", bval="raw.bval", bvec="raw.bvec")
    >>> checked = check.run().outputs
    >>> checked.notes  # nothing is wrong
    []
    >>> checked.table
    '/.../gradient_check.tsv'
    """

    input_spec, output_spec = CheckGradientsInputSpec, CheckGradientsOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.io.gradients import write_gradients
        from difftract_bids.preprocessing.gradient_check import (
            changed,
            check_gradients,
            describe_check,
            write_scores,
        )

        (dwi, vox2ras), gradients = load_series(self.inputs)
        with limited_threads(self.inputs.num_threads):
            check = check_gradients(dwi, gradients, vox2ras)
        folder, bvec = Path(runtime.cwd), self.inputs.bvec
        mend = self.inputs.fix_gradients and check.is_wrong
        if mend:
            gradients = changed(gradients, check.best, vox2ras)
            _, bvec = write_gradients(gradients, vox2ras, folder / "mended")
        self._results.update(
            bval=self.inputs.bval,
            bvec=str(bvec),
            notes=describe_check(check, mended=mend),
            table=str(write_scores(check, folder / "gradient_check.tsv")),
        )
        return runtime
