"""The user's plugin file: which of Nipype's plugins runs the steps, and with which arguments."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from difftract_bids.cli.plugins.batch_resources import ask_for_resources, cpus_asked
from difftract_bids.cli.plugins.sbatch_options import sbatch_options
from difftract_bids.errors import UsageError

__all__ = ["PluginChoice", "ask_for_resources", "check_for_batch", "read_plugin"]

_LOCAL_ARGS = (
    *("n_procs", "memory_gb", "n_gpu_procs", "raise_insufficient", "scheduler"),
    # Others of Nipype's, which files written for other apps have; they change nothing here.
    *("maxtasksperchild", "mp_context", "non_daemon"),
)
#: Nipype's own names of two of its settings, which a batch system wants otherwise than processes.
_WAITING = ("poll_sleep_duration", "job_finished_timeout")
_BATCH_ARGS = ("template", "max_jobs", "max_tries", "retry_timeout", *_WAITING)
_IPYTHON_ARGS = (
    *("url_file", "profile", "cluster_id", "context", "debug", "timeout", "config", "username"),
    *("sshserver", "sshkey", "password", "paramiko"),
)
#: The plugins of Nipype 1.11 that can run this app, and what they take.
_ARGS: dict[str, tuple[str, ...]] = {
    "MultiProc": _LOCAL_ARGS,
    "LegacyMultiProc": _LOCAL_ARGS,
    "Linear": _LOCAL_ARGS,
    "SLURM": (*_BATCH_ARGS, "sbatch_args", "jobid_re"),
    "SLURMGraph": (*_BATCH_ARGS, "sbatch_args", "jobid_re", "dont_resubmit_completed_jobs"),
    "SGE": (*_BATCH_ARGS, "qsub_args", "qstatProgramPath", "qstatCachedProgramPath"),
    "PBS": (*_BATCH_ARGS, "qsub_args", "max_jobname_len"),
    "LSF": (*_BATCH_ARGS, "bsub_args"),
    "OAR": (*_BATCH_ARGS, "oarsub_args", "max_jobname_len"),
    "Condor": (*_BATCH_ARGS, "qsub_args"),
    "IPython": (*_IPYTHON_ARGS, "max_jobs", *_WAITING),
}
#: The others, and why not.
_UNUSABLE = {
    "CondorDAGMan": "it submits everything and cannot tell what becomes of it; use Condor",
    "PBSGraph": "it submits everything and cannot tell what becomes of it; use PBS",
    "SGEGraph": "it submits everything and cannot tell what becomes of it; use SGE",
    "SomaFlow": "it needs soma-workflow, which is no longer developed",
    "Debug": "it runs nothing",
}
#: What each batch system is talked to with.
_PROGRAMS = {
    "SLURM": ("sbatch", "squeue", "scontrol", "scancel"),
    "SLURMGraph": ("sbatch", "squeue", "scontrol", "scancel"),
    "SGE": ("qsub", "qstat"),
    "PBS": ("qsub", "qstat"),
    "LSF": ("bsub", "bjobs"),
    "OAR": ("oarsub", "oarstat"),
    "Condor": ("condor_qsub", "condor_q"),
}
_LOCAL = ("MultiProc", "Linear")
_OF_SLURM = ("SLURM", "SLURMGraph")
_COUNTS = ("n_procs", "n_gpu_procs", "max_jobs", "max_tries", "max_jobname_len")
_AMOUNTS = ("memory_gb", "retry_timeout", *_WAITING)
_TEXTS = ("template", "sbatch_args", "qsub_args", "bsub_args", "oarsub_args", "jobid_re")
#: What Nipype puts into Python source, or looks for by a pattern, as it is.
_BREAKS_NIPYPE = re.compile(r"""['\\*?\[\]\x00-\x1f\x7f]""")
#: What Nipype hands to a shell as it is: letters of any alphabet, and what means nothing there.
_SHELL_SAFE = re.compile(r"[\w/.,:=@+-]*")
_ANSWER_S = 60


@dataclass(frozen=True)
class PluginChoice:
    """What runs the steps.

    Attributes
    ----------
    name
        One of Nipype's plugins.
    args
        Its arguments, checked; a template is the text of the script.
    """

    name: str
    args: dict[str, Any]

    @property
    def is_local(self) -> bool:
        """Whether steps are processes on this machine."""
        return self.name in _LOCAL

    @property
    def is_slurm(self) -> bool:
        """Whether steps are jobs of SLURM."""
        return self.name in _OF_SLURM

    @property
    def n_procs(self) -> int | None:
        """CPUs of all steps together; only of a local plugin."""
        return self.args.get("n_procs")

    @property
    def cpus_a_step(self) -> int | None:
        """CPUs that the user has every step of SLURM ask for; ``None`` if that is left to it."""
        if not self.is_slurm:
            return None
        return cpus_asked(
            sbatch_options(self.args.get("sbatch_args", ""), self.args.get("template", ""))
        )

    @property
    def memory_gb(self) -> float | None:
        """Memory of all steps together, GB; only of a local plugin."""
        return self.args.get("memory_gb")


def read_plugin(path: Path) -> PluginChoice:
    """Read a plugin file, as fMRIPrep and QSIPrep have it: YAML, ``plugin`` and ``plugin_args``.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    UsageError
        If it is not such a file, or names what Nipype would ignore or fail with hours later.
    """
    content = _load(path)
    unknown = sorted(map(str, set(content) - {"plugin", "plugin_args"}))
    if unknown:
        raise _unusable(f"unknown: {', '.join(unknown)}", path, "It has plugin and plugin_args.")
    name = content["plugin"] if isinstance(content["plugin"], str) else repr(content["plugin"])
    if name in _UNUSABLE:
        raise _unusable(f"plugin {name} cannot be used", path, f"Reason: {_UNUSABLE[name]}.")
    if name not in _ARGS:
        known = ", ".join([*_ARGS, *_UNUSABLE])
        raise _unusable(f"no plugin {name}", path, f"Nipype 1.11 has {known}.")
    args = content.get("plugin_args")
    args = {} if args is None else args
    if not isinstance(args, dict):
        raise _unusable("plugin_args is no mapping", path, "Give arguments as NAME: VALUE lines.")
    unknown = sorted(map(str, set(args) - set(_ARGS[name])))
    if unknown:
        known = ", ".join(_ARGS[name])
        raise _unusable(f"{name} has no argument {', '.join(unknown)}", path, f"It has {known}.")
    for key, value in args.items():
        _check_value(key, value, path)
    if args.get("template"):
        args["template"] = _template(args["template"], path)
    if name in _OF_SLURM:
        sbatch_options(args.get("sbatch_args", ""), args.get("template", ""), path)
    # Nipype's older one is the same with another pool; there is one of our own for both.
    return PluginChoice("MultiProc" if name == "LegacyMultiProc" else name, args)


def check_for_batch(work_dir: Path, plugin: PluginChoice) -> None:
    """Check that a batch system is there, and that Nipype can name it files in a working folder.

    Parameters
    ----------
    work_dir
        Working folder.
    plugin
        What runs the steps; nothing is checked of a local one.

    Raises
    ------
    UsageError
        If the system does not answer, or the folder's path means something to a shell.
    """
    if plugin.is_local:
        return
    _check_path(work_dir.resolve(), plugin)
    missing = [name for name in _PROGRAMS.get(plugin.name, ()) if shutil.which(name) is None]
    if missing:
        raise UsageError(
            f"The plugin {plugin.name} needs {', '.join(missing)}, which this machine has not.",
            where="--nipype-plugin-file",
            remedy="Run this where jobs can be submitted; in a container, run one job a "
            "participant instead (docs/cluster.md).",
        )
    if plugin.name == "IPython" and find_spec("ipyparallel") is None:
        raise UsageError(
            "The plugin IPython needs ipyparallel, which is not installed.",
            where="--nipype-plugin-file",
            remedy="Install it: pip install ipyparallel.",
        )
    if plugin.is_slurm:
        _check_answer()


def _load(path: Path) -> dict[str, Any]:
    import yaml  # type: ignore[import-untyped]

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(f"cannot be read ({error})", path, "Name a readable file.") from None
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        raise _unusable(f"not YAML ({said})", path, "Mend the file.") from None
    if not isinstance(content, dict) or "plugin" not in content:
        raise _unusable("it names no plugin", path, "It begins with, say, plugin: SLURM")
    return content


def _check_value(key: str, value: object, path: Path) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if key in _COUNTS and not (is_number and isinstance(value, int) and value > 0):
        raise _unusable(f"{key}: {value!r}", path, "Give a whole number above zero.")
    if key in _AMOUNTS and not (is_number and value > 0):  # type: ignore[operator]
        raise _unusable(f"{key}: {value!r}", path, "Give a number above zero.")
    if key in _TEXTS and not isinstance(value, str):
        raise _unusable(f"{key}: {value!r}", path, "Give a text, in quotes.")


def _template(given: str, path: Path) -> str:
    """Read a template; Nipype would take a path where no file is for the script itself."""
    if given.startswith("#!"):
        return given
    file = Path(os.path.expandvars(given)).expanduser()
    # Beside the plugin file, or, as Nipype has it, from the current folder.
    found = next((one for one in (path.parent / file, file) if one.is_file()), None)
    text = "" if found is None else found.read_text(encoding="utf-8")
    if not text.startswith("#!"):
        what = "no such template" if found is None else "the template does not begin with #!"
        raise _unusable(
            f"{what}: {given}", path, "Name a batch script, which begins with, say, #!/bin/bash"
        )
    return text


def _check_path(path: Path, plugin: PluginChoice) -> None:
    text = str(path)
    if plugin.is_slurm or plugin.name == "IPython":
        bad = set(_BREAKS_NIPYPE.findall(text))
    else:
        bad = {sign for sign in text if not _SHELL_SAFE.fullmatch(sign)}
    if bad:
        raise UsageError(
            f"The plugin {plugin.name} cannot work in a folder with "
            f"{' '.join(map(repr, sorted(bad)))} in its path.",
            where=path,
            remedy="Choose another --work-dir, of letters, digits and - _ . in folders' names.",
        )


def _check_answer() -> None:
    command = ["squeue", "--noheader", f"--user={os.getuid()}", "--format=%i"]
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, check=False, timeout=_ANSWER_S
        )
        said = done.stderr.strip() if done.returncode else ""
    except subprocess.TimeoutExpired:
        said = f"no answer in {_ANSWER_S} s"
    if said:
        raise UsageError(
            f"SLURM does not answer: {said}",
            where=" ".join(command),
            remedy="Try sinfo; run this where jobs can be submitted.",
        )


def _unusable(what: str, path: Path, remedy: str) -> UsageError:
    return UsageError(f"The plugin file cannot be used: {what}.", where=path, remedy=remedy)
