"""What the command lines have in common."""

from __future__ import annotations

import argparse
from typing import Any

from difftract_bids.errors import UsageError


class Parser(argparse.ArgumentParser):
    """Raise our own error, so that every unusable argument ends the same way."""

    def error(self, message: str) -> Any:  # noqa: ANN401
        """Say what cannot be understood.

        Raises
        ------
        UsageError
            Always.
        """
        raise UsageError(
            f"The command line cannot be understood: {message}.",
            remedy=f"See {self.prog} --help.",
        )


def positive(text: str) -> int:
    """Read a whole number of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("it must be 1 or more")
    return value
