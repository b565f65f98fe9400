"""Saving results under their BIDS names."""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from niworkflows.interfaces import bids as sinks
from niworkflows.interfaces.bids import DerivativesDataSink

from difftract_bids.bids.layout import entity_table, path_patterns
from difftract_bids.bids.templates import entities_of
from difftract_bids.io.aside import ASIDE_FOLDER, move_into_place

#: Beginning of a gzip file, and the flag (RFC 1952) of one that holds the name of a file.
_GZIP, _HAS_NAME = b"\x1f\x8b", 0x08


class DerivativesSink(DerivativesDataSink):
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
                    _move(Path(path), Path(aside), target)
                    for path in ([written] if isinstance(written, str) else written)
                ]
                if moved:
                    self._results[output] = moved
        return runtime

    def _participant(self):
        source = self.inputs.source_file
        return entities_of(Path(source if isinstance(source, str) else source[0]))["sub"]


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


def _move(path: Path, aside: Path, target: Path) -> str:
    final = target / path.relative_to(aside)
    move_into_place(path, final)
    return str(final)
