"""Saving results under their BIDS names."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path
from typing import ClassVar

from niworkflows.interfaces.bids import DerivativesDataSink

from difftract_bids.bids.layout import entity_table, path_patterns


class DerivativesSink(DerivativesDataSink):
    """Save a file in a derivatives folder, whole or not at all.

    niworkflows' sink with two changes: it knows our entities and names (stock pybids has none for
    tractograms and connectomes, and drops ``atlas`` silently), and it writes aside and renames, so
    that a killed run leaves no half file under a final name.
    """

    out_path_base = ""
    # Its default would squeeze every label image into int16, whatever the labels.
    _default_dtypes: ClassVar[defaultdict[str, None]] = defaultdict(type(None))
    _config_entities = frozenset({entity["name"] for entity in entity_table()})
    _config_entities_dict = entity_table()
    _file_patterns = tuple(path_patterns())

    def _run_interface(self, runtime):
        target = Path(self.inputs.base_directory).absolute()
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=target) as aside:
            self.inputs.base_directory = aside
            try:
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


def _move(path: Path, aside: Path, target: Path) -> str:
    final = target / path.relative_to(aside)
    final.parent.mkdir(parents=True, exist_ok=True)
    path.replace(final)
    return str(final)
