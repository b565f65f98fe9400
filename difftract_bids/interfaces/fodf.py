"""Fibre orientation distributions of one diffusion run, and their normalisation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, isdefined, traits

from difftract_bids.config import FittedModel, FodfConfig
from difftract_bids.errors import told
from difftract_bids.interfaces.diffusion import DiffusionSpec, load_diffusion
from difftract_bids.interfaces.response import read_responses
from difftract_bids.interfaces.settings import settings_of, settings_spec
from difftract_bids.interfaces.threads import ThreadedSpec, limited_threads

_Settings: Any = settings_spec(
    FodfConfig,
    without=(
        *("response", "response_algorithm", "normalise_tissues"),
        *("input_fodf", "fodf_model_file", "fodf_model_class"),
    ),
)
#: Traits of each tissue's image and sidecar.
TISSUE_FIELDS = {"WM": "fodf", "GM": "fodf_gm", "CSF": "fodf_csf"}


class FitFODFInputSpec(DiffusionSpec, _Settings):
    """Inputs of :class:`FitFODF`."""

    model_reason = traits.Str(desc="Why it is this model, if it was chosen before.")
    response_wm = File(exists=True, mandatory=True, desc="White matter, MRtrix's text format.")
    response_gm = File(exists=True, desc="Grey matter, for models that have it.")
    response_csf = File(exists=True, desc="Cerebrospinal fluid, for models that have it.")


class _TissuesOutputSpec(TraitedSpec):
    fodf = File(
        desc="White matter: SH coefficients (x, y, z, coeff), MRtrix's basis, scanner axes."
    )
    fodf_gm = File(desc="Grey matter (x, y, z, 1), of models that have it.")
    fodf_csf = File(desc="Cerebrospinal fluid (x, y, z, 1), of models that have it.")
    fodf_metadata = traits.Dict(desc="Content of the sidecar of white matter.")
    fodf_gm_metadata = traits.Dict(desc="Content of the sidecar of grey matter.")
    fodf_csf_metadata = traits.Dict(desc="Content of the sidecar of cerebrospinal fluid.")
    notes = traits.List(traits.Str, desc="What a user should know.")


class FitFODFOutputSpec(_TissuesOutputSpec):
    """Outputs of :class:`FitFODF`."""


class FitFODF(SimpleInterface):
    """Estimate fibre orientation distributions by constrained spherical deconvolution.

    Examples
    --------
    >>> import nibabel
    >>> from difftract_bids.interfaces.fodf import FitFODF
    >>> series = {"dwi": "dwi.nii.gz", "bval": "dwi.bval", "bvec": "dwi.bvec"}
    >>> fit = FitFODF(**series, mask="mask.nii.gz", model="csd", response_wm="response.txt")
    >>> found = fit.run().outputs
    >>> nibabel.load(found.fodf).shape
    (31, 36, 28, 45)
    >>> found.fodf_metadata["FODFModel"]
    'csd'
    """

    input_spec, output_spec = FitFODFInputSpec, FitFODFOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.bids.fodf_model import choose_model
        from difftract_bids.io.images import save_volume
        from difftract_bids.modelling.fodf import fit

        dwi, gradients, mask = load_diffusion(self.inputs)
        config = settings_of(self.inputs, FodfConfig)
        model = choose_model(gradients, config)
        if isdefined(self.inputs.model_reason):
            model = replace(model, reason=self.inputs.model_reason)
        responses = read_responses(self.inputs, model.tissues, gradients)
        directions = _directions(config)
        with limited_threads(self.inputs.num_threads):
            fitted = fit(
                dwi.data,
                gradients,
                responses,
                mask,
                model=cast("FittedModel", model.name),
                lmax=config.lmax,
                directions=directions,
            )
        for tissue, sh_coeffs in fitted.sh_coeffs.items():
            field = TISSUE_FIELDS[tissue]
            path = save_volume(sh_coeffs, dwi.vox2ras, Path(runtime.cwd) / f"{field}.nii.gz")
            self._results[field] = str(path)
            self._results[f"{field}_metadata"] = _metadata(
                tissue, model, fitted, responses[tissue], directions
            )
        self._results["notes"] = [*fitted.notes, *_left_out(fitted.left_out, mask.sum())]
        return runtime


class NormaliseTissuesInputSpec(ThreadedSpec):
    """Inputs of :class:`NormaliseTissues`."""

    fodf = File(exists=True, mandatory=True, desc="White matter, SH coefficients.")
    fodf_gm = File(exists=True, desc="Grey matter, if the model has it.")
    fodf_csf = File(exists=True, mandatory=True, desc="Cerebrospinal fluid.")
    fodf_metadata = traits.Dict(desc="Sidecar of white matter.")
    fodf_gm_metadata = traits.Dict(desc="Sidecar of grey matter.")
    fodf_csf_metadata = traits.Dict(desc="Sidecar of cerebrospinal fluid.")
    mask = File(exists=True, mandatory=True, desc="Brain mask, same grid.")


class NormaliseTissuesOutputSpec(_TissuesOutputSpec):
    """Outputs of :class:`NormaliseTissues`."""

    field = File(desc="What the tissues were divided by, one value a voxel.")


class NormaliseTissues(SimpleInterface):
    """Bring the tissues of a multi-tissue model to a common intensity.

    Examples
    --------
    >>> from difftract_bids.interfaces.fodf import NormaliseTissues
    >>> normalise = NormaliseTissues(
    ...     fodf="wmfod.nii.gz", fodf_csf="csffod.nii.gz", mask="mask.nii.gz"
    ... )
    >>> normalised = normalise.run().outputs
    >>> normalised.fodf, normalised.fodf_csf, normalised.field
    ('/.../fodf.nii.gz', '/.../fodf_csf.nii.gz', '/.../field.nii.gz')
    """

    input_spec, output_spec = NormaliseTissuesInputSpec, NormaliseTissuesOutputSpec

    def _run_interface(self, runtime):
        import numpy as np

        from difftract_bids.bids.fodf_sidecars import normalisation_metadata
        from difftract_bids.io.images import load_volume, save_volume
        from difftract_bids.modelling.normalise import apply_normalisation, normalise_tissues

        mask = load_volume(self.inputs.mask, ndim=3).data > 0
        paths = {tissue: getattr(self.inputs, name) for tissue, name in TISSUE_FIELDS.items()}
        images = {
            tissue: load_volume(path, ndim=4) for tissue, path in paths.items() if isdefined(path)
        }
        tissues = {tissue: image.data for tissue, image in images.items()}
        notes: list[str] = []
        with limited_threads(self.inputs.num_threads), told(notes):
            found = normalise_tissues(tissues, mask)
            normalised = apply_normalisation(tissues, found)
        low, high = np.percentile(found.field[mask], (1, 99))
        said = normalisation_metadata(
            balance=found.balance, reference=found.reference, field_range=(low, high)
        )
        vox2ras = images["WM"].vox2ras
        for tissue, sh_coeffs in normalised.items():
            field = TISSUE_FIELDS[tissue]
            path = save_volume(sh_coeffs, vox2ras, Path(runtime.cwd) / f"{field}.nii.gz")
            self._results[field] = str(path)
            before = getattr(self.inputs, f"{field}_metadata")
            self._results[f"{field}_metadata"] = (before if isdefined(before) else {}) | said
        path = save_volume(
            found.field.astype(np.float32), vox2ras, Path(runtime.cwd) / "field.nii.gz"
        )
        self._results["field"], self._results["notes"] = str(path), notes
        return runtime


def _directions(config):
    """Read the directions of the constraint, if they are given."""
    from difftract_bids.io.directions import read_directions

    path = config.constraint_directions
    return None if path is None else read_directions(path)


def _metadata(tissue, model, fitted, response, directions):
    from difftract_bids.bids.fodf_sidecars import fodf_metadata
    from difftract_bids.core.deconvolution import constraint_directions

    return fodf_metadata(
        tissue,
        model=model.name,
        reason=model.reason,
        lmax=fitted.lmax if tissue == "WM" else 0,
        response=response.coefficients.tolist(),
        shells_s_mm2=response.bvals_s_mm2,
        left_out=fitted.left_out,
        n_constraint_directions=len(constraint_directions() if directions is None else directions),
    )


def _left_out(left_out, n_mask):
    total = sum(left_out.values())
    if not total:
        return []
    reasons = ", ".join(f"{reason}: {n:,}" for reason, n in left_out.items() if n)
    share = 100 * total / max(int(n_mask), 1)
    return [f"{total:,} voxels of the mask ({share:.2g}%) have no fODF ({reasons})."]
