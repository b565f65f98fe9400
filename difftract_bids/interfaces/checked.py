"""A check that cannot be made leaves its light off: it never fails a participant."""

from __future__ import annotations

import logging
from collections.abc import Callable

from difftract_bids.checks.verdict import Check
from difftract_bids.errors import DifftractError


def safely(name: str, title: str, function: Callable[[], Check]) -> Check:
    """Make a check; if that fails for whatever reason, say so in one that judges nothing.

    The error goes to Nipype's log as a warning, with where it happened.

    Parameters
    ----------
    name, title
        What the check is called if there is none from ``function``.
    function
        Makes it, without arguments.
    """
    try:
        return function()
    except Exception as error:
        logging.getLogger("nipype.interface").warning(
            'The check "%s" could not be made.', title, exc_info=True
        )
        reason, remedy = _reason(error)
        return Check(name, title, "unknown", f"This could not be judged: {reason}", remedy)


def _reason(error: Exception) -> tuple[str, str]:
    if isinstance(error, DifftractError):
        return error.what, error.remedy
    remedy = "Look at the figures; the log tells where it happened."
    return f"{type(error).__name__}: {error}", remedy
