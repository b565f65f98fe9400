"""A connectome that is differentiable in the ends of streamlines and in their weights.

The radial search gives an end to the nearest labelled voxel, and that choice has no derivative.
Here an end x belongs to node a with the probability

    p_a(x) = Σ_{v in a} exp(−|x − v|² / 2σ²) / Σ_v exp(−|x − v|² / 2σ²)

over the centres v of the labelled voxels strictly nearer than the radius; all are 0 where there
are none. As σ goes to 0 the nearest voxel takes everything, and the hard connectome comes back;
only an end exactly as near to voxels of two nodes stays shared between them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from difftract_bids.core.connectome.assignment import assign_ends
from difftract_bids.core.connectome.checks import check_ends, check_parcellation
from difftract_bids.core.connectome.node_places import find_places
from difftract_bids.core.connectome.soft_reference import Reach, SoftReference, straight_through
from difftract_bids.core.interpolation import Grid
from difftract_bids.core.kernels.soft_sums import SoftKernel
from difftract_bids.core.uncompiled import uncompiled
from difftract_bids.errors import AtlasError, ConfigError, InputError

#: Squared, a much smaller one would be 0 to the computer.
_SMALLEST_SIGMA_MM = 1e-9
#: Labels that an error message names; of more, only the number is said.
_NAMED = 8


class SoftAssignment(NamedTuple):
    """Which nodes the ends of streamlines belong to, and how surely.

    Attributes
    ----------
    nodes
        Row of the connectome of each node within reach of an end, ascending; -1 fills up to the
        largest number of nodes that any end reaches.
    probabilities
        Of each of these, 0 where the node is -1; they add to 1, or to 0 where no label is near.
    """

    nodes: Int[Tensor, "n 2 k"]
    probabilities: Float[Tensor, "n 2 k"]


class SoftConnectome(nn.Module):
    """Sum streamlines over the nodes that their ends belong to in part.

    With w_s the weight of a streamline, x_s its first and y_s its last vertex, edge (a, b) is
    Σ_s w_s [p_a(x_s) p_b(y_s) + p_b(x_s) p_a(y_s)], and (a, a) is Σ_s w_s p_a(x_s) p_a(y_s), so
    that its limit as σ goes to 0 is what `connectome` makes of `assign_ends`. What a streamline
    has where no label is near is left out.

    Derivatives are those of the formula; that a voxel comes into reach, or goes out of it, is a
    jump of exp(−(radius² − d²) / 2σ²), with d the distance of the nearest, and has none.

    Memory does not depend on the product of streamlines and nodes: forwards and backwards, it is
    that of the arguments and of a few matrices.

    Parameters
    ----------
    parcellation
        Labels; 0 is none. Any other integers may occur.
    vox2ras
        Affine of the parcellation, voxels to RAS+ millimetres.
    radius_mm
        Only voxel centres strictly nearer than this count, millimetres.
    sigma_mm
        Standard deviation of the Gaussian, millimetres, above 1e-9.
    node_labels
        The label of each row and column; by default those in the image, ascending. A label that
        the image lacks keeps its zeros.
    straight_through
        Give each end wholly to the node of `assign_ends`, but pass the derivatives of the
        probabilities on to the ends. Derivatives by weights and values are then exact.
    reference
        Compute in plain PyTorch, also where compiled code would be used (on processors).

    Raises
    ------
    AtlasError
        If there is no label, two nodes have the same, one is 0, or the image has others.
    ConfigError
        If the radius or σ is too small, or not finite.
    InputError
        If the parcellation is no three-dimensional image of integers, or its affine unusable.

    References
    ----------
    The limit: MRtrix3's ``tck2connectome``, Smith et al. 2015,
    doi:10.1016/j.neuroimage.2014.10.004. Straight-through: Bengio et al. 2013, arXiv:1308.3432.
    """

    nodes: Tensor
    node_labels: Tensor

    def __init__(
        self,
        parcellation: Int[Tensor, "x y z"],
        vox2ras: Float[Tensor, "4 4"],
        radius_mm: float = 4.0,
        sigma_mm: float = 1.0,
        *,
        node_labels: Int[Tensor, " node"] | None = None,
        straight_through: bool = False,
        reference: bool = False,
    ) -> None:
        super().__init__()
        check_parcellation(parcellation)
        _check_sizes(radius_mm, sigma_mm)
        labels = parcellation.detach().long()
        Grid.from_affine(tuple(labels.shape), vox2ras, labels.device)  # refuses a bad affine
        rows = _node_labels(labels, node_labels)
        self.radius_mm, self.sigma_mm = float(radius_mm), float(sigma_mm)
        self.straight_through, self.reference = straight_through, reference
        # No buffer: module.float() must not round it.
        self.vox2ras = vox2ras.detach().to(device="cpu", dtype=torch.float64)
        self.register_buffer("node_labels", rows, persistent=False)
        self.register_buffer("nodes", _rows_of(labels, rows), persistent=False)

    def forward(
        self, ends_mm: Float[Tensor, "n 2 3"], weights: Float[Tensor, " n"] | None = None
    ) -> Float[Tensor, "node node"]:
        """Sum the weights of streamlines over the edges; differentiable in both arguments.

        Parameters
        ----------
        ends_mm
            First and last vertices, RAS+ millimetres, as `Streamlines.ends` gives them.
        weights
            One for each streamline, such as `soft_survival`'s; 1 by default.

        Returns
        -------
        Tensor
            Symmetric matrix, float64.

        Raises
        ------
        InputError
            If shapes do not fit, or ends or weights are not finite.
        """
        ends, weight = self._checked(ends_mm, weights)
        return self._sums(ends, weight[:, None])[0]

    def mean(
        self,
        ends_mm: Float[Tensor, "n 2 3"],
        values: Float[Tensor, " n"],
        weights: Float[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "node node"]:
        """Average a value of streamlines over each edge; differentiable in all arguments.

        The average is weighted by what a streamline adds to the edge in `forward`, however
        little that is: an edge that hardly exists has a mean all the same.

        Parameters
        ----------
        ends_mm, weights
            See `forward`.
        values
            One number for each streamline: its length, or what `sample_along` gives.

        Returns
        -------
        Tensor
            Symmetric matrix, float64; 0 where there is no streamline at all.

        Raises
        ------
        InputError
            If shapes do not fit, or anything is not finite.
        """
        ends, weight = self._checked(ends_mm, weights)
        value = _one_each(values, "values", ends)
        total, weight_sum = self._sums(ends, torch.stack([weight * value, weight], dim=1))
        # Below the smallest normal number a quotient has no digits left.
        exists = weight_sum.abs() >= torch.finfo(weight_sum.dtype).tiny
        return torch.where(exists, total / torch.where(exists, weight_sum, 1), 0)

    @uncompiled
    def assign(self, ends_mm: Float[Tensor, "n 2 3"]) -> SoftAssignment:
        """Find the nodes that each end may belong to; differentiable in the ends.

        Raises
        ------
        InputError
            If the ends have another shape or are not finite.
        """
        ends, _ = self._checked(ends_mm, None)
        nodes, probability = _Assign.apply(ends, self._backend())  # type: ignore[no-untyped-call]
        if self.straight_through:
            probability = straight_through(nodes, probability, self._hard(ends))
        return SoftAssignment(nodes, probability.to(ends_mm.dtype))

    def extra_repr(self) -> str:
        """Say what this one does; shown by `print`."""
        shape = " x ".join(str(size) for size in self.nodes.shape)
        return (
            f"{len(self.node_labels)} nodes in {shape} voxels, radius_mm={self.radius_mm}, "
            f"sigma_mm={self.sigma_mm}, straight_through={self.straight_through}"
        )

    @uncompiled
    def _sums(
        self, ends: Float[Tensor, "n 2 3"], weights: Float[Tensor, "n channel"]
    ) -> Float[Tensor, "channel node node"]:
        hard = self._hard(ends) if self.straight_through else None
        return _Sums.apply(ends, weights, hard, self._backend())  # type: ignore[no-untyped-call]

    def _hard(self, ends: Float[Tensor, "n 2 3"]) -> Int[Tensor, "n 2"]:
        """Give each end to one node, -1 where no label is near."""
        image = self.nodes + 1
        vox2ras = self.vox2ras.to(image.device)
        return assign_ends(ends.detach(), image, vox2ras, self.radius_mm).long() - 1

    def _backend(self) -> SoftReference | SoftKernel:
        nodes, n_nodes, sizes = self.nodes, len(self.node_labels), (self.radius_mm, self.sigma_mm)
        if self.reference or nodes.device.type != "cpu":
            return SoftReference(Reach(nodes, self.vox2ras.to(nodes.device), *sizes, n_nodes))
        return SoftKernel(nodes, self.vox2ras, torch.linalg.inv(self.vox2ras), *sizes, n_nodes)

    def _checked(
        self, ends_mm: Tensor, weights: Tensor | None
    ) -> tuple[Float[Tensor, "n 2 3"], Float[Tensor, " n"]]:
        check_ends(ends_mm, self.nodes)
        ends = ends_mm.to(device=self.nodes.device, dtype=torch.float64)
        if weights is None:
            return ends, ends.new_ones(len(ends))
        return ends, _one_each(weights, "weights", ends)


class _Sums(torch.autograd.Function):
    """Symmetric sums over edges; the backward pass finds the probabilities again."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch leaves the type of its context open
        ends: Tensor,
        weights: Tensor,
        hard: Tensor | None,
        backend: SoftReference | SoftKernel,
    ) -> Tensor:
        ctx.save_for_backward(ends, weights, hard)
        ctx.backend = backend
        sums = backend.sums(ends, weights, hard)
        for upper in sums:
            upper.add_(upper.triu(1).T)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor, None, None]:  # noqa: ANN401
        ends, weights, hard = ctx.saved_tensors
        to_upper = cotangent.triu() + cotangent.tril(-1).mT
        to_ends, to_weights = ctx.backend.pull_back(ends, weights, hard, to_upper)
        return to_ends, to_weights, None, None


class _Assign(torch.autograd.Function):
    """Probabilities of nodes as a function of ends."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch leaves the type of its context open
        ends: Tensor,
        backend: SoftReference | SoftKernel,
    ) -> tuple[Tensor, Tensor]:
        ctx.backend = backend
        nodes, probability = backend.assign(ends)
        ctx.save_for_backward(ends, nodes)
        ctx.mark_non_differentiable(nodes)
        return nodes, probability

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor, cotangent: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        ends, nodes = ctx.saved_tensors
        return ctx.backend.pull_back_assign(ends, nodes, cotangent), None


def _one_each(
    numbers: Float[Tensor, " n"], name: str, ends: Float[Tensor, "n 2 3"]
) -> Float[Tensor, " n"]:
    if numbers.shape != ends.shape[:1]:
        raise InputError(
            f"There are {tuple(numbers.shape)} {name} for {len(ends)} streamlines.",
            where=name,
            remedy="Give one number for each streamline.",
        )
    bad = int((~torch.isfinite(numbers.detach())).sum())
    if bad:
        raise InputError(
            f"{bad} of {len(numbers)} {name} are not finite.",
            where=name,
            remedy="Leave these streamlines out: even the weight 0 would not hide them.",
        )
    return numbers.to(ends)


def _node_labels(
    labels: Int[Tensor, "x y z"], given: Int[Tensor, " node"] | None
) -> Int[Tensor, " node"]:
    present = torch.unique(labels)
    present = present[present != 0]
    if given is None:
        if not len(present):
            raise AtlasError(
                f"The parcellation of {tuple(labels.shape)} voxels has no label but 0.",
                where="parcellation",
                remedy="Check that it lies where the brain does, or give node_labels.",
            )
        return present
    rows = given.detach().to(present)
    if not len(rows) or len(torch.unique(rows)) != len(rows) or bool((rows == 0).any()):
        raise AtlasError(
            "The nodes must have labels that differ from each other and from 0.",
            where="node_labels",
            remedy="Check the atlas's label table.",
        )
    unknown = present[~torch.isin(present, rows)].tolist()
    if unknown:
        some = ", ".join(str(label) for label in unknown[:_NAMED])
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        raise AtlasError(
            f"The parcellation has {len(unknown)} labels that are no node: {some}{more}.",
            where="node_labels",
            remedy="Add them to the nodes, or set these voxels to 0.",
        )
    return rows


def _rows_of(labels: Int[Tensor, "x y z"], node_labels: Int[Tensor, " node"]) -> Tensor:
    """Replace labels by the rows of their nodes, and 0 by -1."""
    place, _ = find_places(labels.contiguous(), node_labels)
    return torch.where(labels != 0, place, -1).to(torch.int32)


def _check_sizes(radius_mm: float, sigma_mm: float) -> None:
    smallest = {"radius": 0.0, "sigma": _SMALLEST_SIGMA_MM}
    for (name, least), size in zip(smallest.items(), (radius_mm, sigma_mm), strict=True):
        if not least < size < float("inf"):
            raise ConfigError(
                f"The {name} is {size} mm; it must be finite and above {least:g} mm.",
                where=f"{name}_mm",
                remedy="Give 4 for the radius and 1 for sigma, say; for hard choices, "
                "straight_through=True.",
            )
