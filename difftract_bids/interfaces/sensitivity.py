"""Differentiating a connectome: what in the image makes an edge, and what noise does to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, cast

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, isdefined, traits

from difftract_bids.config import (
    ConnectomeConfig,
    FittedModel,
    FodfConfig,
    RegionsConfig,
    SeedingConfig,
    SensitivityConfig,
    TrackingConfig,
)
from difftract_bids.errors import UsageError
from difftract_bids.interfaces.diffusion import SeriesSpec, load_series
from difftract_bids.interfaces.response import read_responses
from difftract_bids.interfaces.settings import settings_of, settings_spec
from difftract_bids.interfaces.threads import limited_threads

_WITHOUT = {"sensitivity", "edge_standard_errors", "input_fodf", "response", "response_algorithm"}
_WITHOUT |= {"normalise_tissues", "n_streamlines", "n_seeds"}
_WITHOUT |= {"fodf_model_file", "fodf_model_class"}
_WITHOUT |= {name for name in ConnectomeConfig.__dataclass_fields__ if "radius" not in name}
_Settings: Any = settings_spec(
    TrackingConfig,
    SeedingConfig,
    RegionsConfig,
    FodfConfig,
    ConnectomeConfig,
    SensitivityConfig,
    without=_WITHOUT,
)


class DifferentiateInputSpec(SeriesSpec, _Settings):
    """What the derivatives of a connectome depend on."""

    brain_mask = File(exists=True, mandatory=True, desc="Brain mask, as for tracking.")
    fodf = File(exists=True, mandatory=True, desc="The fODF image that was tracked.")
    response_wm = File(exists=True, desc="White matter's response, if the fODF was fitted to it.")
    response_gm = File(exists=True, desc="Grey matter's, for models that have it.")
    response_csf = File(exists=True, desc="Cerebrospinal fluid's, for models that have it.")
    five_tissue_types = File(
        exists=True, desc="Fractions of tissue, if tracking obeyed them; as for tracking."
    )
    crop_at_gmwmi = traits.Bool(
        desc="Whether ends were moved onto the interface, as for tracking."
    )
    summary = File(exists=True, mandatory=True, desc="Seed and ends of each streamline.")
    parcellation = File(exists=True, mandatory=True, desc="Label image in the same space.")
    table = File(exists=True, mandatory=True, desc="Node table (TSV) with index and name.")


class _Scene(NamedTuple):
    """What was tracked, as tensors and modules."""

    tracking: Any  # FODFToConnectome
    fit: Any  # VoxelwiseFit, or None where it is not known how the fODF was made
    fodf: Any
    seeds_mm: Any
    directions: Any
    ends_mm: Any
    scale: float  # streamlines there are, over those that are looked at
    nodes: Any
    vox2ras: Any
    gradients: Any


def _scene(inputs, softness: float | None) -> _Scene:
    """Load what was tracked, and its seeds by their numbers."""
    import numpy as np
    import torch

    from difftract_bids.bids.nodes import check_image, read_nodes
    from difftract_bids.core import SoftConnectome
    from difftract_bids.core.end_to_end import FODFToConnectome
    from difftract_bids.io.five_tissue_types import load_anatomy
    from difftract_bids.io.images import load_volume
    from difftract_bids.io.places import load_regions, load_seed_source
    from difftract_bids.io.summaries import read_summary

    config = settings_of(inputs, SensitivityConfig)
    dwi, gradients = load_series(inputs)
    brain_mask = load_volume(inputs.brain_mask, ndim=3)
    fodf = load_volume(inputs.fodf, ndim=4)
    nodes = read_nodes(Path(inputs.table))
    parcellation = check_image(Path(inputs.parcellation), nodes)
    connectome = SoftConnectome(
        torch.from_numpy(parcellation.data.astype(np.int64)),
        torch.from_numpy(parcellation.vox2ras),
        radius_mm=settings_of(inputs, ConnectomeConfig).assignment_radius_mm,
        sigma_mm=config.soft_sigma_mm,
        node_labels=torch.tensor(nodes.index),
    )
    anatomy = None
    if isdefined(inputs.five_tissue_types):
        anatomy = load_anatomy(
            inputs.five_tissue_types, crop_at_gmwmi=inputs.crop_at_gmwmi is True
        )
    tracking = FODFToConnectome(
        connectome,
        torch.from_numpy(fodf.vox2ras),
        settings_of(inputs, TrackingConfig),
        load_regions(settings_of(inputs, RegionsConfig), brain_mask),
        survival_softness=softness,
        anatomy=anatomy,
    )
    summary = read_summary(inputs.summary)
    kept = min(len(summary.seed_index), config.gradient_streamlines)
    # Seeds of low numbers are as good a sample as any: numbers have no place.
    numbers = torch.from_numpy(summary.seed_index[:kept])
    source = load_seed_source(settings_of(inputs, SeedingConfig), brain_mask, anatomy=anatomy)
    seeds_mm, directions = source.at(numbers)
    image = torch.from_numpy(fodf.data)
    return _Scene(
        tracking,
        _fit(inputs, dwi, gradients, image),
        image,
        seeds_mm.float(),
        directions.float(),
        torch.from_numpy(summary.ends_mm[:kept]),
        len(summary.seed_index) / max(kept, 1),
        nodes,
        fodf.vox2ras,
        gradients,
    )


def _fit(inputs, dwi, gradients, fodf):
    """Make the deconvolution that the fODF comes from; nothing if there is no response."""
    import torch

    from difftract_bids.bids.fodf_model import choose_model
    from difftract_bids.core.voxelwise import VoxelwiseFit
    from difftract_bids.io.directions import read_directions
    from difftract_bids.modelling.deconvolution import build_deconvolution
    from difftract_bids.modelling.fodf import choose_lmax

    if not isdefined(inputs.response_wm):
        return None
    config = settings_of(inputs, FodfConfig)
    model = choose_model(gradients, config)
    responses = read_responses(inputs, model.tissues, gradients)
    path = config.constraint_directions
    directions = None if path is None else torch.from_numpy(read_directions(path))
    lmax = choose_lmax(responses["WM"], config.lmax)
    name = cast("FittedModel", model.name)
    deconvolution = build_deconvolution(gradients, responses, name, lmax, directions)
    fit = VoxelwiseFit(deconvolution, torch.from_numpy(dwi.data), fodf)
    if not fit.explains():
        raise UsageError(
            "The fODF does not come from this diffusion image, response and model.",
            where=inputs.fodf,
            remedy="Give what it was fitted from, or leave the responses out.",
        )
    return fit


class MapSensitivityInputSpec(DifferentiateInputSpec):
    """Inputs of :class:`MapSensitivity`."""

    edge = traits.Str(mandatory=True, desc="A-B, the name of a node, or total.")


class MapSensitivityOutputSpec(TraitedSpec):
    """Outputs of :class:`MapSensitivity`."""

    sensitivity = File(desc="How much the edge changes with each voxel, one value a voxel.")
    sensitivity_dwi = File(desc="Derivative of the edge by each value of the diffusion image.")
    sensitivity_fodf = File(desc="Derivative of the edge by each SH coefficient of the fODFs.")
    metadata = traits.Dict(desc="Content of the sidecar of the first.")
    dwi_metadata = traits.Dict(desc="Content of the sidecar of the second.")
    fodf_metadata = traits.Dict(desc="Content of the sidecar of the third.")
    notes = traits.List(traits.Str, desc="What a user should know.")


class MapSensitivity(SimpleInterface):
    """Differentiate an edge, or a sum of edges, by the fODFs and by the diffusion image.

    Where it is not known how the fODF comes from the image there is no derivative by the image,
    and the map of one value a voxel is that of the fODF.

    Examples
    --------
    >>> import nibabel
    >>> from difftract_bids.interfaces.sensitivity import MapSensitivity
    >>> differentiate = MapSensitivity(
    ...     dwi="dwi.nii.gz",
    ...     bval="dwi.bval",
    ...     bvec="dwi.bvec",
    ...     brain_mask="mask.nii.gz",
    ...     fodf="fodf.nii.gz",
    ...     response_wm="response.txt",
    ...     summary="summary.parquet",
    ...     parcellation="labels.nii.gz",
    ...     table="labels.tsv",
    ...     edge="LH-Precentral-Brainstem",
    ... )
    >>> found = differentiate.run().outputs
    >>> nibabel.load(found.sensitivity).shape
    (31, 36, 28)
    >>> found.metadata["Units"]
    'streamlines'
    """

    input_spec, output_spec = MapSensitivityInputSpec, MapSensitivityOutputSpec

    def _run_interface(self, runtime):
        import torch

        from difftract_bids.bids.edge_targets import find_target
        from difftract_bids.bids.sensitivity_sidecars import sensitivity_metadata
        from difftract_bids.core.sensitivity import influential, sensitivity
        from difftract_bids.io.images import save_volume

        config = settings_of(self.inputs, SensitivityConfig)
        scene = _scene(self.inputs, config.sensitivity_softness)
        target = find_target(self.inputs.edge, scene.nodes)
        if target is None:
            raise UsageError(
                f"There is no edge {self.inputs.edge!r} in the atlas.",
                where=self.inputs.table,
                remedy="Give two names of its table with a hyphen between them, one, or total.",
            )
        weights = torch.from_numpy(target.weights(len(scene.nodes)))
        with limited_threads(self.inputs.num_threads):
            some = influential(scene.tracking.connectome, scene.ends_mm, weights)
            found = sensitivity(
                scene.tracking, scene.fodf, scene.seeds_mm[some], scene.directions[some], weights
            )
            by_fodf = found.fodf * scene.scale
            by_dwi = None if scene.fit is None else scene.fit.to_signal(by_fodf)
        magnitude = self._magnitude(by_dwi, by_fodf, scene)
        folder, images = Path(runtime.cwd), {"sensitivity": magnitude, "sensitivity_fodf": by_fodf}
        if by_dwi is not None:
            images["sensitivity_dwi"] = by_dwi
        for name, image in images.items():
            path = save_volume(image.float().numpy(), scene.vox2ras, folder / f"{name}.nii.gz")
            self._results[name] = str(path)
        said: dict[str, Any] = {
            "config": config,
            "target": target,
            "value": found.value * scene.scale,
            "n_streamlines": len(some),
            "by_signal": by_dwi is not None,
        }
        self._results["metadata"] = sensitivity_metadata("", **said)
        self._results["dwi_metadata"] = sensitivity_metadata("dwi", **said)
        self._results["fodf_metadata"] = sensitivity_metadata("fodf", **said)
        self._results["notes"] = _notes(target.text, len(some), by_dwi)
        return runtime

    def _magnitude(self, by_dwi, by_fodf, scene):
        """Sum up a voxel: streamlines for 1% of its b=0 signal in a volume, root of squares."""
        import torch

        if by_dwi is None:
            return by_fodf.norm(dim=3)
        b0 = scene.fit.dwi[..., torch.from_numpy(scene.gradients.b0_mask)].mean(dim=3)
        return by_dwi.norm(dim=3) * b0.clamp(min=0) / 100


def _notes(edge, n_streamlines, by_dwi):
    notes = []
    if not n_streamlines:
        notes.append(f"No streamline belongs to {edge}: its sensitivity is zero everywhere.")
    if by_dwi is None:
        notes.append(
            f"The sensitivity of {edge} is that to the fODF: how it comes from the diffusion "
            "image is not known."
        )
    return notes


class EstimateEdgeErrorsInputSpec(DifferentiateInputSpec):
    """Inputs of :class:`EstimateEdgeErrors`."""

    sigma = File(exists=True, mandatory=True, desc="Standard deviation of the noise, (x, y, z).")


class EstimateEdgeErrorsOutputSpec(TraitedSpec):
    """Outputs of :class:`EstimateEdgeErrors`."""

    sd = File(desc="Standard deviation of each edge's streamline count, dense TSV.")
    sd_metadata = traits.Dict(desc="Content of its sidecar.")
    notes = traits.List(traits.Str, desc="What a user should know.")


class EstimateEdgeErrors(SimpleInterface):
    r"""Estimate how much the noise of a diffusion image moves each edge, by the delta method.

    Examples
    --------
    >>> import pandas
    >>> from difftract_bids.interfaces.sensitivity import EstimateEdgeErrors
    >>> estimate = EstimateEdgeErrors(
    ...     dwi="dwi.nii.gz",
    ...     bval="dwi.bval",
    ...     bvec="dwi.bvec",
    ...     brain_mask="mask.nii.gz",
    ...     fodf="fodf.nii.gz",
    ...     response_wm="response.txt",
    ...     summary="summary.parquet",
    ...     parcellation="labels.nii.gz",
    ...     table="labels.tsv",
    ...     sigma="noise.nii.gz",
    ...     gradient_streamlines=200,
    ... )
    >>> pandas.read_csv(estimate.run().outputs.sd, sep="\t").shape
    (39, 39)
    """

    input_spec, output_spec = EstimateEdgeErrorsInputSpec, EstimateEdgeErrorsOutputSpec

    def _run_interface(self, runtime):
        import torch

        from difftract_bids.bids.sensitivity_sidecars import edge_errors_metadata
        from difftract_bids.core.uncertainty import edge_standard_deviations
        from difftract_bids.io.images import load_volume
        from difftract_bids.io.matrices import write_matrix

        config = settings_of(self.inputs, SensitivityConfig)
        scene = _scene(self.inputs, config.errors_softness)
        if scene.fit is None:
            raise UsageError(
                "Standard errors need to know how the fODF comes from the diffusion image.",
                where=self.inputs.fodf,
                remedy="Let this program fit the fODF, or leave the standard errors out.",
            )
        sigma = torch.from_numpy(load_volume(self.inputs.sigma, ndim=3).data)
        with limited_threads(self.inputs.num_threads):
            errors = edge_standard_deviations(
                scene.tracking, scene.fit, scene.seeds_mm, scene.directions, sigma
            )
        sd = errors.sd.numpy() * scene.scale
        path = write_matrix(sd, list(scene.nodes.name), Path(runtime.cwd) / "sd.dense.tsv")
        self._results["sd"] = str(path)
        self._results["sd_metadata"] = edge_errors_metadata(
            config, n_nodes=len(scene.nodes), n_streamlines=len(scene.seeds_mm)
        )
        self._results["notes"] = []
        return runtime
