"""With which settings finished runs were done, as their records and logs know it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from difftract_bids.bids.records import all_records
from difftract_bids.config import Config
from difftract_bids.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class AsRun:
    """Finished runs that were done with the same settings.

    Attributes
    ----------
    config
        The settings.
    file
        Where they were read, relative to the derivatives folder: the latest, if there are several.
    stems
        Names of the runs.
    """

    config: Config
    file: str
    stems: frozenset[str]


def settings_as_run(output_dir: Path) -> tuple[list[AsRun], dict[str, str]]:
    """Sort the finished runs of a derivatives folder by the settings that they were done with.

    Parameters
    ----------
    output_dir
        The derivatives folder.

    Returns
    -------
    list of AsRun
        The latest settings first.
    dict
        Names of runs whose settings cannot be read, and why.
    """
    by_logs: dict[str, set[str]] = defaultdict(set)
    for stem, record in all_records(output_dir).items():
        by_logs[record.logs].add(stem)
    files: dict[str, str] = {}
    stems: dict[str, set[str]] = defaultdict(set)
    unknown: dict[str, str] = {}
    # Folders of logs are named by their time. A thousand of them may hold the same settings.
    for logs, own in sorted(by_logs.items(), reverse=True):
        try:
            text = (output_dir / logs / "config.toml").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            unknown |= dict.fromkeys(sorted(own), str(error))
            continue
        files.setdefault(text, f"{logs}/config.toml")
        stems[text] |= own
    found = []
    for text, file in files.items():
        try:
            config = Config.from_toml(output_dir / file)
        except ConfigError as error:  # another version had other settings
            unknown |= dict.fromkeys(sorted(stems[text]), str(error))
        else:
            found.append(AsRun(config, file, frozenset(stems[text])))
    return found, unknown
