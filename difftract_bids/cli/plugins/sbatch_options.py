"""The options that a user gives to sbatch, on its command line and in the head of a script."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence

from difftract_bids.errors import UsageError

#: Options whose short form matters here.
_SHORT = {
    "a": "array",
    "c": "cpus-per-task",
    "e": "error",
    "G": "gpus",
    "J": "job-name",
    "M": "clusters",
    "n": "ntasks",
    "o": "output",
    "Q": "quiet",
    "W": "wait",
}
#: The same by their long names, which sbatch lets users cut short.
_LONG = (
    *_SHORT.values(),
    *("mem", "mem-per-cpu", "mem-per-gpu", "ntasks-per-node", "tres-per-task", "wrap"),
    *("gres", "gpus-per-node", "gpus-per-task", "cpus-per-gpu", "parsable", "test-only"),
)
#: Options that a job of one step cannot have, and what to do instead.
_REFUSED = {
    "array": "every step is a job of its own",
    "clusters": "put the cluster into SLURM_CLUSTERS in the environment, which all of SLURM's "
    "programs read",
    "parsable": "the number of the job is read from what sbatch says without it",
    "quiet": "the number of the job is read from what sbatch says without it",
    "test-only": "nothing would run",
    "wait": "the app itself waits for its jobs",
    "wrap": "the steps come with scripts of their own",
}


def split_arguments(text: str, where: object) -> list[str]:
    """Split arguments as a shell does, environment variables filled in, and run nothing.

    Parameters
    ----------
    text
        Arguments.
    where
        Where they come from, for errors.

    Raises
    ------
    UsageError
        If a quotation is not closed.
    """
    try:
        return [os.path.expandvars(word) for word in shlex.split(text)]
    except ValueError as error:
        raise UsageError(
            f"Arguments that cannot be told apart ({error}): {text}",
            where=where,
            remedy="Close the quotation.",
        ) from None


def sbatch_options(arguments: str, template: str, where: object = None) -> dict[str, str]:
    """Find the options that decide what a job gets.

    Parameters
    ----------
    arguments
        What is put on the command line.
    template
        Text of a batch script; its ``#SBATCH`` lines count as far as sbatch reads them.
    where
        Where both come from, for errors.

    Returns
    -------
    dict
        Values by long names; empty ones of options without a value.

    Raises
    ------
    UsageError
        If an option is there that a job of one step cannot have.
    """
    words = [word for line in _directives(template) for word in split_arguments(line, where)]
    found = dict(_parsed([*words, *split_arguments(arguments, where)]))
    refused = [name for name in _REFUSED if name in found]
    if refused:
        name = refused[0]
        raise UsageError(
            f"sbatch's option --{name} cannot be used here.",
            where=where,
            remedy=f"Leave it out: {_REFUSED[name]}.",
        )
    return found


def _directives(template: str) -> Iterator[str]:
    for line in template.splitlines():
        if line.startswith("#SBATCH"):
            yield line.removeprefix("#SBATCH").partition(" #")[0]
        elif line.strip() and not line.startswith("#"):
            return  # nor does sbatch look behind the first command


def _parsed(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    for place, word in enumerate(words):
        following = words[place + 1] if place + 1 < len(words) else ""
        value = "" if following.startswith("-") else following
        if word.startswith("--"):
            name, sign, given = word[2:].partition("=")
            yield _whole(name), given if sign else value
        elif word.startswith("-") and word[1:2] in _SHORT:
            yield _SHORT[word[1]], word[2:] or value


def _whole(name: str) -> str:
    if name in _LONG:
        return name
    return next((long for long in _LONG if name and long.startswith(name)), name)
