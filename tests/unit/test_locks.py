"""Locks by name: held across processes, and gone with the process that holds them."""

import errno
import fcntl
import subprocess
import sys
import threading
from contextlib import contextmanager

from difftract_bids.io.locks import NameLocks, taking_turns

HOLD = """
import sys
from pathlib import Path
from difftract_bids.io.locks import taking_turns
with taking_turns(Path(sys.argv[1])):
    print("mine", flush=True)
    sys.stdin.readline()
    Path(sys.argv[2]).touch()
"""
TAKE = """
import sys
from pathlib import Path
from difftract_bids.io.locks import NameLocks
with NameLocks(Path(sys.argv[1])) as locks:
    print([locks.take(name) for name in sys.argv[2:]], flush=True)
    sys.stdin.readline()
"""


@contextmanager
def other(path, *names):
    """Another process that tries to take locks, and goes on until it is killed."""
    command = [sys.executable, "-c", TAKE, path, *names]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def test_a_name_is_one_process_s_and_others_are_free(tmp_path):
    path = tmp_path / "logs" / "lock"
    with other(path, "01", "02") as said, NameLocks(path) as locks:
        assert said == "[True, True]"
        assert not locks.take("01")
        assert not locks.take("02")
        assert locks.take("03")
        assert locks.take("03")  # its own again
        with other(path, "03", "04") as later:
            assert later == "[False, True]"


def test_a_killed_process_holds_nothing(tmp_path):
    with other(tmp_path / "lock", "01") as said:
        assert said == "[True]"
    with NameLocks(tmp_path / "lock") as locks:
        assert locks.take("01")


def test_where_the_file_system_has_no_locks_everybody_gets_one(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    with NameLocks(tmp_path / "lock") as locks:
        assert locks.take("01")


def test_who_takes_turns_waits_for_the_other(tmp_path):
    command = [sys.executable, "-c", HOLD, tmp_path / "lock", tmp_path / "done"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "mine\n"
        threading.Timer(1.0, lambda: print(file=process.stdin, flush=True)).start()
        with taking_turns(tmp_path / "lock"):
            assert (tmp_path / "done").exists()
