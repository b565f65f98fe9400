"""The average response of a group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from difftract_bids.errors import InputError
from difftract_bids.io.gradients import SHELL_WIDTH_S_MM2
from difftract_bids.modelling.zonal import Response

__all__ = ["average_responses"]


def average_responses(responses: Sequence[Response]) -> Response:
    """Average the responses of one tissue over subjects, each scaled to the group first.

    Images have arbitrary units. The scale of a subject is the geometric mean, over shells, of what
    brings its mean signal to that of the group, so that bright images count no more than others.
    Where the degrees differ, the shorter rows end in zeros.

    Parameters
    ----------
    responses
        One per subject.

    Returns
    -------
    Response
        With the mean b-values.

    Raises
    ------
    InputError
        If there is none, shells differ in number or by more than 100 s/mm², or a mean signal is
        not positive.

    References
    ----------
    Raffelt et al. 2012, doi:10.1016/j.neuroimage.2011.10.045 (a common response for a group);
    MRtrix3 3.0.3's ``responsemean`` for the scale.
    """
    if not responses:
        raise InputError("There is no response to average.", remedy="Give one file per subject.")
    counts = sorted({len(response.bvals_s_mm2) for response in responses})
    if len(counts) > 1:
        raise InputError(
            f"The responses have different numbers of shells: {counts}.",
            remedy="Average subjects with the same acquisition only.",
        )
    bvals = np.array([response.bvals_s_mm2 for response in responses])
    apart = np.ptp(bvals, axis=0)
    if (apart > SHELL_WIDTH_S_MM2).any():
        worst = int(apart.argmax())
        raise InputError(
            f"The b-values of shell {worst + 1} range from {bvals[:, worst].min():.0f} to "
            f"{bvals[:, worst].max():.0f} s/mm².",
            remedy="Average subjects with the same acquisition only.",
        )
    n_orders = max(response.coefficients.shape[1] for response in responses)
    table = np.zeros((*bvals.shape, n_orders))
    for row, response in zip(table, responses, strict=True):
        row[:, : response.coefficients.shape[1]] = response.coefficients
    mean_signal = table[:, :, 0]
    if not (mean_signal > 0).all():
        bad = int((mean_signal <= 0).any(axis=1).sum())
        raise InputError(
            f"{bad} of {len(responses)} responses have a shell whose mean signal is not positive.",
            remedy="Leave these subjects out, or look at their images.",
        )
    log_scale = np.log(mean_signal.mean(axis=0) / mean_signal).mean(axis=1)
    scaled = np.exp(log_scale)[:, None, None] * table
    return Response(tuple(bvals.mean(axis=0).tolist()), scaled.mean(axis=0))
