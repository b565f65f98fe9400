"""Images in MRtrix3's own format."""

import numpy as np


def write_mif(path, data, affine):
    """As dwi2fod does: coefficients of a voxel side by side, the first axis from right to left."""
    size_mm = np.linalg.norm(affine[:3, :3], axis=0)
    transform = affine[:3].copy()
    transform[:, :3] /= size_mm
    rows = "".join(f"transform: {','.join(map(repr, map(float, row)))}\n" for row in transform)
    header = (
        f"mrtrix image\ndim: {','.join(map(str, data.shape))}\n"
        f"vox: {','.join(map(repr, map(float, size_mm)))},1\nlayout: -1,+2,+3,+0\n"
        f"datatype: Float32LE\n{rows}file: . 2000\nEND\n"
    )
    stored = data[::-1].transpose(3, 0, 1, 2).tobytes(order="F")
    path.write_bytes(header.encode().ljust(2000, b"\0") + stored)
    return path
