"""fODFs that are adjusted to a connectome or a tractogram."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, isdefined, traits

from difftract_bids.config import (
    TISSUES,
    FittedModel,
    RefinementConfig,
    SeedingConfig,
    TrackingConfig,
)
from difftract_bids.errors import told
from difftract_bids.interfaces.diffusion import SeriesSpec, load_series
from difftract_bids.interfaces.fodf import TISSUE_FIELDS
from difftract_bids.interfaces.response import read_responses
from difftract_bids.interfaces.settings import settings_of, settings_spec
from difftract_bids.interfaces.threads import limited_threads

_Settings: Any = settings_spec(
    TrackingConfig,
    RefinementConfig,
    SeedingConfig,
    without={"refine_fodf"} | ({*SeedingConfig.__dataclass_fields__} - {"random_seed"}),
)


class RefineFODFInputSpec(SeriesSpec, _Settings):
    """Inputs of :class:`RefineFODF`."""

    brain_mask = File(exists=True, mandatory=True, desc="Where streamlines may go.")
    fodf = File(exists=True, mandatory=True, desc="White matter, SH coefficients.")
    fodf_metadata = traits.Dict(desc="Its sidecar.")
    fodf_gm = File(exists=True, desc="Grey matter, if the model has it.")
    fodf_csf = File(exists=True, desc="Cerebrospinal fluid, if the model has it.")
    field = File(exists=True, desc="What the tissues were divided by, if they were.")
    model = traits.Enum(*TISSUES, usedefault=True, desc="What is deconvolved with the responses.")
    response_wm = File(exists=True, mandatory=True, desc="White matter, MRtrix's text format.")
    response_gm = File(exists=True, desc="Grey matter, if the model has it.")
    response_csf = File(exists=True, desc="Cerebrospinal fluid, if the model has it.")
    response_notes = traits.List(
        traits.Str, desc="Notes of the response's estimate; given where fODFs come without one."
    )
    target = traits.Either(
        File(exists=True),
        traits.Directory(exists=True),
        mandatory=True,
        desc="Connectome (.dense.tsv) or tractogram (.tck, .trk, .trx).",
    )
    parcellation = File(exists=True, desc="Label image of a connectome, same space.")
    table = File(exists=True, desc="Node table (TSV) of a connectome.")


class RefineFODFOutputSpec(TraitedSpec):
    """Outputs of :class:`RefineFODF`."""

    fodf = File(desc="SH coefficients of white matter, adjusted.")
    fodf_metadata = traits.Dict(desc="Content of its sidecar.")
    facts = File(desc="Loss and misfit of each step, and matrices before and after, .npz.")
    notes = traits.List(traits.Str, desc="What a user should know.")


class RefineFODF(SimpleInterface):
    """Adjust fODFs so that tracking in them gives a target, held back by the signal.

    Examples
    --------
    >>> from difftract_bids.interfaces.refinement import RefineFODF
    >>> series = {"dwi": "dwi.nii.gz", "bval": "dwi.bval", "bvec": "dwi.bvec"}
    >>> refine = RefineFODF(
    ...     **series,
    ...     brain_mask="mask.nii.gz",
    ...     fodf="fodf.nii.gz",
    ...     response_wm="response.txt",
    ...     target="count.dense.tsv",
    ...     parcellation="labels.nii.gz",
    ...     table="labels.tsv",
    ...     refine_steps=2,
    ...     refine_seeds=300,
    ... )
    >>> refined = refine.run().outputs
    >>> refined.fodf
    '/.../refined.nii.gz'
    >>> loss = refined.fodf_metadata["Refinement"]["Loss"]
    >>> loss["After"] < loss["Before"]
    True
    """

    input_spec, output_spec = RefineFODFInputSpec, RefineFODFOutputSpec

    def _run_interface(self, runtime):
        import torch

        from difftract_bids.io.images import load_volume, save_volume
        from difftract_bids.learn.refine import RefineOptions, refine_fodf

        config = settings_of(self.inputs, RefinementConfig)
        fodf = load_volume(self.inputs.fodf, ndim=4)
        mask = load_volume(self.inputs.brain_mask, ndim=3).data > 0
        target, names = _target(self.inputs)
        notes: list[str] = []
        with limited_threads(self.inputs.num_threads), told(notes):
            refined = refine_fodf(
                torch.from_numpy(fodf.data),
                torch.from_numpy(fodf.vox2ras),
                torch.from_numpy(mask),
                target,
                tracking=settings_of(self.inputs, TrackingConfig),
                signal=_signal(self.inputs, fodf),
                options=RefineOptions(
                    n_steps=config.refine_steps,
                    signal_weight=config.refine_weight,
                    n_seeds=config.refine_seeds,
                    random_seed=self.inputs.random_seed,
                ),
            )
        folder, name = Path(runtime.cwd), Path(self.inputs.target).name
        path = save_volume(refined.fodf.numpy(), fodf.vox2ras, folder / "refined.nii.gz")
        self._results["fodf"] = str(path)
        self._results["fodf_metadata"] = _metadata(self.inputs, config, refined)
        self._results["facts"] = _save_facts(refined, name, names, folder / "facts.npz")
        self._results["notes"] = [*notes, *_notes(self.inputs, refined, name)]
        return runtime


def _target(inputs):
    """Read what the fODFs are adjusted to, and the names of its nodes, if it has any."""
    import numpy as np
    import torch

    from difftract_bids.bids.nodes import check_image, read_nodes
    from difftract_bids.bids.refinement_target import in_order_of, read_target_matrix
    from difftract_bids.errors import UsageError
    from difftract_bids.io.tractograms import read_tractogram
    from difftract_bids.learn.refine_targets import ConnectomeTarget, TractogramTarget

    if _kind(inputs) == "tractogram":
        lines = read_tractogram(inputs.target)
        points, offsets = np.asarray(lines.points), np.asarray(lines.offsets, np.int64)
        return TractogramTarget(torch.from_numpy(points), torch.from_numpy(offsets)), []
    if not (isdefined(inputs.parcellation) and isdefined(inputs.table)):
        raise UsageError(
            "A connectome needs the parcellation that it is of.",
            where="parcellation, table",
            remedy="Give the label image on the grid of the diffusion data, and its node table.",
        )
    matrix, names = read_target_matrix(Path(inputs.target))
    nodes = read_nodes(Path(inputs.table))
    parcellation = check_image(Path(inputs.parcellation), nodes)
    target = ConnectomeTarget(
        torch.from_numpy(in_order_of(matrix, names, nodes.name)),
        torch.from_numpy(parcellation.data.astype(np.int64)),
        torch.from_numpy(parcellation.vox2ras),
        torch.tensor(nodes.index),
    )
    return target, list(nodes.name)


def _signal(inputs, fodf):
    """Make the signal of the volumes that the model looks at a linear function of the fODFs."""
    import torch

    from difftract_bids.core.sh import lmax_of
    from difftract_bids.io.images import load_volume
    from difftract_bids.learn.signal_fidelity import Signal
    from difftract_bids.modelling.predicted_signal import convolution_matrices

    dwi, gradients = load_series(inputs)
    model = cast("FittedModel", inputs.model)
    responses = read_responses(inputs, TISSUES[model], gradients)
    used, matrices = convolution_matrices(gradients, responses, model, lmax_of(fodf.data.shape[3]))
    background = None
    for tissue in TISSUES[model][1:]:
        given = load_volume(getattr(inputs, TISSUE_FIELDS[tissue]), ndim=4).data
        part = torch.from_numpy(given) @ matrices[tissue].float().T
        background = part if background is None else background + part
    if background is not None and isdefined(inputs.field):
        # The tissues were divided by it, the signal was not.
        background = background * torch.from_numpy(load_volume(inputs.field).data)[..., None]
    return Signal(torch.from_numpy(dwi.data[..., used]), matrices["WM"], background)


def _kind(inputs):
    return RefinementConfig(refine_fodf=inputs.target).kind


def _metadata(inputs, config, refined):
    from difftract_bids.bids.fodf_sidecars import refinement_metadata

    return refinement_metadata(
        inputs.fodf_metadata if isdefined(inputs.fodf_metadata) else {},
        target=Path(inputs.target).name,
        kind=_kind(inputs),
        steps=refined.best_step,
        weight=config.refine_weight,
        loss=(refined.target_before, refined.target_after),
        misfit=(refined.misfit_before, refined.misfit_after),
        response="estimated" if isdefined(inputs.response_notes) else "fitted",
    )


def _save_facts(refined, name, names, path):
    """Keep what the report draws."""
    import numpy as np

    steps = refined.history
    matrices = {
        key: propagated.connectome.detach().numpy()
        for key, propagated in (
            ("target", refined.wanted),
            ("before", refined.before),
            ("after", refined.after),
        )
        if propagated.connectome is not None
    }
    np.savez_compressed(
        path,
        loss=[step.target for step in steps],
        judged=[np.nan if step.judged is None else step.judged for step in steps],
        misfit=[np.nan if step.misfit is None else step.misfit for step in steps],
        best_step=refined.best_step,
        name=name,
        names=np.array(names, dtype=np.str_),
        **matrices,
    )
    return str(path)


def _notes(inputs, refined, name):
    notes = list(inputs.response_notes) if isdefined(inputs.response_notes) else []
    if isdefined(inputs.response_notes):
        notes.append(
            "The fODFs come without a response: the signal that they predict is that of a "
            "response estimated from the images."
        )
    if not refined.best_step:
        notes.append(f"No step brought the fODFs nearer to {name}: they are unchanged.")
        return notes
    notes.append(
        f"The fODFs were adjusted to {name} in {refined.best_step} steps, and are no estimate "
        f"from the images alone: loss {refined.target_before:.3g} to {refined.target_after:.3g}, "
        f"misfit of the signal {100 * refined.misfit_before:.3g}% to "
        f"{100 * refined.misfit_after:.3g}%."
    )
    return notes
