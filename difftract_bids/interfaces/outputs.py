"""Saving results under their BIDS names."""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from nipype.interfaces.base import File, traits

from difftract_bids.bids.layout import entity_table, path_patterns
from difftract_bids.bids.templates import entities_of
from difftract_bids.interfaces.niworkflows_sinks import load_sinks
from difftract_bids.io.aside import ASIDE_FOLDER, move_into_place

if TYPE_CHECKING:
    from niworkflows.interfaces import bids as sinks
else:
    sinks = load_sinks()

#: What is said of a figure that is kept is in a file of this name in the node's folder.
KEPT = "kept.txt"
#: Beginning of a gzip file, and the flag (RFC 1952) of one that holds the name of a file.
_GZIP, _HAS_NAME = b"\x1f\x8b", 0x08


class DerivativesSink(sinks.DerivativesDataSink):
    """Save a file in a derivatives folder, whole or not at all.

    niworkflows' sink with three changes: it knows our entities and names (stock pybids has none
    for tractograms and connectomes, and drops ``atlas`` silently); it writes aside and renames, so
    that a killed run leaves no half file under a final name; and it copies compressed files as
    they are, where its own would compress them anew, half a minute for a series of 70 volumes.

    Examples
    --------
    >>> from difftract_bids.interfaces.outputs import DerivativesSink
    >>> sink = DerivativesSink(
    ...     base_directory="out",
    ...     source_file="bids/sub-01/dwi/sub-01_dwi.nii.gz",
    ...     in_file="fa.nii.gz",
    ...     datatype="dwi",
    ...     model="tensor",
    ...     param="fa",
    ...     suffix="dwimap",
    ... )
    >>> sink.run().outputs.out_file
    '/.../out/sub-01/dwi/sub-01_model-tensor_param-fa_dwimap.nii.gz'
    """

    out_path_base = ""
    # Its default would squeeze every label image into int16, whatever the labels.
    _default_dtypes: ClassVar[defaultdict[str, None]] = defaultdict(type(None))
    _config_entities = frozenset({entity["name"] for entity in entity_table()})
    _config_entities_dict = entity_table()
    _file_patterns = tuple(path_patterns())

    def _run_interface(self, runtime):
        target = Path(self.inputs.base_directory).absolute()
        # Among the participant's own files, where who holds its lock may sweep up.
        own = target / f"sub-{self._participant()}"
        own.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=ASIDE_FOLDER, dir=own) as aside:
            self.inputs.base_directory = aside
            try:
                with _copying_as_it_is():
                    runtime = super()._run_interface(runtime)
            finally:
                self.inputs.base_directory = str(target)
            for output in ("out_file", "out_meta"):
                written = self._results.get(output) or []
                moved = [
                    self._move(Path(path), target / Path(path).relative_to(aside))
                    for path in ([written] if isinstance(written, str) else written)
                ]
                if moved:
                    self._results[output] = moved
        return runtime

    def _move(self, path, final):
        move_into_place(path, final)
        return str(final)

    def _participant(self):
        source = self.inputs.source_file
        return entities_of(Path(source if isinstance(source, str) else source[0]))["sub"]


class FigureSinkInputSpec(sinks.DerivativesDataSink.input_spec):
    """Inputs of :class:`FigureSink`."""

    keep_drawn = traits.Bool(
        default_value=False,
        usedefault=True,
        desc="Put no placeholder in the place of a figure that was drawn.",
    )


class FigureSinkOutputSpec(sinks.DerivativesDataSink.output_spec):
    """Outputs of :class:`FigureSink`."""

    kept = File(desc="Says which figure was kept and why, if one was.")


class FigureSink(DerivativesSink):
    """Save a figure of the report, or the placeholder of one.

    Examples
    --------
    >>> from difftract_bids.interfaces.outputs import FigureSink
    >>> from difftract_bids.interfaces.reportlets.connectome import PlotConnectome
    >>> figure = PlotConnectome(matrix="count.dense.tsv").run().outputs.out_report
    >>> sink = FigureSink(
    ...     base_directory="out",
    ...     source_file="bids/sub-01/dwi/sub-01_dwi.nii.gz",
    ...     in_file=figure,
    ...     datatype="figures",
    ...     desc="connectome",
    ...     suffix="dwi",
    ... )
    >>> sink.run().outputs.out_file
    '/.../out/sub-01/figures/sub-01_desc-connectome_dwi.svg'
    """

    input_spec, output_spec = FigureSinkInputSpec, FigureSinkOutputSpec

    def _run_interface(self, runtime):
        self._cwd = Path(runtime.cwd)
        return super()._run_interface(runtime)

    def _move(self, path, final):
        from difftract_bids.reports.placeholder import reason_not_drawn

        reason = reason_not_drawn(path) if self.inputs.keep_drawn else None
        if reason is None or not final.is_file() or reason_not_drawn(final) is not None:
            return super()._move(path, final)
        said = f"{final.name} could not be drawn again, and is kept: {reason.removesuffix('.')}."
        (self._cwd / KEPT).write_text(said, encoding="utf-8")
        self._results["kept"] = str(self._cwd / KEPT)
        return str(final)


@contextmanager
def _copying_as_it_is() -> Iterator[None]:
    original = sinks._copy_any  # noqa: SLF001 (there is no other way in)

    def copy(source: str, target: str) -> bool:
        with Path(source).open("rb") as stream:
            head = stream.read(4)
        # Its reason is the name of the working file, which some programs put into the header.
        is_nameless = head[:2] == _GZIP and not head[3] & _HAS_NAME
        if not (is_nameless and str(target).endswith(".gz")):
            return original(source, target)
        shutil.copyfile(source, target)
        return True

    sinks._copy_any = copy  # noqa: SLF001
    try:
        yield
    finally:
        sinks._copy_any = original  # noqa: SLF001
