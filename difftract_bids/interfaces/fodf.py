"""Tensors, response functions and fibre orientation distributions of one diffusion run."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, traits

from difftract_bids.config import FodfConfig
from difftract_bids.interfaces.settings import settings_spec
from difftract_bids.interfaces.threads import ThreadedSpec, limited_threads

_Settings: Any = settings_spec(FodfConfig)


class DiffusionSpec(ThreadedSpec):
    """Inputs that every model of the diffusion signal has."""

    dwi = File(exists=True, mandatory=True, desc="Preprocessed diffusion image.")
    bval = File(exists=True, mandatory=True, desc="b-values, s/mm².")
    bvec = File(exists=True, mandatory=True, desc="b-vectors, FSL's convention.")
    mask = File(exists=True, mandatory=True, desc="Brain mask.")
    b0_threshold_s_mm2 = traits.Float(
        50.0, usedefault=True, desc="Volumes with a b-value up to this one count as b=0."
    )


def load_diffusion(inputs: Any) -> tuple[Any, Any, Any]:
    """Load what :class:`DiffusionSpec` names.

    Returns
    -------
    Volume, GradientTable, ndarray
        The diffusion image, its gradient table in scanner axes, and the mask (x, y, z), boolean.
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
    return dwi, gradients, load_volume(inputs.mask, ndim=3).data > 0


class FitTensorOutputSpec(TraitedSpec):
    """Outputs of :class:`FitTensor`."""

    fa = File(desc="Fractional anisotropy.")
    md = File(desc="Mean diffusivity, mm²/s.")
    v1 = File(desc="Principal eigenvector (x, y, z, 3), scanner axes.")


class FitTensor(SimpleInterface):
    """Fit diffusion tensors by weighted least squares."""

    input_spec, output_spec = DiffusionSpec, FitTensorOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.io.images import save_volume
        from difftract_bids.modelling.tensor import fit_tensor

        dwi, gradients, mask = load_diffusion(self.inputs)
        with limited_threads(self.inputs.num_threads):
            maps = fit_tensor(dwi.data, gradients, mask)
        for name, data in (("fa", maps.fa), ("md", maps.md_mm2_s), ("v1", maps.v1)):
            path = save_volume(data, dwi.vox2ras, Path(runtime.cwd) / f"{name}.nii.gz")
            self._results[name] = str(path)
        return runtime


class EstimateResponseInputSpec(DiffusionSpec, _Settings):
    """Inputs of :class:`EstimateResponse`."""


class EstimateResponseOutputSpec(TraitedSpec):
    """Outputs of :class:`EstimateResponse`."""

    response = File(desc="Zonal coefficients, a row a shell, MRtrix's text format.")
    notes = traits.List(traits.Str, desc="What a user should know about the estimate.")


class EstimateResponse(SimpleInterface):
    """Estimate the signal of a single fibre population."""

    input_spec, output_spec = EstimateResponseInputSpec, EstimateResponseOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.modelling.fodf import choose_lmax
        from difftract_bids.modelling.response import estimate_response

        dwi, gradients, mask = load_diffusion(self.inputs)
        lmax = choose_lmax(gradients, self.inputs.lmax)
        with (
            limited_threads(self.inputs.num_threads),
            warnings.catch_warnings(record=True) as said,
        ):
            warnings.simplefilter("always", UserWarning)
            response = estimate_response(dwi.data, gradients, mask, lmax)
        path = Path(runtime.cwd) / "response.txt"
        path.write_text(response.to_text(), encoding="utf-8")
        self._results["response"] = str(path)
        self._results["notes"] = [
            str(warning.message) for warning in said if warning.category is UserWarning
        ]
        return runtime


class FitFODFInputSpec(DiffusionSpec, _Settings):
    """Inputs of :class:`FitFODF`."""

    response = File(exists=True, mandatory=True, desc="Response function, MRtrix's text format.")


class FitFODFOutputSpec(TraitedSpec):
    """Outputs of :class:`FitFODF`."""

    fodf = File(desc="SH coefficients (x, y, z, coeff), MRtrix's basis, scanner axes.")
    metadata = traits.Dict(desc="Content of the sidecar.")


class FitFODF(SimpleInterface):
    """Estimate fibre orientation distributions by constrained spherical deconvolution."""

    input_spec, output_spec = FitFODFInputSpec, FitFODFOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.bids.sidecars import fodf_metadata
        from difftract_bids.io.images import save_volume
        from difftract_bids.modelling.fodf import choose_lmax, fit_fodf
        from difftract_bids.modelling.response import Response

        dwi, gradients, mask = load_diffusion(self.inputs)
        response = Response.from_text(Path(self.inputs.response).read_text(encoding="utf-8"))
        lmax = choose_lmax(gradients, self.inputs.lmax)
        with limited_threads(self.inputs.num_threads):
            fodf = fit_fodf(dwi.data, gradients, response, mask, lmax)
        path = save_volume(fodf, dwi.vox2ras, Path(runtime.cwd) / "fodf.nii.gz")
        self._results["fodf"] = str(path)
        self._results["metadata"] = fodf_metadata(lmax, response.coefficients.tolist())
        return runtime
