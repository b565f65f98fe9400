"""A SLURM of a test's own: munged, slurmctld and slurmd on this machine, apart from any other."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from difftract_bids.cli.tether import end_with_parent

#: Daemons, in the order in which they start, and what tests call.
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "sinfo")
#: Debian keeps daemons where the PATH of a plain user does not look.
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_START_S = 120


@dataclass(frozen=True)
class Slurm:
    """A running cluster of one node.

    Attributes
    ----------
    folder
        Configuration, logs and state.
    environment
        What names it to SLURM's programs; nothing of another SLURM is in it.
    """

    folder: Path
    environment: dict[str, str]

    def run(self, *command, check=True) -> str:
        """Run one of SLURM's programs and give what it says."""
        done = subprocess.run(
            [*map(str, command)],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def jobs(self) -> list[dict[str, str]]:
        """List the jobs that the controller remembers, also those that have ended."""
        said = self.run("scontrol", "--oneliner", "show", "jobs")
        lines = [line for line in said.splitlines() if line.startswith("JobId=")]
        return [
            dict(word.split("=", 1) for word in line.split(" ") if "=" in word) for line in lines
        ]

    def wait_until_empty(self, seconds: float) -> None:
        """Wait until no job is queued or runs."""
        end = time.monotonic() + seconds
        while self.run("squeue", "--noheader"):
            assert time.monotonic() < end, self.run("squeue")
            time.sleep(0.3)


@contextmanager
def running_slurm(n_cpus: int = 16, mem_mb: int = 64000) -> Iterator[Slurm]:
    """Start a SLURM, and end it with all its jobs; skip the test where that is impossible.

    Parameters
    ----------
    n_cpus, mem_mb
        What its node claims to have, whatever the machine has.
    """
    missing = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: install slurm-wlm and munge to run these tests")
    if os.geteuid() != 0:
        pytest.skip("only root can start slurmd and munged")
    # munged asks that no other user can write where it is: not pytest's own folder, whose parents
    # are closed to the users that SLURM may serve.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    try:
        folder.chmod(0o755)
        slurm = Slurm(folder, _environment(folder))
        _configure(folder, n_cpus, mem_mb)
        with ExitStack() as daemons:
            _start(daemons, slurm)
            yield slurm
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _environment(folder: Path) -> dict[str, str]:
    of_others = ("SLURM_", "SBATCH_", "SQUEUE_", "SINFO_", "SCANCEL_", "SRUN_", "SALLOC_")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(of_others)}
    return kept | {"PATH": _PATH, "SLURM_CONF": str(folder / "slurm.conf")}


def _configure(folder: Path, n_cpus: int, mem_mb: int) -> None:
    host = socket.gethostname().split(".")[0]
    controller_port, node_port = _free_ports(2)
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    for name in ("state", "spool"):
        (folder / name).mkdir()
    lines = [
        "ClusterName=test",
        f"SlurmctldHost={host}(127.0.0.1)",
        "SlurmUser=root",
        f"SlurmctldPort={controller_port}",
        f"SlurmdPort={node_port}",
        f"AuthInfo=socket={folder}/munge.socket",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool",
        *(f"{name}PidFile={folder}/{name}.pid" for name in ("Slurmctld", "Slurmd")),
        "AuthType=auth/munge",
        "CredType=cred/munge",
        "MpiDefault=none",
        # No control groups: they are the machine's, not ours.
        "ProctrackType=proctrack/pgid",
        "TaskPlugin=task/none",
        "JobAcctGatherType=jobacct_gather/none",
        "AccountingStorageType=accounting_storage/none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU_Memory",
        "ReturnToService=2",
        "MinJobAge=3600",
        # Tests wait for jobs: at once, not every few seconds as thousands of jobs need it.
        "SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1",
        "KillWait=5",
        "MailProg=/bin/true",
        # The node is what it says it is, whatever the machine is.
        "SlurmdParameters=config_overrides",
        f"NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 CPUs={n_cpus} RealMemory={mem_mb}",
        "PartitionName=main Nodes=node1 Default=YES MaxTime=1440 State=UP",
        "PartitionName=other Nodes=node1 MaxTime=1440 State=UP",
        "PartitionName=brief Nodes=node1 MaxTime=1 State=UP",
    ]
    (folder / "slurm.conf").write_text("\n".join(lines) + "\n")


def _start(daemons: ExitStack, slurm: Slurm) -> None:
    folder = slurm.folder
    munge = [
        *("munged", "--foreground", "--force", f"--socket={folder}/munge.socket"),
        *(f"--key-file={folder}/munge.key", f"--pid-file={folder}/munged.pid"),
        *(f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"),
    ]
    daemons.enter_context(_daemon(munge, slurm))
    _wait_for((folder / "munge.socket").exists, slurm, "munged")
    daemons.enter_context(_daemon(["slurmctld", "-D", "-c"], slurm))
    daemons.enter_context(_daemon(["slurmd", "-D", "-c", "-N", "node1"], slurm))
    # Before the daemons: they are asked to end the jobs.
    daemons.callback(_end_jobs, slurm)
    state = ("sinfo", "--noheader", "--nodes=node1", "--partition=main", "--format=%T")
    _wait_for(
        lambda: slurm.run(*state, check=False).strip() == "idle", slurm, "slurmctld", "slurmd"
    )


@contextmanager
def _daemon(command: list[str], slurm: Slurm) -> Iterator[None]:
    with (slurm.folder / f"{command[0]}.out").open("w") as log:
        process = subprocess.Popen(
            command,
            env=slurm.environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for pytest, which ends them in order
            preexec_fn=end_with_parent,  # noqa: PLW1509 - and if it is killed, they are
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _end_jobs(slurm: Slurm) -> None:
    """Cancel what is left: a job's own keeper outlives slurmd."""
    slurm.run("scancel", "--user=root", check=False)
    end = time.monotonic() + 15
    while slurm.run("squeue", "--noheader", check=False) and time.monotonic() < end:
        time.sleep(0.2)


def _wait_for(is_true, slurm: Slurm, *programs: str) -> None:
    end = time.monotonic() + _START_S
    while not is_true():
        if time.monotonic() > end:
            logs = [(slurm.folder / f"{name}.out").read_text()[-2000:] for name in programs]
            pytest.fail(f"{', '.join(programs)} did not start:\n" + "\n".join(logs))
        time.sleep(0.1)


def _free_ports(n_ports: int) -> list[int]:
    with ExitStack() as sockets:
        found = [sockets.enter_context(socket.socket()) for _ in range(n_ports)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]
