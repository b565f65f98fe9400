"""Atlases: which parcellation a name on the command line means, checked before any work starts.

An atlas is given as one of

- ``ICBM100``: a built-in atlas (``difftract_bids/data/atlases``), which needs no network;
- ``Schaefer2018:100Parcels7Networks``: a TemplateFlow atlas, its ``desc`` after the colon where
  there are several; ``@MNI152NLin6Asym`` at the end picks another template;
- ``NAME=PATH``: an atlas in a BIDS dataset, on a template (``tpl-*/..._atlas-NAME_..._dseg``) or,
  where there is none, in each subject's own space
  (``sub-*/[ses-*/]{dwi,anat}/..._atlas-NAME_..._dseg``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal

from difftract_bids.bids.nodes import (
    TABLE_REMEDY,
    NodeTable,
    check_image,
    has_label_within,
    read_nodes,
)
from difftract_bids.bids.runs import DWIRun
from difftract_bids.bids.templates import (
    DEFAULT_TEMPLATE,
    entities_of,
    finest,
    from_templateflow,
    template_t1w,
)
from difftract_bids.errors import AtlasError

__all__ = [
    "Atlas",
    "NodeTable",
    "SubjectParcellation",
    "builtin_atlases",
    "check_atlas",
    "check_image",
    "nodes_of",
    "parcellation_of",
    "read_nodes",
    "resolve_atlas",
    "subject_parcellation",
]


@dataclass(frozen=True)
class Atlas:
    """A parcellation that can be brought to a subject.

    Attributes
    ----------
    name
        Value of the ``atlas-`` entity in output names.
    kind
        ``template`` (one image in a standard space) or ``subject`` (an image per subject).
    image, table
        Label image and node table; of kind ``subject``, those of the first subject found.
    nodes
        The node table read; of kind ``subject`` each subject's may differ.
    dataset
        Folder that the atlas was found in.
    template, template_t1w
        Template name and its T1w without skull, for kind ``template``.
    """

    name: str
    kind: Literal["template", "subject"]
    image: Path
    table: Path
    nodes: NodeTable
    dataset: Path
    template: str | None = None
    template_t1w: Path | None = None

    def description(self) -> dict[str, Any]:
        """Content of ``atlas-<name>_description.json``: the dataset's own, where it has one."""
        label = entities_of(self.image).get("atlas", self.name)
        path = self.dataset / f"atlas-{label}_description.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = {}
        described = found if isinstance(found, dict) else {}
        return {"Name": self.name, "License": "See the atlas's own dataset."} | described


@dataclass(frozen=True)
class SubjectParcellation:
    """One subject's own label image; ``space`` is ``dwi`` or ``T1w`` (the raw image's frame)."""

    image: Path
    table: Path
    nodes: NodeTable
    space: Literal["dwi", "T1w"]


def builtin_atlases() -> tuple[str, ...]:
    """Names of the atlases that come with the package."""
    return tuple(
        sorted(
            entities_of(image)["atlas"] for image in _builtin_dataset().glob("tpl-*/*_dseg.nii.gz")
        )
    )


def resolve_atlas(spec: str, *, offline: bool = False) -> Atlas:
    """Find an atlas and check that its table and image fit each other.

    Takes a second or two and never downloads more than TemplateFlow's files for that atlas.

    Parameters
    ----------
    spec
        ``ICBM100``, ``Schaefer2018[:DESC][@TEMPLATE]`` or ``NAME=PATH`` (see the module).
    offline
        Never use the network.

    Raises
    ------
    AtlasError
        If the atlas is unknown (the message lists what is known), ambiguous or out of reach, or
        its node table and label image disagree.
    """
    name, equals, path = spec.partition("=")
    if equals:
        return _from_dataset(name, Path(path), offline=offline)
    if spec in builtin_atlases():
        return _from_dataset(spec, _builtin_dataset(), offline=offline)
    return _from_templateflow(spec, offline=offline)


def subject_parcellation(
    atlas: Atlas,
    participant: str,
    session: str | None = None,
    entities: Mapping[str, str] | None = None,
    *,
    dwi_space: str | None = None,
) -> SubjectParcellation:
    """Find the label image of one subject, for an atlas of kind ``subject``.

    Parameters
    ----------
    atlas
        An atlas of kind ``subject``.
    participant, session
        Labels without ``sub-`` and ``ses-``.
    entities
        Further entities of the DWI (``run``, ``acq``, ``dir``, ...). Images that contradict them
        are left out; of the others, the one that shares most is taken, DWI space before T1w.
    dwi_space
        What else than ``dwi`` names may call the DWI's space, such as QSIPrep's ``ACPC``.

    Raises
    ------
    AtlasError
        If there is none for that subject, several equally good ones, or it is damaged.
    """
    folder = atlas.dataset / f"sub-{participant}"
    folders = [folder / f"ses-{session}", folder] if session else [folder]
    for base in folders:
        found = [
            (_agreement(entities_of(image), entities or {}), space == "dwi", image, space)
            for modality in ("dwi", "anat")
            for image in _images_named(base / modality, atlas.name)
            if (space := _space(image, dwi_space)) is not None
        ]
        usable = sorted(item for item in found if item[0] >= 0)
        if not usable:
            continue
        *others, best = usable
        if others and others[-1][:2] == best[:2]:
            raise AtlasError(
                f"Two parcellations fit sub-{participant} equally well: "
                f"{others[-1][2].name} and {best[2].name}.",
                where=base,
                remedy="Give them the entities (run-, acq-) of the DWI they belong to.",
            )
        table = _table_of(best[2], atlas.dataset)
        nodes = read_nodes(table)
        check_image(best[2], nodes)
        return SubjectParcellation(best[2], table, nodes, best[3])
    raise AtlasError(
        f"The atlas {atlas.name} has no parcellation of sub-{participant}"
        + (f", ses-{session}." if session else "."),
        where=folder,
        remedy=f"Add dwi/sub-{participant}_atlas-{atlas.name}_dseg.nii.gz (DWI space) or the "
        "same in anat/ (T1w space), or leave this participant out.",
    )


def check_atlas(atlas: Atlas, run: DWIRun) -> None:
    """Check that an atlas can be brought to a diffusion run, before anything long starts.

    Raises
    ------
    AtlasError
        If the atlas is in subjects' own space and this run has no usable parcellation, or has one
        in T1w space but no T1w.
    """
    if atlas.kind == "template":
        return
    found = parcellation_of(atlas, run)
    target = run.dwi if found.space == "dwi" else run.t1w
    if found.space == "T1w" and run.anatomy.in_dwi_space:
        raise AtlasError(
            f"The parcellation of sub-{run.participant} is in the space of the raw T1w, and the "
            f"diffusion images are in {run.anatomy.origin}'s.",
            where=found.image,
            remedy="Bring it into their space, and name that space as their files do (space-).",
        )
    if found.space == "T1w" and run.t1w is None:
        raise AtlasError(
            f"The parcellation of sub-{run.participant} is in T1w space, but there is no T1w.",
            where=found.image,
            remedy="Add the T1w, or bring the parcellation into DWI space.",
        )
    if target is not None and not has_label_within(found.image, target):
        raise AtlasError(
            f"No label of {atlas.name} lies within {target.name}.",
            where=found.image,
            remedy="Check the space that the parcellation's name and header say it is in.",
        )


def parcellation_of(atlas: Atlas, run: DWIRun) -> SubjectParcellation:
    """Find the parcellation of a diffusion run: :func:`subject_parcellation` by its file name."""
    # What a preprocessed image is called by its makers (space-, desc-) says nothing of the run.
    own = entities_of(run.dwi).items()
    entities = {k: v for k, v in own if k not in ("sub", "ses", "space", "desc", "res")}
    space = entities_of(run.dwi).get("space") if run.preprocessed is not None else None
    return subject_parcellation(atlas, run.participant, run.session, entities, dwi_space=space)


def nodes_of(atlas: Atlas, run: DWIRun) -> NodeTable:
    """Give the nodes that an atlas has in a diffusion run."""
    return parcellation_of(atlas, run).nodes if atlas.kind == "subject" else atlas.nodes


def _builtin_dataset() -> Path:
    # The package is always installed as files, never run from a zip archive.
    with as_file(files("difftract_bids.data") / "atlases") as folder:
        return folder


def _from_dataset(name: str, dataset: Path, *, offline: bool) -> Atlas:
    if not re.fullmatch(r"[a-zA-Z0-9+]+", name):
        raise AtlasError(
            f"{name!r} cannot be the name of an atlas.",
            where="--atlases",
            remedy="Write NAME=PATH, NAME being the letters and digits after atlas- in its files.",
        )
    if not dataset.is_dir():
        raise AtlasError(
            f"The dataset of the atlas {name} does not exist or is no folder.",
            where=dataset,
            remedy="Give the folder that holds its dataset_description.json.",
        )
    dataset = dataset.absolute()
    on_template = [
        image for folder in sorted(dataset.glob("tpl-*")) for image in _images_named(folder, name)
    ]
    images = on_template or [
        image
        for pattern in ("sub-*/dwi", "sub-*/anat", "sub-*/ses-*/dwi", "sub-*/ses-*/anat")
        for folder in sorted(dataset.glob(pattern))
        for image in _images_named(folder, name)
        if _space(image, "ACPC") is not None
    ]
    if not images:
        raise AtlasError(
            f"The dataset has no atlas called {name}.",
            where=dataset,
            remedy=f"It has: {', '.join(_atlases_in(dataset)) or 'none'}. An atlas is a file such "
            f"as tpl-{DEFAULT_TEMPLATE}/tpl-{DEFAULT_TEMPLATE}_atlas-{name}_res-01_dseg.nii.gz "
            f"or sub-01/dwi/sub-01_atlas-{name}_dseg.nii.gz.",
        )
    if not on_template:
        image = images[0]
        table = _table_of(image, dataset)
        return Atlas(name, "subject", image, table, read_nodes(table), dataset)
    image = finest(_of_one_template(images, dataset))
    return _template_atlas(name, image, _table_of(image, dataset), dataset, offline=offline)


def _template_atlas(name: str, image: Path, table: Path, dataset: Path, *, offline: bool) -> Atlas:
    nodes = read_nodes(table)
    check_image(image, nodes)
    template = entities_of(image)["tpl"]
    t1w = template_t1w(template, dataset, offline=offline)
    return Atlas(name, "template", image, table, nodes, dataset, template, t1w)


def _from_templateflow(spec: str, *, offline: bool) -> Atlas:
    match = re.fullmatch(
        r"(?P<atlas>[a-zA-Z0-9+]+)(:(?P<desc>[a-zA-Z0-9+]+))?(@(?P<tpl>\w+))?", spec
    )
    if match is None:
        raise _unknown(spec, [])
    template = match["tpl"] or DEFAULT_TEMPLATE
    find = partial(from_templateflow, template=template, offline=offline)
    images = [
        image
        for image in find("ls", suffix="dseg", extension=".nii.gz")
        if "atlas" in entities_of(image)
    ]
    named = [image for image in images if entities_of(image)["atlas"] == match["atlas"]]
    if not named:
        raise _unknown(spec, sorted({entities_of(image)["atlas"] for image in images}))
    descs = sorted({entities_of(image).get("desc", "") for image in named}, key=_natural)
    desc = match["desc"] or (descs[0] if len(descs) == 1 else None)
    if desc not in descs:
        raise AtlasError(
            f"TemplateFlow has {len(descs)} kinds of the atlas {match['atlas']} on {template}.",
            where=f"--atlases {spec}",
            remedy="Choose one of: "
            + ", ".join(f"{match['atlas']}:{known}" for known in descs if known)
            + ".",
        )
    query: dict[str, Any] = {"atlas": match["atlas"], "suffix": "dseg", "desc": desc or None}
    best = min(
        (image for image in named if entities_of(image).get("desc", "") == desc),
        key=lambda image: entities_of(image).get("res", "99"),
    )
    resolution = entities_of(best).get("res")
    found = find(
        "get",
        **query,
        extension=".nii.gz",
        resolution=int(resolution) if resolution else None,
    )
    tables = find("get", **query, extension=".tsv")
    if not found or not tables:
        raise AtlasError(
            f"TemplateFlow has no {'image' if tables else 'node table'} of {spec}.",
            where=f"--atlases {spec}",
            remedy="Give the atlas as NAME=PATH of a BIDS dataset that has both.",
        )
    label = f"{match['atlas']}x{desc}" if desc else match["atlas"]
    dataset = found[0].parent.parent
    return _template_atlas(label, found[0], tables[0], dataset, offline=offline)


def _unknown(spec: str, in_templateflow: Sequence[str]) -> AtlasError:
    return AtlasError(
        f"There is no atlas called {spec!r}.",
        where="--atlases",
        remedy=f"Built in: {', '.join(builtin_atlases())}. "
        f"TemplateFlow: {', '.join(in_templateflow) or 'none within reach'}. "
        "Your own: NAME=PATH of a BIDS dataset.",
    )


def _images_named(folder: Path, name: str) -> list[Path]:
    return [
        image
        for image in sorted([*folder.rglob("*_dseg.nii.gz"), *folder.rglob("*_dseg.nii")])
        if name in (entities_of(image).get("atlas"), entities_of(image).get("seg"))
    ]


def _atlases_in(dataset: Path) -> list[str]:
    images = [*dataset.glob("tpl-*/*_dseg.nii*"), *dataset.glob("sub-*/**/*_dseg.nii*")]
    return sorted({atlas for image in images if (atlas := entities_of(image).get("atlas"))})


def _of_one_template(images: list[Path], dataset: Path) -> list[Path]:
    """Images of the default template, or else of the only one."""
    templates = sorted({entities_of(image).get("tpl", "") for image in images} - {""})
    chosen = DEFAULT_TEMPLATE if DEFAULT_TEMPLATE in templates else "".join(templates[:1])
    images = [image for image in images if entities_of(image).get("tpl") == chosen]
    kinds = {
        tuple(sorted((k, v) for k, v in entities_of(image).items() if k != "res"))
        for image in images
    }
    if len(kinds) != 1 or (len(templates) > 1 and chosen != DEFAULT_TEMPLATE):
        raise AtlasError(
            f"The dataset holds several images of that atlas: "
            f"{', '.join(image.name for image in images[:4])}.",
            where=dataset,
            remedy="Keep one, or tell them apart by their atlas- entity (only res- may differ).",
        )
    return images


def _table_of(image: Path, dataset: Path) -> Path:
    """Find the table beside an image, or further up, by BIDS inheritance."""
    own = entities_of(image)
    folder = image.parent
    while True:
        tables = [
            table
            for table in sorted(folder.glob("*_dseg.tsv"))
            if own.items() >= (entities := entities_of(table)).items() and "atlas" in entities
        ]
        if tables:
            return max(tables, key=lambda table: len(entities_of(table)))
        if folder in (dataset, folder.parent):
            break
        folder = folder.parent
    raise AtlasError(
        "The atlas image has no node table.",
        where=image,
        remedy=f"Add {image.name.split('.nii')[0]}.tsv. {TABLE_REMEDY}",
    )


def _space(image: Path, dwi_space: str | None = None) -> Literal["dwi", "T1w"] | None:
    named = entities_of(image).get("space")
    if named is not None and named == dwi_space:
        return "dwi"
    space = named or ("dwi" if image.parent.name == "dwi" else "T1w")
    return "dwi" if space == "dwi" else "T1w" if space == "T1w" else None


def _agreement(own: Mapping[str, str], wanted: Mapping[str, str]) -> int:
    """Count shared entities; -1 where one contradicts."""
    shared = [key for key in wanted if key in own]
    # run-1 and run-01 are the same run.
    same = [own[key].lstrip("0") == wanted[key].lstrip("0") for key in shared]
    return len(shared) if all(same) else -1


def _natural(text: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", text)]
