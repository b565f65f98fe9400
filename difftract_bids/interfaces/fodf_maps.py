"""Maps of fODF images, and fODF images that come from elsewhere or go there."""

from __future__ import annotations

from pathlib import Path

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from difftract_bids.config import OutputConfig
from difftract_bids.interfaces.threads import ThreadedSpec, limited_threads

_BASIS = OutputConfig().sh_basis


class MapFODFInputSpec(ThreadedSpec):
    """Inputs of :class:`MapFODF`."""

    fodf = File(exists=True, mandatory=True, desc="SH coefficients, MRtrix's basis.")
    mask = File(exists=True, mandatory=True, desc="Brain mask, same grid.")


class MapFODFOutputSpec(TraitedSpec):
    """Outputs of :class:`MapFODF`."""

    afdtotal = File(desc="Total apparent fibre density: the integral of the fODF.")
    peak = File(desc="Peaks (x, y, z, 3 each), direction times amplitude, scanner axes.")
    nufo = File(desc="Number of fibre orientations: peaks of each voxel.")


class MapFODF(SimpleInterface):
    """Work out total apparent fibre density, peaks, and how many there are.

    Examples
    --------
    >>> from difftract_bids.interfaces.fodf_maps import MapFODF
    >>> maps = MapFODF(fodf="fodf.nii.gz", mask="mask.nii.gz").run().outputs
    >>> maps.afdtotal, maps.nufo
    ('/.../afdtotal.nii.gz', '/.../nufo.nii.gz')
    """

    input_spec, output_spec = MapFODFInputSpec, MapFODFOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.bids.fodf_sidecars import PEAK_RULES
        from difftract_bids.io.images import load_volume, save_volume
        from difftract_bids.modelling.fodf_maps import afd_total, nufo, peaks

        fodf, vox2ras = load_volume(self.inputs.fodf, ndim=4)
        mask = load_volume(self.inputs.mask, ndim=3).data > 0
        with limited_threads(self.inputs.num_threads):
            found = peaks(
                fodf,
                mask,
                cutoff=PEAK_RULES["cutoff"],
                relative_cutoff=PEAK_RULES["relative_cutoff"],
                separation_deg=PEAK_RULES["separation_deg"],
            )
        density = afd_total(fodf) * mask
        maps = {"afdtotal": density, "peak": found, "nufo": nufo(found)}
        for name, data in maps.items():
            path = save_volume(data, vox2ras, Path(runtime.cwd) / f"{name}.nii.gz")
            self._results[name] = str(path)
        return runtime


class ImportFODFInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`ImportFODF`."""

    in_file = File(exists=True, mandatory=True, desc="fODF image, .nii[.gz] or .mif[.gz].")
    like = File(exists=True, mandatory=True, desc="Image of the grid that it must be on.")


class ImportFODFOutputSpec(TraitedSpec):
    """Outputs of :class:`ImportFODF`."""

    fodf = File(desc="SH coefficients (x, y, z, coeff), MRtrix's basis, scanner axes.")
    fodf_metadata = traits.Dict(desc="Content of its sidecar.")
    notes = traits.List(traits.Str, desc="What a user should know about the image.")


class ImportFODF(SimpleInterface):
    """Read an fODF image from elsewhere, in whatever basis and order of axes.

    Examples
    --------
    >>> from difftract_bids.interfaces.fodf_maps import ImportFODF
    >>> taken = ImportFODF(in_file="wmfod.nii.gz", like="mask.nii.gz").run().outputs
    >>> taken.fodf_metadata["OrientationEncoding"]["SphericalHarmonicDegree"]
    8
    """

    input_spec, output_spec = ImportFODFInputSpec, ImportFODFOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.bids.fodf_sidecars import model_metadata, sh_encoding
        from difftract_bids.io.fodf_images import load_fodf
        from difftract_bids.io.grids import onto_grid
        from difftract_bids.io.images import Volume, load_volume, save_volume

        given = load_fodf(self.inputs.in_file)
        like = load_volume(self.inputs.like)
        image = onto_grid(
            Volume(given.sh_coeffs, given.vox2ras),
            like.data.shape[:3],
            like.vox2ras,
            where=self.inputs.in_file,
        )
        path = save_volume(image.data, image.vox2ras, Path(runtime.cwd) / "fodf.nii.gz")
        said = model_metadata("given", f"the image {Path(self.inputs.in_file).name} was given")
        self._results["fodf"] = str(path)
        self._results["fodf_metadata"] = said | sh_encoding(given.lmax, "mrtrix3")
        self._results["notes"] = list(given.notes)
        return runtime


class ConvertFODFInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`ConvertFODF`."""

    in_file = File(exists=True, mandatory=True, desc="SH coefficients, MRtrix's basis.")
    in_metadata = traits.Dict(desc="Content of its sidecar.")
    basis = traits.Enum(
        _BASIS, "descoteaux07", usedefault=True, desc="Spherical harmonic basis wanted."
    )


class ConvertFODFOutputSpec(TraitedSpec):
    """Outputs of :class:`ConvertFODF`."""

    out_file = File(desc="SH coefficients in the basis wanted, scanner axes.")
    out_metadata = traits.Dict(desc="Content of its sidecar, with the name of the basis.")


class ConvertFODF(SimpleInterface):
    """Write an fODF image in another spherical harmonic basis.

    Examples
    --------
    >>> from difftract_bids.interfaces.fodf_maps import ConvertFODF
    >>> convert = ConvertFODF(in_file="wmfod.nii.gz", basis="descoteaux07")
    >>> converted = convert.run().outputs
    >>> converted.out_metadata["OrientationEncoding"]
    {'SphericalHarmonicBasis': 'descoteaux07'}
    """

    input_spec, output_spec = ConvertFODFInputSpec, ConvertFODFOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.io.fodf_images import save_fodf, sidecar_name
        from difftract_bids.io.images import load_volume

        basis = self.inputs.basis
        fodf, vox2ras = load_volume(self.inputs.in_file, ndim=4)
        path = save_fodf(fodf, vox2ras, Path(runtime.cwd) / "fodf.nii.gz", basis)
        before = self.inputs.in_metadata if isdefined(self.inputs.in_metadata) else {}
        encoding = dict(before.get("OrientationEncoding", {}))
        encoding["SphericalHarmonicBasis"] = sidecar_name(basis)
        self._results["out_file"] = str(path)
        self._results["out_metadata"] = {**before, "OrientationEncoding": encoding}
        return runtime
