"""What every figure and table of the report is: an interface that draws, and keeps the path."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
)

_LOG = logging.getLogger("nipype.interface")


class ReportletOutputSpec(TraitedSpec):
    """What every reportlet gives."""

    out_report = File(desc="SVG figure or HTML snippet.")


class Reportlet(SimpleInterface):
    """Load, draw, and keep the path: a subclass says what to draw.

    Where drawing fails, a placeholder says why, and the step is done all the same.

    Examples
    --------
    >>> from pathlib import Path
    >>> from nipype.interfaces.base import BaseInterfaceInputSpec, File
    >>> from difftract_bids.interfaces.reportlets.base import Reportlet
    >>> class ShowNodesInputSpec(BaseInterfaceInputSpec):
    ...     table = File(exists=True, mandatory=True, desc="Node table (TSV).")
    >>> class ShowNodes(Reportlet):
    ...     input_spec, _extension = ShowNodesInputSpec, "html"
    ...
    ...     def _draw(self, path):
    ...         path.write_text(f"<pre>{Path(self.inputs.table).read_text()}</pre>")
    ...         return path
    >>> ShowNodes(table="labels.tsv").run().outputs.out_report
    '/.../report.html'
    """

    output_spec = ReportletOutputSpec
    _extension = "svg"

    def _run_interface(self, runtime):
        path = Path(runtime.cwd) / f"report.{self._extension}"
        try:
            drawn = self._draw(path)
        except Exception as error:  # noqa: BLE001
            # A participant's results are worth more than a picture of them.
            from difftract_bids.reports.placeholder import write_placeholder

            _LOG.warning("%s could not draw.", type(self).__name__, exc_info=True)
            drawn = write_placeholder(path, error)
        self._results["out_report"] = str(drawn)
        return runtime

    def _draw(self, path):
        raise NotImplementedError


def load_for_figure(path: str, *, ndim: int = 3) -> Any:
    """Load an image."""
    from difftract_bids.io.images import load_volume

    return load_volume(path, ndim=ndim)


def image_and_gradients(inputs: Any) -> tuple[Any, Any]:
    """Open a diffusion image (its data stay on disk) and read its gradient table."""
    import nibabel as nib

    from difftract_bids.io.gradients import read_gradients

    image = nib.load(inputs.dwi)
    threshold = inputs.b0_threshold_s_mm2
    return image, read_gradients(
        inputs.bval, inputs.bvec, image.affine, b0_threshold_s_mm2=threshold
    )


class OnReferenceInputSpec(BaseInterfaceInputSpec):
    """Inputs of what is drawn over the reference image."""

    dwiref = File(exists=True, mandatory=True, desc="Mean b=0 image.")
    mask = File(exists=True, mandatory=True, desc="Brain mask, same grid.")
