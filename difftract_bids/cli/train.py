"""``difftract-train``: learn a network from diffusion images to fODFs, through the propagator."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difftract_bids.cli.arguments import Parser, positive
from difftract_bids.cli.compiled import keep_compiled
from difftract_bids.errors import DifftractError, InputError, UsageError
from difftract_bids.validation import toml_value

if TYPE_CHECKING:
    from difftract_bids.config import TrainingConfig
    from difftract_bids.learn.scan import Scan
    from difftract_bids.learn.training import Trained

#: Exit codes: trained; training or preprocessing failed; unusable arguments or input.
DONE, FAILED, UNUSABLE = 0, 1, 2

_EPILOG = """\
OUT holds, in the end: model.safetensors (the best by validation, for difftract-bids
--fodf-model-file), history.tsv and logs/ (for TensorBoard: every step's losses), held_out.tsv
(participants that checked, beside a deconvolution of the same volumes), checkpoints/, and
train.toml (all settings). Killed at any moment and started again by the same command, it goes
on where it was.

examples:
  difftract-train --print-config > train.toml
  difftract-train /data/derivatives/difftract /out --config train.toml
  difftract-train /data/bids /out --config train.toml --participant-label 01 02 03 04
  difftract-train /data/bids /out --config train.toml -- --atlases Lab=/data/atlas
  difftract-train /data/derivatives/difftract /out --config train.toml \\
      --model-class ournetworks.unet:UNet
  tensorboard --logdir /out/logs
"""
#: What a training leaves in its folder, besides derivatives that it had made.
_LEFT = ("checkpoints", "logs", "history.tsv", "model.safetensors", "train.toml", "held_out.tsv")
#: How the network does beside a deconvolution of the same volumes.
HELD_OUT = "held_out.tsv"
#: What is worth knowing of settings whose default is the exact, not the usual, choice.
_ADVICE = {"gradient_growth_limit": "For training, about 2 is advised."}


class _PrintConfig(argparse.Action):
    """Print all settings with their descriptions and defaults, and end."""

    def __call__(self, *_: object) -> None:
        from difftract_bids.config import TrainingConfig

        print(commented(TrainingConfig()), end="")
        sys.exit(DONE)


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = Parser(
        prog="difftract-train",
        description="Learn a network that gives fODFs from diffusion images, with losses on the "
        "fODFs and, through the differentiable propagator, on streamlines and connectomes.",
        usage="%(prog)s DATASET OUT [options] [-- options of difftract-bids]",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "dataset",
        metavar="DATASET",
        type=Path,
        help="derivatives of difftract-bids, or a raw BIDS dataset: that is put through "
        "difftract-bids first, into OUT/derivatives, with the options after --",
    )
    add("out", metavar="OUT", type=Path, help="folder for the model and all that belongs to it")
    add("--version", action="version", version=f"difftract-train {version('difftract-bids')}")
    _add_training(parser.add_argument_group("training"))
    _add_execution(parser.add_argument_group("execution"))
    return parser


def _add_training(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--config", type=Path, metavar="FILE", help="TOML file of settings (default: defaults)")
    add(
        "--print-config",
        action=_PrintConfig,
        nargs=0,
        help="print a file of all settings with their descriptions and defaults, and end",
    )
    add(
        "--participant-label",
        "--participant_label",
        nargs="+",
        metavar="LABEL",
        help="participants to learn from and to check with (default: all)",
    )
    add(
        "--model-class",
        metavar="PACKAGE.MODULE:CLASS",
        help="your own torch.nn.Module instead of the built-in network; it is imported and run, "
        "so it must be yours or one you trust",
    )


def _add_execution(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--nprocs",
        "--nthreads",
        "--n-cpus",
        type=positive,
        metavar="N",
        help="CPUs to use in all (default: all available); the same number gives the same bits",
    )
    add(
        "-w",
        "--work-dir",
        type=Path,
        metavar="DIR",
        help="working folder of difftract-bids, for a raw dataset (default: OUT/work)",
    )
    add(
        "--restart",
        action="store_true",
        help="start anew: remove the checkpoints, the model and the history in OUT",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv
        Arguments; those of the process when ``None``.

    Returns
    -------
    int
        0 trained, 1 training or preprocessing failed (what was learnt before is kept), 2
        arguments or inputs are unusable.
    """
    # Before MKL is first called. Otherwise the last bits of its sums depend on where in memory
    # numbers lie, and a run that was killed and goes on would not give the same weights.
    os.environ.setdefault("MKL_CBWR", "COMPATIBLE")
    # Threads that wait by spinning more than doubled the time of a training beside other work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given = list(sys.argv[1:] if argv is None else argv)
    split = given.index("--") if "--" in given else len(given)
    try:
        arguments = build_parser().parse_args(given[:split])
        config = _settings(arguments)
        if arguments.restart:
            _clear(arguments.out)
        derivatives = _derivatives(arguments, config, given[split + 1 :])
        if derivatives is None:
            return FAILED
        trained = _train(arguments, config, derivatives)
    except DifftractError as error:
        print(f"difftract-train: error: {error}", file=sys.stderr)
        return UNUSABLE if isinstance(error, UsageError | InputError) else FAILED
    except KeyboardInterrupt:
        print("difftract-train: interrupted; the same command goes on.", file=sys.stderr)
        return FAILED
    losses = ", ".join(f"{name} {value:.4g}" for name, value in trained.validation.items())
    print(f"Trained for {trained.steps} steps; the best model is that of step ", end="")
    print(f"{trained.best_step} (validation: {losses}).")
    print(f"Use it: difftract-bids ... --fodf-model-file {trained.model}")
    return DONE


def commented(config: TrainingConfig) -> str:
    """Write settings as TOML, each with its description; those without a value commented out."""
    lines: list[str] = []
    for table in fields(config):
        values = getattr(config, table.name)
        lines += ["", f"[{table.name}]"] if lines else [f"[{table.name}]"]
        for item in fields(values):
            value = getattr(values, item.name)
            unit = f" ({item.metadata['unit']})" if item.metadata["unit"] else ""
            lines.append(f"# {item.metadata['desc']}{unit}")
            lines += [f"# {_ADVICE[item.name]}"] if item.name in _ADVICE else []
            known = f"{item.name} = {toml_value(value)}"
            lines.append(f"# {item.name} =" if value is None else known)
    return "\n".join(lines) + "\n"


def _settings(arguments: argparse.Namespace) -> TrainingConfig:
    """Read the settings; a class named on the command line is the architecture."""
    from difftract_bids.config import TrainingConfig

    given = arguments.config
    config = TrainingConfig() if given is None else TrainingConfig.from_toml(given)
    if arguments.model_class is None:
        return config
    network = replace(config.network, architecture=arguments.model_class)
    return replace(config, network=network)


def _clear(out: Path) -> None:
    for name in _LEFT:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _derivatives(
    arguments: argparse.Namespace, config: TrainingConfig, options: list[str]
) -> Path | None:
    """Find the derivatives to learn from; make them first from a raw dataset.

    Returns
    -------
    Path or None
        Their folder; ``None`` if making them failed, which has been said.
    """
    if _is_derivative(arguments.dataset):
        if options:
            raise UsageError(
                f"There are options of difftract-bids ({' '.join(options)}), and nothing for it "
                "to do: these are derivatives already.",
                where=arguments.dataset,
                remedy="Leave out what comes after --, or give the raw dataset.",
            )
        return Path(arguments.dataset)
    from difftract_bids.cli import run

    derivatives = Path(arguments.out) / "derivatives"
    command = [str(arguments.dataset), str(derivatives), "participant"]
    command += ["--work-dir", str(arguments.work_dir or Path(arguments.out) / "work")]
    if arguments.participant_label:
        command += ["--participant-label", *arguments.participant_label]
    if arguments.nprocs:
        command += ["--nprocs", str(arguments.nprocs)]
    if config.pairs.atlas and "--atlases" not in options:
        command += ["--atlases", config.pairs.atlas]
    command += options
    # Going on with a training must not begin with hours of what was done before it.
    record = Path(arguments.out) / "derivatives_command.json"
    if record.is_file() and record.read_text(encoding="utf-8") == json.dumps(command):
        return derivatives
    code = run.main(command)
    if code == run.UNUSABLE:
        raise InputError(
            "difftract-bids cannot use this dataset; its reason stands above.",
            where=arguments.dataset,
            remedy="Mend that, or give derivatives of difftract-bids.",
        )
    if code != run.DONE:
        print("difftract-train: error: difftract-bids failed, see above.", file=sys.stderr)
        return None
    record.write_text(json.dumps(command), encoding="utf-8")
    return derivatives


def _is_derivative(dataset: Path) -> bool:
    """Say whether a dataset says that it is a derivative; raw ones need not say so.

    Raises
    ------
    InputError
        If it is no BIDS dataset.
    """
    return _description(dataset).get("DatasetType", "raw") == "derivative"


def _description(dataset: Path) -> dict[str, Any]:
    path = dataset / "dataset_description.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"This is no BIDS dataset: its description cannot be read ({error}).",
            where=path,
            remedy="Give the root folder of a raw BIDS dataset or of difftract-bids' derivatives.",
        ) from error
    return content if isinstance(content, dict) else {}


def _train(arguments: argparse.Namespace, config: TrainingConfig, derivatives: Path) -> Trained:
    """Find the pairs, load them, and train."""
    from difftract_bids.bids.training_runs import find_training_runs
    from difftract_bids.cli.training_progress import listener

    runs = find_training_runs(
        derivatives,
        config.pairs,
        arguments.participant_label,
        needs_parcellation=config.losses.needs_connectome,
    )
    _set_threads(arguments)
    from difftract_bids.learn.scan import load_scan
    from difftract_bids.learn.training import train

    if config.losses.needs_propagation:
        from difftract_bids.learn.compiling import compile_apart

        compile_apart(config.network.lmax)
    started = time.monotonic()
    print(f"Loading {len(runs)} scan(s).", flush=True)
    scans = [load_scan(run, config.pairs) for run in runs]
    with listener() as progress:
        trained = train(
            scans,
            config,
            arguments.out,
            progress=progress,
            model_class=arguments.model_class,
            dataset=str(_description(derivatives).get("Name", "")),
        )
    print(f"Took {(time.monotonic() - started) / 60:.1f} min.", flush=True)
    _compare(arguments, config, scans, trained)
    return trained


def _compare(
    arguments: argparse.Namespace, config: TrainingConfig, scans: list[Scan], trained: Trained
) -> None:
    """Say, and write, how the participants that checked do beside a deconvolution."""
    from difftract_bids.cli.held_out import compare_held_out, said_of, write_rows

    try:
        rows = compare_held_out(scans, config, trained.model, arguments.model_class)
    except DifftractError as error:
        # The model is trained: what it is compared with cannot undo that.
        print(f"The model could not be compared with a deconvolution: {error}", file=sys.stderr)
        return
    if rows:
        print("Against all volumes, of participants that were not learnt from:")
        print("\n".join(said_of(rows)), flush=True)
        write_rows(rows, arguments.out / HELD_OUT)


def _set_threads(arguments: argparse.Namespace) -> None:
    """Hold torch, and the kernels which follow it, to a number of CPUs."""
    keep_compiled(arguments.out)
    import torch

    torch.set_num_threads(arguments.nprocs or len(os.sched_getaffinity(0)))


if __name__ == "__main__":
    sys.exit(main())
