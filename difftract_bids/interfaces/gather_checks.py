"""All checks of a run in one table, with those that its streamlines and matrices need."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from difftract_bids.interfaces.checked import safely


class GatherChecksInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`GatherChecks`."""

    checks = traits.List(traits.Dict, desc="Checks of images and registrations, in order.")
    summary = File(exists=True, mandatory=True, desc="Ends and length of each streamline.")
    tractogram_metadata = traits.Dict(mandatory=True, desc="Its sidecar, with counts.")
    atlases = traits.List(traits.Str, desc="Names of the atlases, in the matrices' order.")
    counts = traits.List(File(exists=True), desc="Streamline count matrix of each atlas.")
    assigned = traits.List(traits.Int, desc="Streamlines that connect nodes of each atlas.")
    notes = traits.List(traits.Str, desc="What the stages want the user to know.")


class GatherChecksOutputSpec(TraitedSpec):
    """Outputs of :class:`GatherChecks`."""

    checks = traits.List(traits.Dict, desc="All checks, in the order of the work.")
    table = File(desc="The same as a table (TSV).")
    metadata = traits.Dict(desc="Its sidecar.")


class GatherChecks(SimpleInterface):
    """Check streamlines and connectomes, and write down what all checks of a run found.

    Examples
    --------
    >>> from difftract_bids.interfaces.gather_checks import GatherChecks
    >>> mask = {"name": "mask", "title": "Brain mask", "light": "good", "found": "1,400 mL."}
    >>> gather = GatherChecks(
    ...     checks=[mask],
    ...     summary="summary.parquet",
    ...     tractogram_metadata={"Counts": {"Seeds": 6000}},
    ...     atlases=["Phantom"],
    ...     counts=["count.dense.tsv"],
    ... )
    >>> gathered = gather.run().outputs
    >>> [check["name"] for check in gathered.checks]
    ['mask', 'streamlines', 'connectome']
    >>> gathered.table
    '/.../checks.tsv'
    """

    input_spec, output_spec = GatherChecksInputSpec, GatherChecksOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.checks.table import checks_metadata, write_checks
        from difftract_bids.checks.verdict import Check

        given = [Check.from_dict(check) for check in self.inputs.checks or []]
        checks = [*given, *self._of_streamlines()]
        self._results.update(
            checks=[check.to_dict() for check in checks],
            table=str(write_checks(checks, Path(runtime.cwd) / "checks.tsv")),
            metadata=checks_metadata(self.inputs.notes or []),
        )
        return runtime

    def _of_streamlines(self):
        """Check streamlines, and the matrix of each atlas."""
        from difftract_bids.checks.connectome import check_connectome
        from difftract_bids.checks.streamlines import check_streamlines
        from difftract_bids.io.matrices import read_matrix
        from difftract_bids.io.summaries import lengths_of

        lengths_mm = lengths_of(self.inputs.summary)
        tally = self.inputs.tractogram_metadata.get("Counts", {})
        n_seeds, reasons = tally.get("Seeds", 0), tally.get("StopReasons")
        yield safely(
            "streamlines",
            "Streamlines",
            lambda: check_streamlines(lengths_mm, n_seeds=n_seeds, stop_reasons=reasons),
        )
        atlases, files = self.inputs.atlases or [], self.inputs.counts or []
        assigned = self.inputs.assigned or [None] * len(files)
        for atlas, file, n_assigned in zip(atlases, files, assigned, strict=True):
            check = partial(
                check_connectome,
                atlas,
                *read_matrix(file),
                n_streamlines=len(lengths_mm),
                n_assigned=n_assigned,
            )
            yield safely("connectome", f"Connectome {atlas}", check)
