"""The table of what came out of a run, and what to look at."""

from __future__ import annotations

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    isdefined,
    traits,
)

from difftract_bids.interfaces.reportlets.base import (
    Reportlet,
    image_and_gradients,
)


class SummariseRunInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`SummariseRun`."""

    dwi = File(exists=True, mandatory=True, desc="Diffusion image.")
    bval = File(exists=True, mandatory=True, desc="b-values, s/mm².")
    bvec = File(exists=True, mandatory=True, desc="b-vectors, FSL's convention.")
    b0_threshold_s_mm2 = traits.Float(50.0, usedefault=True, desc="Largest b-value of b=0, s/mm².")
    summary = File(exists=True, mandatory=True, desc="Ends and length of each streamline.")
    tractogram_metadata = traits.Dict(mandatory=True, desc="Its sidecar, with counts.")
    fodf_metadata = traits.Dict(desc="Sidecar of the fODFs of white matter.")
    atlases = traits.List(traits.Str, desc="Names of the atlases, in the matrices' order.")
    counts = traits.List(File(exists=True), desc="Streamline count matrix of each atlas.")
    assigned = traits.List(traits.Int, desc="Streamlines that connect nodes of each atlas.")
    checks = traits.List(traits.Dict, desc="All checks of the run, in order.")
    anchors = traits.Dict(
        traits.Str, traits.Str, desc="Where on the page the figure of a check is."
    )
    notes = traits.List(traits.Str, desc="What the stages want the user to know.")
    decisions = traits.List(traits.Str, desc="What was decided by the data, and why.")


class SummariseRun(Reportlet):
    """Write the table of what came out of a diffusion run, and what to look at.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.summary import SummariseRun
    >>> summarise = SummariseRun(
    ...     dwi="dwi.nii.gz",
    ...     bval="dwi.bval",
    ...     bvec="dwi.bvec",
    ...     summary="summary.parquet",
    ...     tractogram_metadata={"Counts": {"Seeds": 6000}},
    ...     atlases=["Phantom"],
    ...     counts=["count.dense.tsv"],
    ...     checks=[{"name": "mask", "title": "Mask", "light": "good", "found": "1,400 mL."}],
    ...     notes=["The T1w is of another day."],
    ... )
    >>> summarise.run().outputs.out_report
    '/.../report.html'
    """

    input_spec = SummariseRunInputSpec
    _extension = "html"

    def _draw(self, path):
        import numpy as np

        from difftract_bids.checks.verdict import Check
        from difftract_bids.io.matrices import read_matrix
        from difftract_bids.io.summaries import lengths_of
        from difftract_bids.reports.page.summary import (
            ConnectomeFacts,
            Notice,
            RunSummary,
            fodf_facts,
            write_summary_html,
        )

        image, table = image_and_gradients(self.inputs)
        x_mm, y_mm, z_mm = image.header.get_zooms()[:3]
        lengths_mm = lengths_of(self.inputs.summary)
        tally = self.inputs.tractogram_metadata.get("Counts", {})
        atlases, files = self.inputs.atlases or [], self.inputs.counts or []
        assigned = self.inputs.assigned or [None] * len(files)
        connectomes = [
            ConnectomeFacts.of(atlas, *read_matrix(file), n_assigned)
            for atlas, file, n_assigned in zip(atlases, files, assigned, strict=True)
        ]
        fodf = self.inputs.fodf_metadata if isdefined(self.inputs.fodf_metadata) else {}
        notes = self.inputs.notes if isdefined(self.inputs.notes) else []
        summary = RunSummary(
            shape=image.shape[:3],
            voxel_sizes_mm=(float(x_mm), float(y_mm), float(z_mm)),
            shells=table.shells(),
            fodf=fodf_facts(fodf),
            n_streamlines=len(lengths_mm),
            n_seeds=tally.get("Seeds", 0),
            median_length_mm=float(np.median(lengths_mm)) if len(lengths_mm) else None,
            stop_reasons=_in_words(tally.get("StopReasons", {})),
            seed_fates=_in_words(tally.get("SeedStatus", {})),
            connectomes=connectomes,
            checks=[Check.from_dict(check) for check in self.inputs.checks or []],
            anchors=self.inputs.anchors if isdefined(self.inputs.anchors) else {},
            notices=[Notice(note) for note in notes],
            decisions=list(self.inputs.decisions) if isdefined(self.inputs.decisions) else [],
        )
        return write_summary_html(summary, path)


def _in_words(tally: dict[str, int]) -> dict[str, int]:
    words = {"none": "started there, one way"}
    return {words.get(name, name.replace("_", " ")): number for name, number in tally.items()}
