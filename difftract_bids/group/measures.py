"""What a zero in a matrix means, and over whom a mean is taken: a rule for each measure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MeasureRule:
    """How a measure is averaged over runs, sessions and participants.

    Attributes
    ----------
    zero_is_a_value
        Whether an edge without streamlines has the value 0, which counts; or has no value.
    reason
        Why, for the sidecars.
    """

    zero_is_a_value: bool
    reason: str

    @property
    def over(self) -> str:
        """Over whom, in words."""
        if self.zero_is_a_value:
            return "all participants whose matrix has both nodes"
        return "the participants that have the edge"


_AMOUNT = (
    "It is an amount, a sum over streamlines: where there is no streamline there is none of it, "
    "and 0 is its value."
)
#: Why 0 counts, or does not. Every measure of the settings stands here.
RULES = {
    "count": MeasureRule(zero_is_a_value=True, reason=_AMOUNT),
    "invlength": MeasureRule(zero_is_a_value=True, reason=_AMOUNT),
    "invnodevol": MeasureRule(zero_is_a_value=True, reason=_AMOUNT),
    "density": MeasureRule(zero_is_a_value=True, reason=_AMOUNT),
    "sift2": MeasureRule(zero_is_a_value=True, reason=_AMOUNT),
    "meanlength": MeasureRule(
        zero_is_a_value=False,
        reason="It is a property of streamlines: 0 says that there is none, not that they have no "
        "length.",
    ),
    "meanfa": MeasureRule(
        zero_is_a_value=False,
        reason="It is a property of the tissue along streamlines: 0 says that there is none, not "
        "that diffusion is isotropic.",
    ),
    "meanmd": MeasureRule(
        zero_is_a_value=False,
        reason="It is a property of the tissue along streamlines: 0 says that there is none, not "
        "that nothing diffuses.",
    ),
}


def rule_of(measure: str) -> MeasureRule:
    """Give the rule of a measure; of one that is not in the table, by the name.

    ``mean`` and the name of an image is a property of the tissue along streamlines, as ``meanfa``;
    anything else is taken for an amount.
    """
    if measure in RULES:
        return RULES[measure]
    if measure.startswith("mean"):
        reason = "It is a mean along streamlines: 0 says that there is none."
        return MeasureRule(zero_is_a_value=False, reason=reason)
    return RULES["count"]
