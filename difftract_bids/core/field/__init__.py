"""Direction fields: where to go from a position. All follow the protocol `DirectionField`."""

from difftract_bids.core.field.fodf import FodfField
from difftract_bids.core.field.function import CallableField
from difftract_bids.core.field.protocol import DirectionField, Heading
from difftract_bids.core.field.tensor import TensorField

__all__ = [
    "CallableField",
    "DirectionField",
    "FodfField",
    "Heading",
    "TensorField",
]
