"""What each step asks a batch system for: the CPUs it uses and the memory it needs."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from difftract_bids.cli.plugins.sbatch_options import sbatch_options

if TYPE_CHECKING:
    from difftract_bids.cli.plugins.plugin_file import PluginChoice

#: A process that has imported everything that steps use and has done nothing yet: 0.59 GB with
#: NumPy 2.4 and PyTorch 2.13 on Linux. Steps' estimates are of what comes on top.
FOOTPRINT_GB = 0.6
_LEAST_GB = 1.0
_CPU_OPTIONS = ("cpus-per-task", "cpus-per-gpu", "ntasks", "ntasks-per-node", "tres-per-task")
_MEMORY_OPTIONS = ("mem", "mem-per-cpu", "mem-per-gpu")
_GPU_OPTIONS = ("gres", "gpus", "gpus-per-node", "gpus-per-task", "tres-per-task")


def ask_for_resources(workflow: Any, plugin: PluginChoice) -> None:  # noqa: ANN401
    """Let every step of a graph ask SLURM for its own CPUs and memory.

    What the user's plugin file asks for holds for all steps, and is not asked for again; a step
    uses no more CPUs than that. Other batch systems have no common way to say it: nothing is done.

    Parameters
    ----------
    workflow
        The graph, not yet run; changed.
    plugin
        What will run it.
    """
    if not plugin.is_slurm:
        return
    given = sbatch_options(plugin.args.get("sbatch_args", ""), plugin.args.get("template", ""))
    most = cpus_asked(given)
    for name in workflow.list_node_names():
        node = workflow.get_node(name)
        if most is not None and node.n_procs > most:
            node.n_procs = most  # and with it the threads that the step uses
        asked = []
        if not any(option in given for option in _CPU_OPTIONS):
            asked.append(f"--cpus-per-task={node.n_procs}")
        if not any(option in given for option in _MEMORY_OPTIONS):
            asked.append(f"--mem={memory_mb(node.mem_gb)}M")
        if node.is_gpu_node() and not any(option in given for option in _GPU_OPTIONS):
            asked.append("--gres=gpu:1")
        # Nipype joins it to the user's own, and SLURMGraph does so without a space.
        node.plugin_args = {**node.plugin_args, "sbatch_args": " " + " ".join(asked)}


def memory_mb(mem_gb: float) -> int:
    """Give the memory of a job (MiB) that runs a step of an estimated size (GB)."""
    return math.ceil(max(_LEAST_GB, FOOTPRINT_GB + mem_gb) * 1024)


def cpus_asked(given: dict[str, str]) -> int | None:
    """Find the CPUs that options of sbatch ask for; ``None`` if that is left to the steps.

    Parameters
    ----------
    given
        Options, as `sbatch_options` finds them.
    """
    for option in ("cpus-per-task", "ntasks", "ntasks-per-node"):
        with suppress(KeyError, ValueError):
            return max(1, int(given[option]))
    return None
