"""Nipype's own settings, in a file of this run's own that worker processes read as well."""

from __future__ import annotations

import os
from pathlib import Path

#: Every library has its own variable; none may take more than a step is given.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


def configure_nipype(
    logs: Path, *, verbose: int = 0, stop_on_first_crash: bool = False, monitor: bool = False
) -> None:
    """Set Nipype up, before it is imported; it does not look for a file in HOME then.

    A container may have no HOME.

    Parameters
    ----------
    logs
        Folder of logs of this run.
    verbose
        How much Nipype says.
    stop_on_first_crash
        Do not finish the others.
    monitor
        Record memory and CPUs of each step.
    """
    level = {0: "WARNING", 1: "INFO"}.get(verbose, "DEBUG")
    folder = str(logs).replace("%", "%%")  # configparser's own sign
    lines = [
        "[logging]",
        *(f"{name}_level = {level}" for name in ("workflow", "interface", "utils")),
        "[execution]",
        f"crashdump_dir = {folder}",
        "crashfile_format = txt",
        f"stop_on_first_crash = {str(stop_on_first_crash).lower()}",
        # Nipype looks every 2 s by default, which is most of the time of a run of short steps.
        "poll_sleep_duration = 0.2",
        # A network file system may show a result only after a while.
        "job_finished_timeout = 60",
        "check_version = false",
        "parameterize_dirs = false",
        # Its pages of the graph lie where runs of other participants write theirs.
        "create_report = false",
        "[monitoring]",
        f"enabled = {str(monitor).lower()}",
        "sample_frequency = 1",
        f"summary_file = {folder}/resource_monitor.json",
    ]
    (logs / "nipype.cfg").write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.environ["NIPYPE_CONFIG_DIR"] = str(logs)


def limit_threads(omp_nthreads: int) -> None:
    """Let every library begin with one thread, in this process and those it starts.

    Steps that may use more ask for it themselves; numba cannot be asked for more than it began
    with.

    Parameters
    ----------
    omp_nthreads
        CPUs that one step may use.
    """
    os.environ |= dict.fromkeys(_THREAD_VARIABLES, "1")
    os.environ["NUMBA_NUM_THREADS"] = str(omp_nthreads)
