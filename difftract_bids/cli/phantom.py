"""``difftract-phantom``: write a simulated BIDS dataset with a known connectome."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog="difftract-phantom",
        description="Write a simulated head as a raw BIDS dataset, its true connectome under "
        "OUT/derivatives/truth.",
    )
    add = parser.add_argument
    add("out", metavar="OUT", type=Path, help="folder to write; empty or not there yet")
    add("--n-subjects", type=int, default=1, metavar="N", help="subjects (default %(default)s)")
    add("--n-sessions", type=int, default=0, metavar="N", help="sessions; 0 for none (default)")
    add("--n-runs", type=int, default=1, metavar="N", help="diffusion runs (default %(default)s)")
    add("--seed", type=int, default=0, help="seed of all that is drawn (default %(default)s)")
    add(
        "--weight-sd",
        type=float,
        default=0.2,
        metavar="SD",
        help="spread of log edge weights between subjects (default %(default)s)",
    )
    _add_images(parser.add_argument_group("images"))
    _add_scheme(parser.add_argument_group("gradients"))
    return parser


def _add_images(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--snr", type=float, default=30.0, help="of white matter at b=0; inf (default %(default)s)"
    )
    add("--voxel-size", type=float, default=3.0, metavar="MM", help="default %(default)s mm")
    add("--t1w-voxel-size", type=float, default=1.5, metavar="MM", help="default %(default)s mm")
    add("--axes", default="LAS", help="voxel axes of the diffusion images (default %(default)s)")
    add(
        "--oblique",
        type=float,
        default=5.0,
        metavar="DEG",
        help="tilt of the slices (default %(default)s degrees)",
    )
    add(
        "--pose",
        type=float,
        nargs=2,
        default=(2.0, 3.0),
        metavar=("MM", "DEG"),
        help="spread of the head's position between subjects and sessions (default 2 mm, 3 deg)",
    )
    add(
        "--motion",
        type=float,
        nargs=2,
        default=(0.0, 0.0),
        metavar=("MM", "DEG"),
        help="spread of the head's position between volumes (default none)",
    )
    add(
        "--distortion",
        type=float,
        default=0.0,
        metavar="MM",
        help="largest displacement of the diffusion images by susceptibility (default none)",
    )
    add(
        "--phase-encoding",
        default="j-",
        metavar="WAY",
        help="of the diffusion images: i, i-, j, j-, k or k- (default %(default)s)",
    )
    add(
        "--bias",
        type=float,
        default=0.0,
        metavar="STRENGTH",
        help="of the coils' field in the diffusion images, 0 to 1 (default none)",
    )


def _add_scheme(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--shells",
        type=float,
        nargs="+",
        default=[1000.0],
        metavar="B",
        help="b-values, s/mm² (default 1000)",
    )
    add(
        "--directions",
        type=int,
        default=64,
        metavar="N",
        help="directions per shell (default %(default)s)",
    )
    add("--n-b0", type=int, default=6, metavar="N", help="b=0 volumes (default %(default)s)")
    add("--bvals", type=Path, metavar="FILE", help="scheme to use instead: FSL b-values")
    add("--bvecs", type=Path, metavar="FILE", help="scheme to use instead: FSL b-vectors")
    add(
        "--flip",
        default="",
        metavar="AXES",
        help="write b-vectors with these axes reversed: x, yz",
    )
    add(
        "--permute",
        default="xyz",
        metavar="AXES",
        help="write the components of b-vectors in this order: yxz (default %(default)s)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0, or 2 for arguments that cannot be used."""
    options = build_parser().parse_args(argv)
    # Only now: --help must not wait for numerical libraries.
    from difftract_bids.errors import DifftractError
    from difftract_bids.phantom.dataset import write_phantom
    from difftract_bids.phantom.settings import PhantomConfig

    try:
        config = PhantomConfig(
            n_subjects=options.n_subjects,
            n_sessions=options.n_sessions,
            n_runs=options.n_runs,
            snr=options.snr,
            voxel_size_mm=options.voxel_size,
            t1w_voxel_size_mm=options.t1w_voxel_size,
            shells_s_mm2=tuple(options.shells),
            n_directions=options.directions,
            n_b0=options.n_b0,
            bval=options.bvals,
            bvec=options.bvecs,
            weight_sd=options.weight_sd,
            pose_sd_mm=options.pose[0],
            pose_sd_deg=options.pose[1],
            motion_sd_mm=options.motion[0],
            motion_sd_deg=options.motion[1],
            distortion_mm=options.distortion,
            phase_encoding=options.phase_encoding,
            flip=options.flip,
            permute=options.permute,
            bias=options.bias,
            axes=options.axes,
            oblique_deg=options.oblique,
            seed=options.seed,
        )
        write_phantom(options.out, config, progress=lambda label: print(f"simulating {label}"))
    except DifftractError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
