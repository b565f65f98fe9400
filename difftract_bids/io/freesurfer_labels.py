"""Which tissue FreeSurfer's label numbers stand for (``aparc+aseg``, ``aparc.a2009s+aseg``).

Much as ``5ttgen freesurfer -sgm_amyg_hipp`` of MRtrix3 has it: hippocampi and amygdalae count as
subcortical grey matter, the cerebellar cortex as cortical. Other than there, hypointense white
matter counts as white, as streamlines cross it, and lesions as pathological.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

#: Tissues, in the order of a 5TT image's volumes; 0 is outside the brain.
OUTSIDE, CORTICAL_GREY, DEEP_GREY, WHITE, CSF, PATHOLOGICAL = range(6)

#: Left, right and unpaired structures of ``aseg``.
_ASEG = {
    CORTICAL_GREY: (3, 42, 8, 47),  # cerebral and cerebellar cortex
    DEEP_GREY: (
        9, 10, 48, 49,  # thalamus, under its old and its new number
        11, 50, 12, 51, 13, 52,  # caudate, putamen, pallidum
        17, 53, 18, 54, 26, 58,  # hippocampus, amygdala, accumbens
        27, 59,  # substantia nigra
    ),
    WHITE: (
        2, 41, 7, 46,  # cerebrum and cerebellum
        16, 28, 60, 85,  # brain stem, ventral diencephalon, optic chiasm
        77, 78, 79,  # hypointensities
        192, *range(250, 256),  # corpus callosum and fornix
        *range(170, 176), 178,  # parts of the brain stem
    ),
    CSF: (4, 43, 5, 44, 14, 15, 72, 24, 31, 63, 30, 62, 257),  # with choroid plexus and vessels
    PATHOLOGICAL: (25, 57, 99, 80, 81, 82),  # lesions, hypointensities of grey matter
}  # fmt: skip
#: Ranges of cortical and white matter parcels: of aparc and of aparc.a2009s, left and right.
_RANGES = (
    (1000, 2999, CORTICAL_GREY),
    (3000, 4999, WHITE),
    (5001, 5002, WHITE),
    (11100, 12999, CORTICAL_GREY),
    (13100, 14999, WHITE),
)
#: What lies outside the brain or has no tissue of its own.
_OUTSIDE = (0, 1, 40, 6, 45, 19, 20, 55, 56, 29, 61, 258, 165, 259)


def tissue_of_labels(
    labels: Int[np.ndarray, "*shape"],
) -> tuple[Int[np.ndarray, "*shape"], tuple[int, ...]]:
    """Turn labels into tissues.

    Returns
    -------
    tuple
        Tissue of each place (0 outside the brain, 1 to 5 in the order of a 5TT image), and the
        labels that are not known, which count as outside.
    """
    present, where = np.unique(labels, return_inverse=True)
    tissues = np.array([_tissue_of(int(label)) for label in present], dtype=np.int8)
    unknown = tuple(int(label) for label in present[tissues < 0])
    return np.maximum(tissues, OUTSIDE)[where].reshape(labels.shape), unknown


def _tissue_of(label: int) -> int:
    for tissue, numbers in _ASEG.items():
        if label in numbers:
            return tissue
    for first, last, tissue in _RANGES:
        if first <= label <= last:
            return tissue
    return OUTSIDE if label in _OUTSIDE else -1
