"""Response functions: estimated from a run, or read from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, isdefined, traits

from difftract_bids.config import FodfConfig
from difftract_bids.errors import UsageError, told
from difftract_bids.interfaces.diffusion import DiffusionSpec, load_diffusion
from difftract_bids.interfaces.settings import settings_of, settings_spec
from difftract_bids.interfaces.threads import limited_threads

_Settings: Any = settings_spec(
    FodfConfig,
    without=(
        *("response", "constraint_directions", "normalise_tissues"),
        *("input_fodf", "fodf_model_file", "fodf_model_class"),
    ),
)


class EstimateResponseInputSpec(DiffusionSpec, _Settings):
    """Inputs of :class:`EstimateResponse`."""


class EstimateResponseOutputSpec(TraitedSpec):
    """Outputs of :class:`EstimateResponse`."""

    response_wm = File(desc="White matter: zonal coefficients, a row a shell, MRtrix's format.")
    response_gm = File(desc="The same of grey matter, for models that have it.")
    response_csf = File(desc="The same of cerebrospinal fluid, for models that have it.")
    notes = traits.List(traits.Str, desc="What a user should know about the estimate.")


class EstimateResponse(SimpleInterface):
    """Estimate the signal of each tissue of a model: of a single bundle, grey matter, CSF.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.interfaces.response import EstimateResponse
    >>> series = {"dwi": "dwi.nii.gz", "bval": "dwi.bval", "bvec": "dwi.bvec"}
    >>> estimate = EstimateResponse(**series, mask="mask.nii.gz", response_algorithm="fa")
    >>> response = estimate.run().outputs.response_wm
    >>> Path(response).read_text().splitlines()[0]
    '# Shells: 0,2000'
    """

    input_spec, output_spec = EstimateResponseInputSpec, EstimateResponseOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.bids.fodf_model import choose_model
        from difftract_bids.modelling.response import write_response

        dwi, gradients, mask = load_diffusion(self.inputs)
        config = settings_of(self.inputs, FodfConfig)
        model = choose_model(gradients, config)
        notes: list[str] = []
        with limited_threads(self.inputs.num_threads), told(notes):
            responses = _estimated(dwi.data, gradients, mask, config, model)
        for tissue, response in responses.items():
            path = Path(runtime.cwd) / f"{tissue}_response.txt"
            write_response(response, path)
            self._results[f"response_{tissue.lower()}"] = str(path)
        self._results["notes"] = notes
        return runtime


def _estimated(dwi, gradients, mask, config, model):
    from difftract_bids.modelling.fodf import response_lmax
    from difftract_bids.modelling.response import estimate_response, estimate_tissue_responses

    algorithm = config.algorithm_of(model.name)
    if algorithm == "dhollander":
        if model.name != "msmtcsd":
            dwi, gradients = one_shell(dwi, gradients)
        found = estimate_tissue_responses(dwi, gradients, mask, response_lmax(config.lmax))
        return {tissue: found[tissue] for tissue in model.tissues}
    lmax = response_lmax(config.lmax)
    return {"WM": estimate_response(dwi, gradients, mask, lmax, algorithm=algorithm)}


def one_shell(dwi: Any, gradients: Any) -> tuple[Any, Any]:
    """Take b=0 and the shell that is deconvolved, for models that use no other."""
    from difftract_bids.io.gradients import GradientTable, deconvolution_shell

    kept = gradients.b0_mask | deconvolution_shell(gradients)[1]
    if kept.all():
        return dwi, gradients
    bvals, bvecs = gradients.bvals_s_mm2[kept], gradients.bvecs[kept]
    return dwi[..., kept], GradientTable(bvals, bvecs, gradients.b0_threshold_s_mm2)


def read_responses(inputs: Any, tissues: tuple[str, ...], gradients: Any) -> dict[str, Any]:
    """Read ``response_wm``, ``response_gm`` and ``response_csf``, as far as a model has them.

    Parameters
    ----------
    inputs
        Of an interface.
    tissues
        Those of the model.
    gradients
        Table of the run. A file that does not tell its b-values has one row for the shell that is
        deconvolved, or one for each shell, b=0 included.

    Raises
    ------
    UsageError
        If one is not given.
    InputError
        If a file is not a response.
    """
    from difftract_bids.io.gradients import deconvolution_shell
    from difftract_bids.modelling.response import read_response

    responses = {}
    for tissue in tissues:
        path = getattr(inputs, f"response_{tissue.lower()}")
        if not isdefined(path):
            raise UsageError(
                f"The model needs a response of {tissue}.",
                where=f"response_{tissue.lower()}",
                remedy="Connect it, or choose a model of other tissues.",
            )
        bvals = [mean for mean, _ in gradients.shells()]
        if _n_rows(path) == 1:
            bvals = [deconvolution_shell(gradients)[0]]
        responses[tissue] = read_response(path, bvals_s_mm2=bvals)
    return responses


def _n_rows(path: str) -> int:
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return sum(1 for line in lines if line.strip() and not line.lstrip().startswith("#"))
