"""Where the runs of a participant come from: raw data, and derivatives that take their place."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from difftract_bids.bids import fmriprep, freesurfer, qsiprep
from difftract_bids.bids.anatomy import Anatomy
from difftract_bids.bids.derivative_inputs import Derivative
from difftract_bids.bids.filters import Filters
from difftract_bids.bids.raw_dataset import RawDataset
from difftract_bids.bids.raw_runs import find_raw_anatomy, find_runs
from difftract_bids.bids.runs import DWIRun
from difftract_bids.config import PreprocessingConfig
from difftract_bids.errors import InputError, UsageError

#: An anatomy, and what the user should know of it.
_Found = tuple[Anatomy, list[str]]


@dataclass(frozen=True)
class Sources:
    """What runs are found in.

    Attributes
    ----------
    raw
        The raw dataset; ``None`` where BIDS_DIR is a folder of QSIPrep's.
    derivatives
        Others' results.
    filters
        Which images count as inputs: raw ones, and diffusion images that QSIPrep preprocessed.
    """

    raw: RawDataset | None
    derivatives: tuple[Derivative, ...] = ()
    filters: Filters = field(default_factory=Filters)

    @property
    def root(self) -> Path:
        """Folder of the raw dataset; the current one where there is none."""
        return Path() if self.raw is None else self.raw.root

    def runs_of(
        self, participant: str, sessions: list[str] | None, config: PreprocessingConfig
    ) -> list[DWIRun]:
        """Find the diffusion runs of a participant, with their anatomy.

        The anatomy is fMRIPrep's (or sMRIPrep's) where given, else FreeSurfer's, else QSIPrep's,
        else raw: what the user names besides QSIPrep is meant to be used.

        Raises
        ------
        InputError
            If there is none, or something of a run is missing.
        UsageError
            If preprocessed runs are to be combined.
        """
        given = self._of("qsiprep")
        if given is None:
            found = find_runs(self.raw, participant, sessions, config) if self.raw else []
        elif config.combine_runs:
            raise UsageError(
                "Runs that QSIPrep has preprocessed are not combined.",
                where="--combine-runs",
                remedy="Leave it out: QSIPrep combines runs itself, unless it is told to keep "
                "them apart.",
            )
        else:
            found = qsiprep.find_preprocessed_runs(given, participant, sessions)
            found = self._let_through(found)
        noted = [replace(run, notes=(*run.notes, *self.filters.notes)) for run in found]
        return [self._with_anatomy(run) for run in noted]

    def _let_through(self, runs: list[DWIRun]) -> list[DWIRun]:
        """Keep the preprocessed runs that count as inputs."""
        kept = [run for run in runs if self.filters.keep("dwi", run.dwi)]
        if not kept:
            raise InputError(
                f"The filter file lets no diffusion image of participant {runs[0].participant} "
                f"through that QSIPrep has preprocessed: it leaves out {len(runs)}, first "
                f"{runs[0].dwi.name}, by {self.filters.said_of('dwi')}.",
                where=runs[0].dwi.parent,
                remedy="Change what is asked of dwi there, or name other participants.",
            )
        return kept

    def _with_anatomy(self, run: DWIRun) -> DWIRun:
        """Give a run the best anatomy there is, and say whose it is."""
        anatomy, notes = self._anatomy_of(run)
        source = next((one for one in self.derivatives if one.origin == anatomy.origin), None)
        origins = list(run.origins)
        if source is not None and anatomy.t1w is not None:
            also = f", with {', '.join(anatomy.parts)}" if anatomy.parts else ""
            origins.append(f"The T1w is that of {source.title}{also}.")
        if anatomy.t1w is None and self.raw is not None and anatomy.origin != "raw":
            raw, said = find_raw_anatomy(self.raw, run.participant, run.session)
            anatomy, notes = replace(anatomy, t1w=raw.t1w), [*notes, *said]
        return replace(run, anatomy=anatomy, origins=tuple(origins), notes=(*run.notes, *notes))

    def _anatomy_of(self, run: DWIRun) -> _Found:
        """Find the anatomy in the first of the sources that is given."""
        surfaces = self._of("freesurfer")
        volumes = self._of("fmriprep") or self._of("smriprep")
        given = self._of("qsiprep")
        if volumes is not None:
            found = fmriprep.find_anatomy(volumes, run.participant, run.session)
            return found if surfaces is None else _with_labels(found, surfaces, run)
        if surfaces is not None:
            return freesurfer.find_anatomy(surfaces, run.participant, run.session)
        anatomy, notes = qsiprep.find_anatomy(given, run) if given else (Anatomy(), [])
        if anatomy.t1w is None and self.raw is not None:
            anatomy, said = find_raw_anatomy(self.raw, run.participant, run.session)
            notes = [*notes, *said]
        return anatomy, notes

    def _of(self, kind: str) -> Derivative | None:
        return next((one for one in self.derivatives if one.kind == kind), None)


def _with_labels(found: _Found, surfaces: Derivative, run: DWIRun) -> _Found:
    """Take FreeSurfer's labels for fMRIPrep's T1w, if it has none and they lie in one space."""
    anatomy, notes = found
    if anatomy.aparcaseg is not None and anatomy.aparcaseg.name.endswith("aparcaseg_dseg.nii.gz"):
        return found
    labels = freesurfer.find_anatomy(surfaces, run.participant, run.session)[0].aparcaseg
    if anatomy.t1w is not None and freesurfer.is_same_space(anatomy.t1w):
        return replace(anatomy, aparcaseg=labels), [
            *notes,
            f"FreeSurfer's labels are those of {surfaces.title}.",
        ]
    unused = (
        f"The labels of {surfaces.title} are not used: they lie in another space than the T1w."
    )
    return anatomy, [*notes, unused]
