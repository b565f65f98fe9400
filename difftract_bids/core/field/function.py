"""Direction field: any differentiable function from positions to directions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from difftract_bids.core.field.protocol import Heading
from difftract_bids.core.streamlines import StopReason
from difftract_bids.errors import InputError


@dataclass(frozen=True)
class CallableField:
    """Directions that a function gives: an analytic field, an interpolator, a network.

    Differentiable in the positions and in whatever the function's graph reaches.

    Attributes
    ----------
    function
        From positions (n, 3), RAS+ millimetres, to directions (n, 3), scanner axes. Their length
        has no meaning; a row that is zero or not finite says that there is nothing to follow
        (`StopReason.NO_PEAK`). Each row must depend on its own position only.
    dtype, device
        What positions are given in and directions come in.
    inside
        From positions (n, 3) to truth values (n,): where the field is defined. Elsewhere
        ``function`` is not called, and streamlines end with `StopReason.OUTSIDE_IMAGE`. Without
        it, everywhere.
    signed
        Whether a direction and its opposite differ, as in a flow. If they do not, as in fibres,
        the one nearer to where one comes from is taken. If they do, one who comes against the
        field finds nothing to follow (`StopReason.NO_PEAK`): seeds need directions that go with
        it, and the half that would go back has no vertex.
    gradients_for
        Tensors in the function that gradients may be wanted for. Those of an ``nn.Module`` are
        known without. They matter only to results without a streamline, which stay in the graph.
    """

    function: Callable[[Float[Tensor, "n 3"]], Float[Tensor, "n 3"]]
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    inside: Callable[[Float[Tensor, "n 3"]], Bool[Tensor, " n"]] | None = None
    signed: bool = False
    gradients_for: tuple[Tensor, ...] = ()

    def parameters(self) -> tuple[Tensor, ...]:
        """List the tensors named at construction, and the function's own if it is a module."""
        own = tuple(self.function.parameters()) if isinstance(self.function, nn.Module) else ()
        return self.gradients_for + own

    def heading(self, position_mm: Float[Tensor, "3 n"], start: Float[Tensor, "3 n"]) -> Heading:
        """Ask the function where to go from each position.

        Differentiable in the positions and the function's own tensors, not in ``start``.

        Raises
        ------
        InputError
            If ``function`` or ``inside`` does not answer row by row.
        """
        rows = position_mm.to(self.dtype).T
        defined = torch.ones_like(rows[:, 0], dtype=torch.bool)
        if self.inside is not None:
            defined = _checked(self.inside(rows.detach()), tuple(defined.shape), "inside") != 0
        given, usable = self._directions(rows, defined)
        start = start.detach().to(self.dtype)
        places = torch.nonzero(usable).squeeze(1)
        direction = start.index_copy(1, places, given)
        reason = torch.where(usable, int(StopReason.NONE), int(StopReason.NO_PEAK))
        reason = torch.where(defined, reason, int(StopReason.OUTSIDE_IMAGE))
        against = usable & ((direction.detach() * start).sum(0) < 0)
        if self.signed:
            return Heading(direction, torch.where(against, int(StopReason.NO_PEAK), reason))
        return Heading(torch.where(against, -direction, direction), reason)

    def _directions(
        self, rows: Float[Tensor, "n 3"], defined: Bool[Tensor, " n"]
    ) -> tuple[Float[Tensor, "3 k"], Bool[Tensor, " n"]]:
        """Give unit vectors at the ``k`` positions that have one, and which positions these are.

        The function is asked again without the others if there are any: 0/0 in a single row would
        turn the gradients of everything that rows share into NaN, even when it is not used.
        """
        usable = defined.clone()
        while bool(usable.any()):
            asked = rows[usable]
            values = _checked(self.function(asked), tuple(asked.shape), "function").to(rows)
            length = torch.linalg.vector_norm(values.detach(), dim=1)
            good = torch.isfinite(length) & (length > 0)
            if bool(good.all()):
                return (values / torch.linalg.vector_norm(values, dim=1, keepdim=True)).T, usable
            usable = usable.index_put((torch.nonzero(usable).squeeze(1),), good)
        return rows.new_zeros(3, 0), usable


def _checked(values: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    if not isinstance(values, Tensor) or values.shape != shape:
        found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise InputError(
            f"{name} gave {found} for {shape[0]} positions; a tensor of shape {shape} is needed.",
            where=f"CallableField.{name}",
            remedy="It gets all positions at once, (n, 3), and must answer row by row.",
        )
    return values
