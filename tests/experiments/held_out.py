"""What a loss behind the propagator buys: participants held out, three ways to their fODFs.

(a) deconvolution of a few directions, (b) a network taught by fODFs alone, (c) the same network,
steps and seeds, taught by streamlines and connectomes too in the last steps. Each is compared with
the fODFs of all directions and, for a simulated group, with its truth:

    python tests/experiments/held_out.py phantom --output DIR
    python tests/experiments/held_out.py human --output DIR --data ../shared/data

What is trained is not trained again: seeds may first be trained side by side, each by a program of
its own (``--seeds 1 --nprocs 1 --only-train``).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from difftract_bids.bids.nodes import read_nodes
from difftract_bids.bids.training_runs import find_training_runs
from difftract_bids.cli import phantom
from difftract_bids.cli.held_out import compare_methods, deconvolved, predicted_by, write_rows
from difftract_bids.config import LossConfig, PairsConfig, TrainingConfig
from difftract_bids.io.gradients import GradientTable, read_gradients
from difftract_bids.io.images import load_volume
from difftract_bids.learn.evaluation import Nodes, Row, Tractogram
from difftract_bids.learn.model_file import load_model
from difftract_bids.learn.scan import Scan, load_scan
from difftract_bids.learn.subsets import choose_volumes
from difftract_bids.learn.tiles import box_of
from difftract_bids.learn.training import train

_CONFIG = Path(__file__).with_name("held_out.toml")
_MEASURES = ("r_connectome", "bundle_overlap", "angular_error_deg", "n_streamlines")
#: Participants that are learnt from (the network that does best on the sixth is taken), and not.
_PHANTOM = (("01", "02", "03", "04", "05", "06"), ("07", "08", "09"))
_HUMAN = (("01",), ("02",))
#: Labels of grey and white matter and of fluid among the tissues of a simulated head.
_BRAIN = (1, 2, 3)


def main(words: Sequence[str] | None = None) -> None:
    """Train both networks with each seed, compare, and write ``rows.tsv`` and ``table.md``."""
    options = parse(words)
    torch.set_num_threads(options.nprocs)
    config = TrainingConfig.from_toml(options.config)
    config = shortened(config, options)
    scans = (phantoms if options.group == "phantom" else humans)(options, config.pairs)
    learnt, held_out = _PHANTOM if options.group == "phantom" else _HUMAN
    if options.group == "phantom":
        pairs = replace(config.pairs, validation_participants=(learnt[-1],))
        config = replace(config, pairs=pairs)
    seen, unseen = [scans[label] for label in learnt], [scans[label] for label in held_out]
    truths = {scan.label: truth_of(scan, options.output) for scan in unseen}
    known = {label: truth for label, truth in truths.items() if truth is not None}
    models = {}
    for seed in options.seeds:
        for name, arm in arms(config, seed):
            begun = time.monotonic()
            trained = train(seen, arm, options.output / f"{name}-{seed}")
            said = f"{name}, seed {seed}: {(time.monotonic() - begun) / 60:.1f} min, {trained}"
            print(said, flush=True)  # noqa: T201 - a program that is run by hand
            models[name, seed] = trained.model
    if options.only_train:
        return
    limits = {"again": lambda scan: scan.fodf, "csd": deconvolved}
    rows = [
        ("", row) for row in compare_methods(unseen, limits, cutoffs=options.cutoffs, truths=known)
    ]
    for (name, seed), model in models.items():
        network = {name: predicted_by(load_model(model).network)}
        rows += [
            (seed, row)
            for row in compare_methods(unseen, network, cutoffs=options.cutoffs, truths=known)
        ]
        write_rows([row for _, row in rows], options.output / "rows.tsv")
    text = table(rows)
    (options.output / "table.md").write_text(text)
    print(text)  # noqa: T201


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("group", choices=("phantom", "human"))
    add("--output", type=Path, required=True, help="folder of all that is made")
    add("--data", type=Path, help="folder of the real data, with ds-human and atlases")
    add("--config", type=Path, default=_CONFIG, help="settings; default those beside this file")
    add("--steps", type=int, help="fewer steps than the settings have")
    add("--every", type=int, help="steps from one with streamlines to the next")
    add("--only-train", action="store_true", help="compare nothing yet")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--cutoffs", type=float, nargs="+", default=[0.1, 0.15, 0.2], help="of tracking")
    add("--voxel-size", type=float, default=4.0, help="of the phantom, mm")
    add("--nprocs", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args(words)


def shortened(config: TrainingConfig, options: argparse.Namespace) -> TrainingConfig:
    """Take as many steps as are asked for, the same share of them without streamlines."""
    n_steps = options.steps or config.optimisation.n_steps
    every = options.every or config.propagation.every
    from_step = config.propagation.from_step * n_steps // config.optimisation.n_steps
    return replace(
        config,
        propagation=replace(config.propagation, from_step=from_step, every=every),
        optimisation=replace(config.optimisation, n_steps=n_steps),
    )


def arms(config: TrainingConfig, seed: int) -> Iterator[tuple[str, TrainingConfig]]:
    """Give both ways to train, of the same seed and number of steps."""
    config = replace(config, optimisation=replace(config.optimisation, random_seed=seed))
    yield "fodf", replace(config, losses=LossConfig(fodf=config.losses.fodf))
    yield "end-to-end", config


def phantoms(options: argparse.Namespace, pairs: PairsConfig) -> dict[str, Scan]:
    """Simulate a group; brain masks and parcellations are true, targets are deconvolved."""
    raw = options.output / "bids"
    size = ("--voxel-size", str(options.voxel_size), "--t1w-voxel-size", str(options.voxel_size))
    if not raw.is_dir():
        _require(phantom.main([str(raw), "--n-subjects", "9", "--seed", "11", *size]))
    return {label: simulated(raw, label, pairs) for labels in _PHANTOM for label in labels}


def simulated(raw: Path, participant: str, pairs: PairsConfig) -> Scan:
    """Load a simulated participant, the volumes of the pairs, and what all of them give."""
    label = f"sub-{participant}"
    stem = raw / label / "dwi" / f"{label}_dwi"
    truth = raw / "derivatives" / "truth" / label / "dwi"
    image = load_volume(f"{stem}.nii.gz", ndim=4)
    gradients = read_gradients(f"{stem}.bval", f"{stem}.bvec", image.vox2ras)
    labels = load_volume(truth / f"{label}_atlas-Phantom_dseg.nii.gz", dtype=np.int32).data
    tissue = load_volume(truth / f"{label}_desc-tissue_dseg.nii.gz", dtype=np.int32).data
    inside = torch.from_numpy(np.isin(tissue, _BRAIN))
    box = box_of(inside, margin=2)
    vox2ras = torch.from_numpy(image.vox2ras)
    vox2ras[:3, 3] += vox2ras[:3, :3] @ torch.tensor([side.start for side in box]).double()
    whole = Scan(
        label=label,
        participant=participant,
        dwi=torch.from_numpy(image.data[box].copy()).float(),
        gradients=gradients,
        vox2ras=vox2ras,
        mask=inside[box].clone(),
        parcellation=torch.from_numpy(labels[box].astype(np.int64)),
        node_labels=torch.tensor(read_nodes(truth / f"{label}_atlas-Phantom_dseg.tsv").index),
    )
    chosen = choose_volumes(gradients, pairs.n_directions, pairs.shells_s_mm2, pairs.n_b0)
    some = GradientTable(gradients.bvals_s_mm2[chosen], gradients.bvecs[chosen])
    dwi = whole.dwi[..., chosen].clone()
    return replace(whole, dwi=dwi, gradients=some, fodf=deconvolved(whole))


def humans(options: argparse.Namespace, pairs: PairsConfig) -> dict[str, Scan]:
    """Make the derivatives of the two real participants, and load them.

    They are made without denoising: it would bring what is left out into what is kept.
    """
    derivatives = options.output / "derivatives"
    atlas = f"Schaefer100TianS1={options.data / 'atlases'}"
    os.environ.setdefault("TEMPLATEFLOW_HOME", str(options.data / "templateflow"))
    if not derivatives.is_dir():
        words = ["--denoise-method", "none", "--n-streamlines", "2000", "--atlases", atlas]
        work = ["-w", str(options.output / "work"), "--nprocs", str(options.nprocs)]
        # A process of its own: this one's libraries would be loaded in each of the app's workers.
        command = [sys.executable, "-m", "difftract_bids", str(options.data / "ds-human")]
        command += [str(derivatives), "participant", *words, *work]
        _require(subprocess.run(command, check=False).returncode)
    return {
        run.participant: load_scan(run, pairs) for run in find_training_runs(derivatives, pairs)
    }


def _require(code: int) -> None:
    if code:
        sys.exit(code)


def truth_of(scan: Scan, output: Path) -> Tractogram | None:
    """Read the true streamlines of a simulated participant, at most a voxel between vertices."""
    path = (
        output
        / "bids/derivatives/truth"
        / f"sub-{scan.participant}/dwi/sub-{scan.participant}_model-truth_tractogram.tck"
    )
    if not path.is_file() or scan.parcellation is None or scan.node_labels is None:
        return None
    lines = nib.streamlines.load(path).streamlines
    points = torch.from_numpy(np.concatenate(list(lines))).float()
    offsets = torch.tensor([0, *np.cumsum([len(line) for line in lines])])
    return Tractogram.of(points, offsets, Nodes(scan.parcellation, scan.vox2ras, scan.node_labels))


def table(rows: Sequence[tuple[object, Row]]) -> str:
    """Give the mean over participants of each measure: mean and spread over seeds."""
    text = []
    for key in dict.fromkeys((row.reference, row.cutoff) for _, row in rows):
        text += [f"Against {key[0]}, cutoff {key[1]:g}:", ""]
        text += ["| | " + " | ".join(_MEASURES) + " |", "|---|" + "---:|" * len(_MEASURES)]
        of_key = [(seed, row) for seed, row in rows if (row.reference, row.cutoff) == key]
        for method in dict.fromkeys(row.method for _, row in of_key):
            found = [(seed, row) for seed, row in of_key if row.method == method]
            cells = [_cell(found, measure) for measure in _MEASURES]
            text.append(f"| {method} | " + " | ".join(cells) + " |")
        text.append("")
    return "\n".join(text)


def _cell(found: Sequence[tuple[object, Row]], measure: str) -> str:
    of_seeds = [
        statistics.fmean(getattr(row, measure) for seed, row in found if seed == one)
        for one in dict.fromkeys(seed for seed, _ in found)
    ]
    digits = ".0f" if measure == "n_streamlines" else ".3f"
    mean = format(statistics.fmean(of_seeds), digits)
    return f"{mean} ± {format(statistics.stdev(of_seeds), digits)}" if len(of_seeds) > 1 else mean


if __name__ == "__main__":
    main()
