"""fODFs that a trained network predicts."""

from __future__ import annotations

from pathlib import Path

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, isdefined, traits

from difftract_bids.interfaces.diffusion import DiffusionSpec, load_diffusion
from difftract_bids.interfaces.threads import limited_threads


class PredictFODFInputSpec(DiffusionSpec):
    """Inputs of :class:`PredictFODF`."""

    model_file = File(exists=True, mandatory=True, desc="Trained model, safetensors.")
    model_class = traits.Str(
        desc="Class of an architecture that is not built in, package.module:Class; it is imported."
    )
    participant = traits.Str(desc="Label of the participant, whom the model may have learnt from.")


class PredictFODFOutputSpec(TraitedSpec):
    """Outputs of :class:`PredictFODF`."""

    fodf = File(desc="SH coefficients (x, y, z, coeff), MRtrix's basis, scanner axes.")
    fodf_metadata = traits.Dict(desc="Content of its sidecar.")
    notes = traits.List(traits.Str, desc="What a user should know.")


class PredictFODF(SimpleInterface):
    """Predict fibre orientation distributions by a trained network.

    Examples
    --------
    >>> import nibabel
    >>> from difftract_bids.interfaces.learned_fodf import PredictFODF
    >>> series = {"dwi": "dwi.nii.gz", "bval": "dwi.bval", "bvec": "dwi.bvec"}
    >>> predict = PredictFODF(**series, mask="mask.nii.gz", model_file="model.safetensors")
    >>> nibabel.load(predict.run().outputs.fodf).shape
    (31, 36, 28, 15)
    """

    input_spec, output_spec = PredictFODFInputSpec, PredictFODFOutputSpec

    def _run_interface(self, runtime):
        import torch

        from difftract_bids.bids.fodf_model_file import TrainedModel
        from difftract_bids.bids.fodf_sidecars import learned_metadata
        from difftract_bids.io.images import save_volume
        from difftract_bids.learn.acquisition import Acquisition
        from difftract_bids.learn.model_file import load_model

        dwi, gradients, mask = load_diffusion(self.inputs)
        kind = self.inputs.model_class if isdefined(self.inputs.model_class) else None
        loaded = load_model(self.inputs.model_file, kind)
        settings = loaded.network.settings
        notes = settings.acquisition.check(
            Acquisition.of(gradients, dwi.vox2ras), signal_lmax=settings.signal_lmax
        )
        with limited_threads(self.inputs.num_threads):
            fodf = loaded.network.predict(
                torch.from_numpy(dwi.data), gradients, dwi.vox2ras, torch.from_numpy(mask)
            )
        network = TrainedModel(
            loaded.path.name, loaded.sha256, settings.to_dict(), loaded.training
        )
        if isdefined(self.inputs.participant):
            notes += network.notes_for(self.inputs.participant)
        path = save_volume(fodf.float().numpy(), dwi.vox2ras, Path(runtime.cwd) / "fodf.nii.gz")
        self._results["fodf"] = str(path)
        self._results["fodf_metadata"] = learned_metadata(network, notes)
        self._results["notes"] = notes
        return runtime
