"""All checks of a run in one table, with those that its streamlines and matrices need."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
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
    whole_brain = traits.Bool(
        default_value=True, usedefault=True, desc="Whether streamlines may start and go anywhere."
    )
    earlier = File(
        exists=True, desc="Table of checks made before; those that are not made again are kept."
    )


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
        checks = self._with_earlier([*given, *self._of_streamlines()])
        self._results.update(
            checks=[check.to_dict() for check in checks],
            table=str(write_checks(checks, Path(runtime.cwd) / "checks.tsv")),
            metadata=checks_metadata(self.inputs.notes or []),
        )
        return runtime

    def _with_earlier(self, checks):
        """Put checks that were made before, and cannot be made again, in their places."""
        from difftract_bids.checks.table import read_checks
        from difftract_bids.errors import InputError

        if not isdefined(self.inputs.earlier):
            return checks
        try:
            earlier = read_checks(Path(self.inputs.earlier))
        except InputError:
            return checks
        known = {(check.name, check.of): check for check in earlier}
        made = {(check.name, check.of) for check in checks}
        kept = [  # what was judged once is known
            known.get((check.name, check.of), check) if check.light == "unknown" else check
            for check in checks
        ]
        for place, check in enumerate(earlier):
            if (check.name, check.of) not in made:
                kept.insert(place, check)
        return kept

    def _of_streamlines(self):
        """Check streamlines, and the matrix of each atlas."""
        yield safely("streamlines", "Streamlines", self._check_streamlines)
        atlases, files = self.inputs.atlases or [], self.inputs.counts or []
        assigned = self.inputs.assigned or [None] * len(files)
        for atlas, file, n_assigned in zip(atlases, files, assigned, strict=True):
            check = safely(
                "connectome",
                "Connectome",
                partial(_check_connectome, atlas, file, n_assigned, self.inputs),
            )
            # Also where it could not be made: of several atlases, it must be known whose.
            yield replace(check, of=atlas)

    def _check_streamlines(self):
        from difftract_bids.checks.streamlines import check_streamlines
        from difftract_bids.io.summaries import lengths_of

        tally = self.inputs.tractogram_metadata.get("Counts", {})
        return check_streamlines(
            lengths_of(self.inputs.summary),
            n_seeds=tally.get("Seeds", 0),
            stop_reasons=tally.get("StopReasons"),
            whole_brain=self.inputs.whole_brain,
        )


def _check_connectome(atlas, counts, n_assigned, inputs):
    from difftract_bids.checks.connectome import check_connectome
    from difftract_bids.io.matrices import read_matrix
    from difftract_bids.io.summaries import count_summary

    return check_connectome(
        atlas,
        *read_matrix(counts),
        n_streamlines=count_summary(inputs.summary)[0],
        n_assigned=n_assigned,
        whole_brain=inputs.whole_brain,
    )
