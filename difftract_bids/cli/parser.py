"""The command line of the BIDS App, in fMRIPrep's and QSIPrep's words where they have them."""

from __future__ import annotations

import argparse
import re
from dataclasses import Field, fields
from importlib.metadata import version
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from difftract_bids import config as settings
from difftract_bids.cli.arguments import Parser, positive

PROGRAM = "difftract-bids"
_EXAMPLES = """\
examples:
  difftract-bids /data/bids /data/derivatives/difftract participant
  difftract-bids /data/bids /out participant --participant-label 01 02 --nprocs 8
  difftract-bids /data/bids /out participant --atlases Schaefer2018=/data/atlases ICBM100
  difftract-bids /data/bids /out participant -d qsiprep=/data/derivatives/qsiprep
  difftract-bids /data/bids /out group
  difftract-bids /data/bids /out participant --response /out/group
"""

#: Which settings are options, under which heading.
_GROUPS = {
    "preprocessing": settings.PreprocessingConfig,
    "fodf": settings.FodfConfig,
    "refinement": settings.RefinementConfig,
    "tracking": settings.TrackingConfig,
    "seeding": settings.SeedingConfig,
    "regions": settings.RegionsConfig,
    "act": settings.ActConfig,
    "connectome": settings.ConnectomeConfig,
    "sift2": settings.SIFT2Config,
    "sensitivity": settings.SensitivityConfig,
    "output": settings.OutputConfig,
    "group": settings.GroupConfig,
}
_TITLES = {
    "preprocessing": "preprocessing",
    "fodf": "fibre orientation distributions (paths may hold {subject} and {session})",
    "refinement": "fODFs adjusted to a target (the path may hold {subject} and {session})",
    "tracking": "tracking",
    "seeding": "seeding (paths may hold {subject} and {session})",
    "regions": "regions (the same; images of any grid, in the space of the diffusion data)",
    "act": "anatomical constraints (the path may hold {subject} and {session})",
    "connectome": "connectome (paths may hold {subject} and {session})",
    "sift2": "streamline weights, for the measure sift2",
    "sensitivity": "derivatives of the connectome",
    "output": "output",
    "group": "group level",
}
#: Names that MRtrix or QSIPrep users know by another word than the field's.
_FLAGS = {
    "algorithm": "--tracking-algorithm",
    "backend": "--tracking-backend",
    "model": "--fodf-model",
    "one_way": "--seed-unidirectional",
    "tractogram_tolerance_mm": "--tractogram-tolerance-mm",
}
_UNIT_SUFFIXES = ("_s_mm2", "_mm", "_deg")


class _Parser(Parser):
    """Take lists of numbers that begin with a minus for what they are."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401
        super().__init__(**options)
        # What begins with a minus is an option unless it looks like a number: -10,20,3 does too.
        self._negative_number_matcher = re.compile(r"-\.?\d[\d.eE+\-]*(,[\d.eE+\-]+)*$")


def build_parser() -> argparse.ArgumentParser:
    """Make the parser; settings have no defaults here, so that a file can set them."""
    parser = _Parser(
        prog=PROGRAM,
        description="From diffusion MRI (BIDS) to structural connectomes (BIDS derivatives).",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("bids_dir", type=Path, help="root folder of a BIDS dataset")
    parser.add_argument("output_dir", type=Path, help="folder for the derivatives")
    parser.add_argument(
        "analysis_level",
        choices=["participant", "group"],
        help="participant: everything up to the connectomes; group: statistics of the connectomes "
        "and quality measures of the participants in OUTPUT_DIR, and their average response "
        "functions, for another participant run's --response",
    )
    parser.add_argument(
        "--version", action="version", version=f"difftract-bids {version('difftract-bids')}"
    )
    _add_selection(parser)
    _add_atlases(parser)
    for name, config in _GROUPS.items():
        _add_settings(parser.add_argument_group(_TITLES[name]), name, config)
    _add_performance(parser)
    _add_execution(parser)
    return parser


def settings_from(
    arguments: argparse.Namespace, base: settings.Config | None = None
) -> settings.Config:
    """Merge defaults, the configuration file and the command line, in this order.

    Parameters
    ----------
    arguments
        Of the command line.
    base
        Settings to take for the defaults.
    """
    config = base or (settings.sloppy() if arguments.sloppy else settings.Config())
    if arguments.config_file:
        config = config.with_toml(arguments.config_file)
    tables: dict[str, Any] = {}
    for key, value in vars(arguments).items():
        group, _, name = key.partition(".")
        if name:
            tables.setdefault(group, {})[name] = value
    if arguments.atlases:
        tables["atlases"] = tuple(arguments.atlases)
    if arguments.derivatives:
        tables["derivatives"] = tuple(arguments.derivatives)
    return settings.merge(config, tables, where="the command line")


def _add_selection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("selection")
    group.add_argument(
        "--participant-label",
        "--participant_label",
        nargs="+",
        metavar="LABEL",
        help="participants (default: all)",
    )
    group.add_argument(
        "--session-label", nargs="+", metavar="LABEL", help="sessions (default: all)"
    )
    group.add_argument(
        "-d",
        "--derivatives",
        nargs="+",
        metavar="NAME=PATH",
        help="other programs' results to use instead of our own steps: qsiprep=PATH "
        "(preprocessed diffusion images), fmriprep=PATH or smriprep=PATH (anatomy), "
        "freesurfer=PATH (SUBJECTS_DIR)",
    )
    group.add_argument(
        "--bids-filter-file",
        type=Path,
        metavar="FILE",
        help="JSON file of the entities that inputs must have, by kind of image, as fMRIPrep and "
        'QSIPrep read it: {"dwi": {"acquisition": "hardi"}, "t1w": {"session": "01"}, '
        '"fmap": {}}',
    )
    group.add_argument(
        "--bids-database-dir",
        type=Path,
        metavar="DIR",
        help="folder of an index of BIDS_DIR, used if it is there and made if not; remove it when "
        "the dataset has changed",
    )
    group.add_argument(
        "--skip-bids-validation",
        action="store_true",
        help="accepted for other apps' sake: inputs are always checked, and only those needed",
    )


def _add_atlases(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("parcellations")
    group.add_argument(
        "--atlases",
        nargs="+",
        metavar="ATLAS",
        help="a built-in name (ICBM100), a TemplateFlow name such as Schaefer2018, or NAME=PATH "
        "of a BIDS atlas dataset or of derivatives with one dseg a participant (default: ICBM100)",
    )


def _add_performance(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("performance")
    group.add_argument(
        "--nprocs",
        "--nthreads",
        "--n-cpus",
        type=positive,
        dest="nprocs",
        metavar="N",
        help="CPUs to use in all (default: all available)",
    )
    group.add_argument("--omp-nthreads", type=positive, metavar="N", help="CPUs one step may use")
    group.add_argument(
        "--mem-mb",
        "--mem",
        type=positive,
        dest="mem_mb",
        metavar="MB",
        help="memory of all steps together (default: nine tenths of what the machine or container "
        "has, or what SLURM gave the job)",
    )
    group.add_argument(
        "--low-mem",
        action="store_true",
        help="one step at a time whatever --nprocs is: the least memory, in more time",
    )
    group.add_argument(
        "--use-plugin",
        "--nipype-plugin-file",
        type=Path,
        dest="plugin_file",
        metavar="FILE",
        help="YAML file of a Nipype plugin and its plugin_args, such as the SLURM one that comes "
        "with this package",
    )
    group.add_argument(
        "--resource-monitor",
        action="store_true",
        help="record memory and CPUs of each step, into the folder of logs",
    )


def _add_execution(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("execution")
    group.add_argument(
        "-w", "--work-dir", type=Path, help="working folder (default: work, in the current folder)"
    )
    group.add_argument(
        "--clean-workdir",
        action="store_true",
        help="remove its content that is ours after success",
    )
    group.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, print what would be done, with which files, outputs, memory and "
        "disk, and end",
    )
    group.add_argument(
        "--force",
        action="store_true",
        help="do runs anew that are finished, and every step of them",
    )
    group.add_argument(
        "--offline", action="store_true", help="never use the network, not for TemplateFlow either"
    )
    group.add_argument(
        "--sloppy",
        action="store_true",
        help="for tests of an installation only: few streamlines, hardly any preprocessing; "
        "settings that are given keep their values",
    )
    group.add_argument(
        "--config-file", type=Path, help="TOML file of settings; options override it"
    )
    group.add_argument(
        "--stop-on-first-crash", action="store_true", help="do not finish the others"
    )
    group.add_argument(
        "--write-graph",
        action="store_true",
        help="draw the graph of all steps into the folder of logs (needs Graphviz for pictures)",
    )
    group.add_argument(
        "--boilerplate-only",
        action="store_true",
        help="write the methods text of such a run (CITATION.md), and end",
    )
    group.add_argument(
        "--reports-only",
        action="store_true",
        help="rebuild the reports from OUTPUT_DIR, with the settings that the runs were done with",
    )
    group.add_argument(
        "--report-output-level",
        choices=["subject", "session"],
        default="subject",
        help="a report for each participant, or one for each session (default: subject)",
    )
    group.add_argument(
        "--notrack", action="store_true", help="accepted: there is no telemetry at all"
    )
    group.add_argument(
        "-v", "--verbose", action="count", default=0, help="more messages (-vv: all)"
    )


def _add_settings(group: argparse._ArgumentGroup, table: str, config: type) -> None:
    hints = get_type_hints(config)
    for item in fields(config):
        group.add_argument(
            flag_of(item.name),
            dest=f"{table}.{item.name}",
            default=argparse.SUPPRESS,
            help=_help(item),
            **_type(hints[item.name], item.metadata["unit"]),
        )


def flag_of(name: str) -> str:
    """Give the option of a setting."""
    if name in _FLAGS:
        return _FLAGS[name]
    for suffix in _UNIT_SUFFIXES:
        name = name.removesuffix(suffix)
    return "--" + name.replace("_", "-")


def _help(item: Field[Any]) -> str:
    text = item.metadata["desc"].removesuffix(".").replace("%", "%%")
    if item.default is None or item.default == () or isinstance(item.default, bool):
        return text
    default = f"{item.default:g}" if isinstance(item.default, float) else item.default
    if isinstance(default, tuple):
        default = " ".join(default)
    return f"{text} (default: {default})"


def _type(hint: Any, unit: str) -> dict[str, Any]:  # noqa: ANN401
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(hint) is tuple:  # MRtrix's way to give several is to repeat the option
        return {"nargs": "+", "action": "extend", "type": str, "metavar": unit.upper()}
    if get_origin(hint) in {Union, UnionType}:
        (hint,) = (choice for choice in get_args(hint) if choice is not type(None))
    return {"type": hint, "metavar": unit.upper() or "N"}
