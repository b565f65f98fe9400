"""The matrices of a group: their names, their sidecars, and edges that most participants have."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from difftract_bids import __version__
from difftract_bids.errors import InputError
from difftract_bids.group.collect import OVERALL, AtlasGroup, Group
from difftract_bids.group.measures import rule_of
from difftract_bids.group.moments import EdgeMoments
from difftract_bids.group.triangles import unpacked
from difftract_bids.io.atomic import write_json
from difftract_bids.io.matrices import read_matrix, write_matrix

STATISTICS = ("mean", "sd", "cv", "consistency")
_SAID = {
    "mean": "Mean over {over}; 0 where nobody has the edge",
    "sd": "Sample standard deviation (n - 1) over {over}; not a number with fewer than two",
    "cv": "Coefficient of variation, standard deviation over mean, over {over}; not a number "
    "where there is no standard deviation, or the mean is 0",
    "consistency": "Share of participants that have the edge, of those whose matrix has both "
    "nodes",
}
_COUNTING = (
    "Each participant counts once: runs are averaged within a session, then sessions. Over all "
    "sessions a participant has an edge if one run has it."
)
_THRESHOLDING = (
    "Edges that at least this share of participants have are kept (de Reus and van den Heuvel "
    "2013, doi:10.1016/j.neuroimage.2012.12.066, who recommend 30 to 90 per cent, about 60; see "
    "also Roberts et al. 2017, doi:10.1016/j.neuroimage.2016.09.053, for thresholds by the "
    "variation of weights)"
)
_CONSISTENT = "_desc-consistent"
_FILE = re.compile(
    r"(?P<stem>(?:ses-[a-zA-Z0-9+]+_)?atlas-[a-zA-Z0-9+]+)_meas-(?P<measure>[a-zA-Z0-9+]+)"
    r"_stat-(?P<statistic>[a-z]+)(?P<consistent>_desc-consistent)?_relmat\.dense\.tsv"
)


def matrix_stem(session: str, atlas: str, measure: str, statistic: str) -> str:
    """Name a matrix of a group, without its suffix.

    Parameters
    ----------
    session
        Label; empty for all sessions together.
    atlas, measure, statistic
        What it is of.
    """
    before = f"ses-{session}_" if session else ""
    return f"{before}atlas-{atlas}_meas-{measure}_stat-{statistic}"


def write_statistics(group: Group, folder: Path) -> list[Path]:
    """Write mean, standard deviation, variation and consistency of each atlas and measure.

    Parameters
    ----------
    group
        What was collected.
    folder
        Where ``[ses-A_]atlas-X_meas-count_stat-mean_relmat.dense.tsv`` and its kind are written,
        each with a sidecar.

    Returns
    -------
    list of Path
        The matrices.
    """
    written = []
    for atlas, own in group.atlases.items():
        keys = {key for sessions in own.moments.values() for key in sessions}
        lacking = {key: own.nodes.lacking(key or None) for key in keys}
        for measure, sessions in own.moments.items():
            for session, moments in sorted(sessions.items()):
                sidecar = _sidecar(own, atlas, measure, session, moments, lacking[session])
                written += _write(own, moments, measure, sidecar, folder)
    return written


def threshold_by_consistency(matrices: Sequence[Path], share: float, folder: Path) -> list[Path]:
    """Keep the edges that enough participants have.

    They are chosen by the counts of an atlas and session for all its measures, so that these have
    the same edges; without counts, by the first measure.

    Parameters
    ----------
    matrices
        What :func:`write_statistics` wrote.
    share
        Share of participants, above 0 and up to 1.
    folder
        Where the mean matrices are written with all other edges at 0, and the kept ones as 1
        (``stat-mask``); both ``desc-consistent``, each with a sidecar.

    Returns
    -------
    list of Path
        The matrices.

    Raises
    ------
    InputError
        If a matrix is not of a group, or cannot be read.
    """
    by_stem: dict[str, dict[str, dict[str, Path]]] = {}
    for path in matrices:
        name = _FILE.fullmatch(path.name)
        if name is None:
            raise InputError(
                "This is no matrix of a group.", where=path, remedy="Give those of one group run."
            )
        if not name["consistent"]:
            measures = by_stem.setdefault(name["stem"], {})
            measures.setdefault(name["measure"], {})[name["statistic"]] = path
    written = []
    for stem, measures in by_stem.items():
        chosen_by = "count" if "count" in measures else next(iter(measures))
        consistency, names = read_matrix(measures[chosen_by]["consistency"])
        # Nowhere where it is not a number; files have nine digits of it.
        kept = consistency >= share - 1e-8
        pairs = np.triu(np.ones_like(kept), k=1)
        said = {
            "ConsistencyThreshold": share,
            "ChosenBy": chosen_by,
            "Method": _THRESHOLDING,
            "EdgesKept": int((kept & pairs).sum()),
            "EdgesOfAnyone": int(((consistency > 0) & pairs).sum()),
        }
        mask_of = measures[chosen_by]["consistency"]
        written.append(
            _save_consistent(kept.astype(np.float64), names, mask_of, stem, said, folder)
        )
        for those in measures.values():
            mean, _ = read_matrix(those["mean"])
            mean = np.where(kept, mean, 0.0)
            written.append(_save_consistent(mean, names, those["mean"], stem, said, folder))
    return written


def _write(
    own: AtlasGroup, moments: EdgeMoments, measure: str, sidecar: dict[str, Any], folder: Path
) -> list[Path]:
    names, over = own.nodes.names, rule_of(measure).over
    n_nodes = len(names)
    statistics = moments.statistics(n_nodes * (n_nodes + 1) // 2)
    written = []
    for statistic in STATISTICS:
        values = getattr(statistics, statistic)
        stem = matrix_stem(sidecar.get("Session", OVERALL), sidecar["Atlas"], measure, statistic)
        path = folder / f"{stem}_relmat.dense.tsv"
        write_matrix(unpacked(values, n_nodes), names, path)
        said = {
            "Description": f"{_SAID[statistic].format(over=over)}. Of each participant: "
            f"{sidecar['MeasureDescription']}",
            "Statistic": statistic,
            **sidecar,
        }
        if statistic in ("cv", "consistency"):
            said["Units"] = "arbitrary"
        write_json(folder / f"{stem}_relmat.json", said)
        written.append(path)
    return written


def _sidecar(
    own: AtlasGroup,
    atlas: str,
    measure: str,
    session: str,
    moments: EdgeMoments,
    lacking: Mapping[str, list[str]],
) -> dict[str, Any]:
    met = own.settings[measure]
    rule = rule_of(measure)
    participants = set(moments.participants)
    said: dict[str, Any] = {
        "Atlas": atlas,
        **({"Session": session} if session else {}),
        "RelationshipMeasure": measure,
        "MeasureDescription": met.first.get("MeasureDescription", measure),
        "Units": met.first.get("Units", "arbitrary"),
        "Weighted": True,
        "Directed": False,
        "ValidDiagonal": met.first.get("ValidDiagonal", True),
        "StorageFormat": "Full",
        "NodeCount": len(own.nodes),
        "ParticipantCount": len(moments.participants),
        "SourceCount": own.n_runs[measure][session],
        "Participants": [f"sub-{label}" for label in moments.participants],
        "Averaging": _COUNTING,
        "ZeroIsAValue": rule.zero_is_a_value,
        "ZeroRule": rule.reason,
        "MissingNodes": {
            f"sub-{label}": nodes for label, nodes in lacking.items() if label in participants
        },
        "GeneratedBy": [{"Name": "difftract_bids", "Version": __version__}],
    }
    if "Assignment" in met.first:
        said["Assignment"] = met.first["Assignment"]
    if differences := met.differences():
        said["DifferentSettings"] = {
            name: [{"Value": json.loads(value), "First": run} for value, run in those.items()]
            for name, those in differences.items()
        }
    return said


def _save_consistent(
    matrix: Float[np.ndarray, "node node"],
    names: list[str],
    source: Path,
    stem: str,
    said: Mapping[str, Any],
    folder: Path,
) -> Path:
    name = _FILE.fullmatch(source.name)
    measure = name["measure"] if name else ""
    mask = name is not None and name["statistic"] == "consistency"
    statistic = "mask" if mask else "mean"
    target = folder / f"{stem}_meas-{measure}_stat-{statistic}{_CONSISTENT}_relmat.dense.tsv"
    write_matrix(matrix, names, target)
    sidecar = json.loads(
        source.with_name(source.name.replace(".dense.tsv", ".json")).read_text(encoding="utf-8")
    )
    before = sidecar["Description"]
    sidecar |= {
        "Description": "Edges that are kept (1) or not (0) by their consistency"
        if mask
        else f"{before}. Edges that are not consistent are 0",
        "Statistic": statistic,
        **said,
    }
    if mask:
        sidecar |= {"Units": "arbitrary", "Weighted": False}
    write_json(target.with_name(target.name.replace(".dense.tsv", ".json")), sidecar)
    return target
