"""Tracking streamlines through an fODF image, or along diffusion tensors."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    File,
    InputMultiObject,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from difftract_bids.config import (
    ActConfig,
    ConnectomeConfig,
    OutputConfig,
    RegionsConfig,
    SeedingConfig,
    TrackingConfig,
)
from difftract_bids.errors import UsageError, told
from difftract_bids.interfaces.progress import ProgressFile
from difftract_bids.interfaces.settings import settings_of, settings_spec
from difftract_bids.interfaces.threads import ThreadedSpec, limited_threads

_Settings: Any = settings_spec(
    *(TrackingConfig, SeedingConfig, RegionsConfig, OutputConfig, ConnectomeConfig, ActConfig),
    # Of the connectome, tracking needs to know what is taken of an image along a streamline; that
    # tissue is to be obeyed is said by connecting it.
    without=(
        {item.name for item in fields(ConnectomeConfig)} - {"streamline_statistic"}
        | {"act", "act_5tt"}
    ),
)


class TrackStreamlinesInputSpec(ThreadedSpec, _Settings):
    """Inputs of :class:`TrackStreamlines`."""

    fodf = File(exists=True, desc="SH coefficients, MRtrix's basis, scanner axes: for sd_stream.")
    dwi = File(exists=True, desc="Diffusion image: for tensor_det.")
    bval = File(exists=True, desc="Its b-values, s/mm².")
    bvec = File(exists=True, desc="Its b-vectors, FSL's convention.")
    b0_threshold_s_mm2 = traits.Float(50.0, usedefault=True, desc="Largest b-value of b=0, s/mm².")
    brain_mask = File(
        exists=True,
        mandatory=True,
        desc="Where seeds are placed and streamlines run, unless settings say otherwise.",
    )
    five_tissue_types = File(
        exists=True, desc="Fractions of five tissue types, which streamlines obey if connected."
    )
    images = InputMultiObject(
        File(exists=True), desc="Images to look up along every streamline, such as FA."
    )
    image_names = traits.List(traits.Str, desc="Their names in the summary, such as fa.")
    # Nipype counts the nodes that have an input of this name, and runs as many as there are slots.
    use_gpu = traits.Bool(
        default_value=False,
        usedefault=True,
        nohash=True,
        desc="Whether it may run on a GPU, which it then has for itself; the device is a setting.",
    )


class TrackStreamlinesOutputSpec(TraitedSpec):
    """Outputs of :class:`TrackStreamlines`."""

    tractogram = File(desc="Streamlines in scanner (RAS+) millimetres, thinned; if asked for.")
    summary = File(desc="Parquet table of seed, ends, length (mm), images of every streamline.")
    preview = File(desc="Some thousand of the streamlines, thinned, for figures.")
    metadata = traits.Dict(desc="Content of the sidecar, with counts.")
    notes = traits.List(traits.Str, desc="What a user should know about the tractogram.")


class TrackStreamlines(SimpleInterface):
    """Track from seeds along fODF peaks or tensors, straight into files.

    Examples
    --------
    >>> from difftract_bids.interfaces.tracking import TrackStreamlines
    >>> track = TrackStreamlines(
    ...     fodf="fodf.nii.gz", brain_mask="mask.nii.gz", n_streamlines=100, min_length_mm=20.0
    ... )
    >>> tracked = track.run().outputs
    >>> tracked.tractogram, tracked.summary
    ('/.../tractogram.trx', '/.../summary.parquet')
    >>> tracked.metadata["Counts"]["Streamlines"]
    100
    """

    input_spec, output_spec = TrackStreamlinesInputSpec, TrackStreamlinesOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.bids.sidecars import tractogram_metadata
        from difftract_bids.core.generate import NoStreamlinesWarning, choose_device

        tracking = settings_of(self.inputs, TrackingConfig)
        seeding = settings_of(self.inputs, SeedingConfig)
        regions = settings_of(self.inputs, RegionsConfig)
        output = settings_of(self.inputs, OutputConfig)
        device = choose_device(tracking)
        notes: list[str] = []
        with limited_threads(self.inputs.num_threads), told(notes, NoStreamlinesWarning):
            tally, resolved = self._track(
                tracking, seeding, regions, output, device, Path(runtime.cwd)
            )
        self._results["metadata"] = tractogram_metadata(
            resolved,
            seeding,
            regions,
            tally.as_metadata(),
            device=device.type,
            tolerance_mm=output.tractogram_tolerance_mm if output.tractogram else None,
            act=settings_of(self.inputs, ActConfig) if self._obeys_tissue else None,
        )
        self._results["notes"] = notes + _notes(tally, seeding)
        return runtime

    @property
    def _obeys_tissue(self):
        return isdefined(self.inputs.five_tissue_types)

    def _track(self, tracking, seeding, regions, output, device, folder):
        import torch

        from difftract_bids.core.generate import generate
        from difftract_bids.io.five_tissue_types import load_anatomy
        from difftract_bids.io.images import load_volume
        from difftract_bids.io.places import load_regions, load_seed_source
        from difftract_bids.io.streaming import stream_to_files

        brain_mask = load_volume(self.inputs.brain_mask, ndim=3)
        anatomy = None
        if self._obeys_tissue:
            anatomy = load_anatomy(
                self.inputs.five_tissue_types,
                crop_at_gmwmi=self.inputs.crop_at_gmwmi,
                device=device,
            )
        source = load_seed_source(seeding, brain_mask, device, anatomy)
        names = {"summary": folder / "summary.parquet", "preview": folder / "preview.trx"}
        tractogram = None
        if output.tractogram:
            tractogram = folder / f"tractogram.{output.tractogram_format}"
            names["tractogram"] = tractogram
        wanted = seeding.wanted_streamlines
        total, unit = (wanted, "streamlines") if wanted else (seeding.n_seeds, "seeds")
        if total is None:
            total = source.total
        with torch.no_grad(), ProgressFile(str(folder), total, unit) as progress:
            field, vox2ras, shape, resolved = self._field(tracking, device)
            tally = stream_to_files(
                generate(
                    field,
                    source,
                    resolved,
                    load_regions(regions, brain_mask),
                    anatomy,
                    n_seeds=seeding.n_seeds,
                    n_streamlines=wanted,
                ),
                tractogram=tractogram,
                summary=names["summary"],
                preview=names["preview"],
                vox2ras=vox2ras,
                shape=shape,
                tolerance_mm=output.tractogram_tolerance_mm,
                progress=lambda tally: progress.update(getattr(tally, unit)),
                samplers=samplers_of(self.inputs),
                in_background=self.inputs.num_threads > 1,
            )
        self._results.update({name: str(path) for name, path in names.items()})
        return tally, resolved

    def _field(self, tracking, device):
        """Load what is followed: the field, its affine and shape, and the settings resolved."""
        import torch

        from difftract_bids.core import mean_voxel_size_mm
        from difftract_bids.core.field import DirectionField, FodfField, TensorField
        from difftract_bids.io.gradients import read_gradients
        from difftract_bids.io.images import load_volume

        name = "fodf" if tracking.algorithm == "sd_stream" else "dwi"
        needed = ("fodf",) if name == "fodf" else ("dwi", "bval", "bvec")
        missing = [need for need in needed if not isdefined(getattr(self.inputs, need))]
        if missing:
            raise UsageError(
                f"The algorithm {tracking.algorithm} needs {' and '.join(missing)}.",
                where="TrackStreamlines",
                remedy="Connect it, or choose the other algorithm.",
            )
        data, vox2ras = load_volume(getattr(self.inputs, name), ndim=4)
        affine, image = torch.from_numpy(vox2ras), torch.from_numpy(data).to(device)
        settings = tracking.resolve(mean_voxel_size_mm(affine), act=self._obeys_tissue)
        field: DirectionField
        if name == "fodf":
            field = FodfField.from_fodf(
                image, affine, cutoff=settings.cutoff, peak_tolerance=settings.peak_tolerance
            )
        else:
            table = read_gradients(
                self.inputs.bval,
                self.inputs.bvec,
                vox2ras,
                n_volumes=data.shape[3],
                b0_threshold_s_mm2=self.inputs.b0_threshold_s_mm2,
            )
            field = TensorField.from_dwi(
                image,
                affine,
                torch.from_numpy(table.bvecs).double(),
                torch.from_numpy(table.bvals_s_mm2).double(),
                cutoff=settings.cutoff,
            )
        return field, vox2ras, data.shape[:3], settings


def samplers_of(inputs: Any) -> dict[str, Any]:
    """Open the images to look up along streamlines, by their names.

    Raises
    ------
    UsageError
        If there are not as many names as images.
    """
    from difftract_bids.io.image_samples import image_sampler

    images = inputs.images if isdefined(inputs.images) else []
    names = inputs.image_names if isdefined(inputs.image_names) else []
    if len(images) != len(names) or len(set(names)) != len(names):
        raise UsageError(
            f"There are {len(images)} images and {len(set(names))} names.",
            where="image_names",
            remedy="Give each image a name of its own.",
        )
    return {
        name: image_sampler(image, inputs.streamline_statistic)
        for name, image in zip(names, images, strict=True)
    }


def _notes(tally, seeding):
    if not tally.streamlines:
        why, number = tally.seed_status.most_common(1)[0]
        reason = why.name.lower().replace("_", " ")
        note = (
            f"No streamline was found from {tally.seeds:,} seeds: the tractogram and every "
            f"connectome are empty. Most often, {number:,} times: {reason}."
        )
        return [note]
    wanted = seeding.wanted_streamlines
    if wanted is not None and tally.streamlines < wanted and seeding.n_seeds is None:
        found = f"Only {tally.streamlines:,} of {wanted:,} streamlines were found"
        return [f"{found}, from {tally.seeds:,} seeds."]
    return []
