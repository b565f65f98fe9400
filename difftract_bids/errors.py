"""Errors that a user can act on: each says what is wrong, where, and what to do about it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class DifftractError(Exception):
    """Something that the user can mend.

    Parameters
    ----------
    what
        What is wrong, with the figures that show it.
    where
        The file, participant or option concerned.
    remedy
        What to do about it.
    """

    def __init__(self, what: str, *, where: object = None, remedy: str = "") -> None:
        super().__init__(what, where, remedy)
        self.what = what
        self.where = None if where is None else str(where)
        self.remedy = remedy

    def __str__(self) -> str:
        """Say what, where and the remedy, a line each."""
        lines = [self.what]
        if self.where:
            lines.append(f"  where:  {self.where}")
        if self.remedy:
            lines.append(f"  remedy: {self.remedy}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling between worker processes, keyword arguments included."""
        return _rebuild, (type(self), self.what, self.where, self.remedy)


class UsageError(DifftractError):
    """Arguments that cannot be used (exit code 2)."""


class InputError(DifftractError):
    """Input data that cannot be used: missing, unreadable or inconsistent (exit code 2)."""


class GradientError(InputError):
    """A gradient table that does not fit its image or is not one."""


class AtlasError(InputError):
    """An atlas or parcellation that is unknown, incomplete or empty in this brain."""


class ConfigError(UsageError):
    """A setting outside its range."""


class FodfError(DifftractError):
    """An fODF image that cannot be tracked: wrong shape, wrong coefficient count, not finite."""


class SeedError(DifftractError):
    """Seeds or seed directions that cannot be used."""


class TrainingError(DifftractError):
    """A training that cannot go on: what it had learnt before is kept."""


def _rebuild(
    kind: type[DifftractError], what: str, where: str | None, remedy: str
) -> DifftractError:
    return kind(what, where=where, remedy=remedy)


class DerivativeError(DifftractError):
    """A derivative that is asked for and is not implemented."""


@contextmanager
def told(notes: list[str], kind: type[Warning] = UserWarning) -> Iterator[None]:
    """Take what is said to the user as warnings into ``notes``; all others go their way.

    Parameters
    ----------
    notes
        Where the messages are put.
    kind
        Which warnings are taken: this class, not those derived from it.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if warning.category is kind:
            notes.append(str(warning.message))
        else:
            place = warning.filename, warning.lineno
            warnings.warn_explicit(warning.message, warning.category, *place)
