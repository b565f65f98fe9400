"""Whether the b-vectors point the way that the fibres run."""

from __future__ import annotations

from difftract_bids.checks.verdict import Check

NAME, TITLE = "gradients", "Axes of the b-vectors"
_FIGURE = "fodf"
#: With a lead of less than so many standard errors the axes as given are best by chance.
_LEAST_Z = 1.0


def check_axes(best: str, *, is_identity: bool, is_sure: bool, margin: float, z: float) -> Check:
    """Judge the test of whether fibres join from voxel to voxel.

    Parameters
    ----------
    best
        The order and signs of the axes with which they join best, such as ``y -x z``.
    is_identity
        Whether these are the axes as given.
    is_sure
        Whether that is beyond doubt.
    margin
        How much better they join than with the axes as given, or than with the next best if those
        are the axes as given: a share.
    z
        That difference over its standard error; 0 if there was too little white matter to test.
    """
    lead = f"{margin:.1%} ({z:.1f} standard errors)"
    if z == 0:
        return Check(
            NAME,
            TITLE,
            "unknown",
            "There is too little anisotropic tissue to test the axes of the b-vectors.",
            "Look at whether the fODFs follow the corpus callosum and the corticospinal tract.",
            _FIGURE,
        )
    if is_identity:
        weak = not is_sure and z < _LEAST_Z
        doubt = ", which could be chance" if weak else ""
        return Check(
            NAME,
            TITLE,
            "look" if weak else "good",
            f"Fibres join from voxel to voxel best with the b-vectors as they are: {lead} better "
            f"than with any other order or sign of the axes{doubt}.",
            _LOOK if weak else "",
            _FIGURE,
            value=margin,
        )
    verdict = ": the b-vectors are flipped or permuted" if is_sure else ", not beyond doubt"
    # Whatever rests on the value finds the sign in it: below 0 the table as given is beaten.
    return Check(
        NAME,
        TITLE,
        "bad" if is_sure else "look",
        f"Fibres join from voxel to voxel {lead} better with the axes {best} in place of x y z"
        f"{verdict}.",
        f"Run it again with --fix-gradients, which mends them. {_LOOK}" if is_sure else _LOOK,
        _FIGURE,
        value=-margin,
    )


_LOOK = "Look at whether the fODFs follow the corpus callosum and the corticospinal tract."
