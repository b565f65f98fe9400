"""Other programs' derivatives that are used instead of our own steps: ``--derivatives``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from difftract_bids.bids.inherited import read_json_object
from difftract_bids.errors import InputError, UsageError

Kind = Literal["qsiprep", "fmriprep", "smriprep", "freesurfer"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_TITLES = {
    "qsiprep": "QSIPrep",
    "fmriprep": "fMRIPrep",
    "smriprep": "sMRIPrep",
    "freesurfer": "FreeSurfer",
}
_FORM = "Write NAME=PATH, NAME being one of: " + ", ".join(KINDS) + "."


@dataclass(frozen=True)
class Derivative:
    """A folder of another program's results.

    Attributes
    ----------
    name
        What the user calls it.
    kind
        What it holds.
    path
        The folder that has ``sub-*`` in it, absolute.
    version
        Of the program; empty if unknown.
    """

    name: str
    kind: Kind
    path: Path
    version: str = ""

    @property
    def origin(self) -> str:
        """Program and version, as in ``qsiprep 1.0.1``."""
        return f"{self.kind} {self.version}".strip()

    @property
    def title(self) -> str:
        """The same as its authors write it."""
        return f"{_TITLES[self.kind]} {self.version}".strip()

    def folder_of(self, participant: str) -> Path:
        """Find the folder of a participant.

        Raises
        ------
        InputError
            If there is none.
        """
        folder = self.path / f"sub-{participant}"
        if not folder.is_dir():
            raise InputError(
                f"{_TITLES[self.kind]} has no results of participant {participant}.",
                where=self.path,
                remedy=f"Run it for this participant, leave --derivatives {self.name}=... out, "
                "or name other participants with --participant-label.",
            )
        return folder


def resolve_derivatives(specs: Sequence[str], bids_dir: Path) -> tuple[Derivative, ...]:
    """Find out what is given, in a moment.

    A folder of QSIPrep's that is given as BIDS_DIR counts as named.

    Parameters
    ----------
    specs
        ``NAME=PATH``, or the path of a folder that says who made it.
    bids_dir
        The dataset.

    Raises
    ------
    UsageError
        If a name is unknown, two give the same thing, or BIDS_DIR is somebody's derivatives.
    InputError
        If a folder does not exist or has no participants.
    """
    found = [_resolve(spec) for spec in specs]
    kind, version = _made_by(bids_dir)
    if kind == "qsiprep" and not any(one.kind == "qsiprep" for one in found):
        found.append(Derivative("qsiprep", kind, bids_dir.absolute(), version))
    elif kind in ("fmriprep", "smriprep"):
        raise UsageError(
            f"BIDS_DIR holds derivatives of {_TITLES[kind]}, which have no diffusion images.",
            where=bids_dir,
            remedy=f"Give the raw dataset, and this folder as --derivatives {kind}={bids_dir}.",
        )
    _refuse_rivals(found)
    return tuple(found)


def _resolve(spec: str) -> Derivative:
    name, equals, text = spec.partition("=")
    # Shells do not expand a ~ in the middle of a word.
    path = Path(text if equals else spec).expanduser().absolute()
    if equals and not re.fullmatch(r"[a-zA-Z0-9]+", name):
        raise UsageError(
            f"{name!r} cannot be the name of derivatives: letters and digits only.",
            where=f"--derivatives {spec}",
            remedy=_FORM,
        )
    kind, version = _made_by(path)
    named = next((known for known in KINDS if known == name.lower()), None)
    if equals and named is None and kind is None:
        raise UsageError(
            f"Derivatives called {name!r} are not known, and their folder does not say who "
            "made them.",
            where=f"--derivatives {spec}",
            remedy=_FORM,
        )
    if not path.is_dir():
        raise InputError(
            "There is no such folder of derivatives.",
            where=path,
            remedy=f"Check the path. {_FORM}",
        )
    if named is not None and kind is not None and named != kind:
        raise UsageError(
            f"The folder given as {name} was made by {_TITLES[kind]}.",
            where=path / "dataset_description.json",
            remedy=f"Write --derivatives {kind}={text}.",
        )
    chosen = named or kind
    if chosen is None:
        raise UsageError(
            "The folder does not say which program made it.", where=path, remedy=_FORM
        )
    if not any(path.glob("sub-*")):
        inner = path / chosen
        hint = f"Did you mean {inner}?" if any(inner.glob("sub-*")) else "Check the path."
        raise InputError(
            "The folder of derivatives has no participant: no sub-* folder.",
            where=path,
            remedy=f"Give the folder that holds sub-*. {hint}",
        )
    version = version or (_freesurfer_version(path) if chosen == "freesurfer" else "")
    return Derivative(name if equals else chosen, chosen, path, version)


def _made_by(path: Path) -> tuple[Kind | None, str]:
    """Read who made a folder, as far as it is known here, and in which version.

    Releases before BIDS 1.4 wrote ``PipelineDescription`` where others have ``GeneratedBy``.
    """
    try:
        said = read_json_object(path / "dataset_description.json")
    except (OSError, ValueError):
        return None, ""
    makers = said.get("GeneratedBy", said.get("PipelineDescription"))
    for maker in makers if isinstance(makers, list) else [makers]:
        if isinstance(maker, dict):
            name = str(maker.get("Name", "")).lower()
            for kind in KINDS:
                if kind in name:
                    return kind, str(maker.get("Version", ""))
    return None, ""


def _freesurfer_version(path: Path) -> str:
    """Read the version from the stamp that recon-all leaves with each participant."""
    for stamp in sorted(path.glob("sub-*/scripts/build-stamp.txt"))[:1]:
        match = re.search(r"(\d+\.\d+(?:\.\d+)*)", stamp.read_text(errors="replace"))
        return match[1] if match else ""
    return ""


def _refuse_rivals(found: Sequence[Derivative]) -> None:
    """Refuse two sources of the same thing: which of them would be used is for the user to say."""
    roles = {"smriprep": "fmriprep"}
    seen: dict[str, Derivative] = {}
    names: set[str] = {"raw"}
    for one in found:
        role = roles.get(one.kind, one.kind)
        if role in seen or one.name in names:
            other = seen.get(role)
            raise UsageError(
                f"Two of the derivatives give the same: {one.name}"
                + (f" and {other.name}." if other else "."),
                where="--derivatives",
                remedy="Name one of them only, each by a name of its own.",
            )
        seen[role] = one
        names.add(one.name)
