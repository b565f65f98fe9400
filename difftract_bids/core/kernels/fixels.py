"""Segmentation of fODF amplitudes into lobes, voxel by voxel.

See `difftract_bids.core.sift2.fixels` for what is done. Numbers of lobes are in the order of their
peaks' amplitudes, largest first.
"""

from __future__ import annotations

from difftract_bids.core.kernels.target import device_function, host_kernel

#: Neighbours of an axis.
_AROUND = 6
#: An axis that is in no lobe.
_NONE = -1
#: Low bits of a key, which hold the axis; those above hold its amplitude.
AXIS_BITS = 11
_AXIS = (1 << AXIS_BITS) - 1


@device_function
def _lobes_beside(around, lobe_of, n_axes):
    """Find the lobes around an axis: the first of them, or ``n_axes``, and whether several meet.

    Axes where lobes meet do not count: lobes do not grow from there.
    """
    lobe, meets = n_axes, False
    for i in range(_AROUND):
        if around[i] >= 0:
            other = lobe_of[around[i]]
            if 0 <= other < n_axes:
                meets = meets or (lobe < n_axes and other != lobe)
                lobe = min(lobe, other)
    return lobe, meets


@host_kernel
def grow_lobes(first, amplitude, keys, neighbours, solid_angle, lobe_of, peak, integral):
    """Let lobes grow from their peaks down to where they meet, or to zero.

    Parameters
    ----------
    first
        The first voxel that is worked on.
    amplitude
        Amplitude along each axis (voxel, axis).
    keys
        Of the voxels that are worked on: the axes in ascending order of amplitude, amplitudes
        being in the bits above `AXIS_BITS` (voxel, axis). They are 0 or less where it is not
        positive.
    neighbours, solid_angle
        See `difftract_bids.core.sift2.sphere.Sphere`.
    lobe_of
        Filled with the lobe of each axis (voxel, axis); -1 where there is none.
    peak, integral
        Filled with the axis of each lobe's peak and its integral (voxel, lobe); no more lobes are
        made than there is room for.

    Notes
    -----
    Where lobes meet, the axis goes to the one with the highest peak, and the lobe does not grow
    from there: such axes have the number of their lobe plus the number of axes until the end.
    """
    n_axes, most = lobe_of.shape[1], peak.shape[1]
    for k in range(len(keys)):
        voxel, n_lobes = first + k, 0
        for lobe in range(most):
            peak[voxel, lobe] = _NONE
            integral[voxel, lobe] = 0.0
        for axis in range(n_axes):
            lobe_of[voxel, axis] = _NONE
        for place in range(n_axes - 1, -1, -1):
            if keys[k, place] <= _AXIS:
                break
            axis = keys[k, place] & _AXIS
            height = amplitude[voxel, axis]
            lobe, meets = _lobes_beside(neighbours[axis], lobe_of[voxel], n_axes)
            if lobe == n_axes:
                if n_lobes == most:
                    continue
                lobe = n_lobes
                peak[voxel, lobe] = axis
                n_lobes += 1
            integral[voxel, lobe] += height * solid_angle[axis]
            lobe_of[voxel, axis] = lobe + n_axes if meets else lobe
        for axis in range(n_axes):
            if lobe_of[voxel, axis] >= n_axes:
                lobe_of[voxel, axis] -= n_axes


@device_function
def _largest_beside(around, lobe_of, integral):
    """Find the lobe of largest integral around an axis; -1 if there is none."""
    best = _NONE
    for i in range(_AROUND):
        if around[i] >= 0:
            lobe = lobe_of[around[i]]
            if lobe >= 0 and (best < 0 or integral[lobe] > integral[best]):
                best = lobe
    return best


@device_function
def _spread(neighbours, lobe_of, integral, waiting, n_waiting):
    """Give waiting axes to the lobes around them, until none waits."""
    while n_waiting > 0:
        for i in range(n_waiting):
            waiting[1, i] = _largest_beside(neighbours[waiting[0, i]], lobe_of, integral)
        still = 0
        for i in range(n_waiting):  # only now: all of a step see the same neighbours
            axis, best = waiting[0, i], waiting[1, i]
            if best >= 0:
                lobe_of[axis] = best
            else:
                waiting[0, still] = axis
                still += 1
        n_waiting = still


@host_kernel
def spread_lobes(first, last, voxels, number, integral, neighbours, lobe_of, waiting, table):
    """Give every axis to a lobe: those without to the nearest, step by step.

    Parameters
    ----------
    first, last
        Rows of the table that are worked on.
    voxels
        Voxel of each row.
    number
        New number of each lobe (voxel, lobe), -1 for those that are dropped.
    integral
        Of each lobe (voxel, lobe): of several that reach an axis the largest takes it.
    neighbours
        See `difftract_bids.core.sift2.sphere.Sphere`.
    lobe_of
        As `grow_lobes` left it (voxel, axis); overwritten.
    waiting
        Memory of this thread (2, axis).
    table
        Filled with the new number of the lobe of each axis (row, axis).
    """
    n_axes = table.shape[1]
    for row in range(first, last):
        voxel = voxels[row]
        n_waiting = 0
        for axis in range(n_axes):
            lobe = lobe_of[voxel, axis]
            if lobe < 0 or number[voxel, lobe] < 0:
                lobe_of[voxel, axis] = _NONE
                waiting[0, n_waiting] = axis
                n_waiting += 1
        _spread(neighbours, lobe_of[voxel], integral[voxel], waiting, n_waiting)
        for axis in range(n_axes):
            table[row, axis] = number[voxel, lobe_of[voxel, axis]]
