"""What every model of the diffusion signal takes in, and the simplest one: the tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, traits

from difftract_bids.interfaces.threads import ThreadedSpec, limited_threads


class SeriesSpec(ThreadedSpec):
    """A diffusion series with its gradient table."""

    dwi = File(exists=True, mandatory=True, desc="Preprocessed diffusion image.")
    bval = File(exists=True, mandatory=True, desc="b-values, s/mm².")
    bvec = File(exists=True, mandatory=True, desc="b-vectors, FSL's convention.")
    b0_threshold_s_mm2 = traits.Float(
        50.0, usedefault=True, desc="Volumes with a b-value up to this one count as b=0."
    )


class DiffusionSpec(SeriesSpec):
    """Inputs that every model of the diffusion signal has."""

    mask = File(exists=True, mandatory=True, desc="Brain mask.")


def load_series(inputs: Any) -> tuple[Any, Any]:
    """Load what :class:`SeriesSpec` names.

    Returns
    -------
    Volume, GradientTable
        The diffusion image, and its gradient table in scanner axes.
    """
    from difftract_bids.io.gradients import read_gradients
    from difftract_bids.io.images import load_volume

    dwi = load_volume(inputs.dwi, ndim=4)
    gradients = read_gradients(
        inputs.bval,
        inputs.bvec,
        dwi.vox2ras,
        n_volumes=dwi.data.shape[3],
        b0_threshold_s_mm2=inputs.b0_threshold_s_mm2,
    )
    return dwi, gradients


def load_diffusion(inputs: Any) -> tuple[Any, Any, Any]:
    """Load what :class:`DiffusionSpec` names.

    Returns
    -------
    Volume, GradientTable, ndarray
        The diffusion image, its gradient table in scanner axes, and the mask (x, y, z), boolean.
    """
    from difftract_bids.io.images import load_volume

    return *load_series(inputs), load_volume(inputs.mask, ndim=3).data > 0


class FitTensorOutputSpec(TraitedSpec):
    """Outputs of :class:`FitTensor`."""

    fa = File(desc="Fractional anisotropy.")
    md = File(desc="Mean diffusivity, mm²/s.")
    v1 = File(desc="Principal eigenvector (x, y, z, 3), scanner axes.")
    colour_fa = File(desc="Fractional anisotropy coloured by direction (x, y, z, 3), 0 to 1.")


class FitTensor(SimpleInterface):
    """Fit diffusion tensors by weighted least squares.

    Examples
    --------
    >>> import nibabel
    >>> from difftract_bids.interfaces.diffusion import FitTensor
    >>> fit = FitTensor(dwi="dwi.nii.gz", bval="dwi.bval", bvec="dwi.bvec", mask="mask.nii.gz")
    >>> maps = fit.run().outputs
    >>> maps.fa
    '/.../fa.nii.gz'
    >>> nibabel.load(maps.v1).shape
    (31, 36, 28, 3)
    """

    input_spec, output_spec = DiffusionSpec, FitTensorOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.io.images import save_volume
        from difftract_bids.modelling.fodf_maps import colour_fa
        from difftract_bids.modelling.tensor import fit_tensor

        dwi, gradients, mask = load_diffusion(self.inputs)
        with limited_threads(self.inputs.num_threads):
            maps = fit_tensor(dwi.data, gradients, mask)
        images = {
            "fa": maps.fa,
            "md": maps.md_mm2_s,
            "v1": maps.v1,
            "colour_fa": colour_fa(maps.fa, maps.v1),
        }
        for name, data in images.items():
            path = save_volume(data, dwi.vox2ras, Path(runtime.cwd) / f"{name}.nii.gz")
            self._results[name] = str(path)
        return runtime
