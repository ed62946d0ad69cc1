"""What an operator can do where covers die."""

from refresher.domain.pacing import Pace
from refresher.domain.quota import CROWDED, Needed, advice, limits
from refresher.simulation.need import Need


def remedy(need: Need, pace: Pace, found: float | None) -> str | None:
    """As `doctor` advises, but peaks count, too; None where quota is not why covers die.

    `pace` has the limits that are set, `found` is the app's limit that 429s have shown.
    """
    in_force = limits(
        pace,
        found,
        _needed("the busiest token needs", need.busiest_token_when_due, need.busiest_token),
        _needed("all accounts together need", need.when_due, need.at_peak),
    )
    if not in_force or in_force[0].share <= CROWDED:
        return None
    return f"{advice(in_force)}; else keep fewer covers"


def _needed(whose: str, when_due: float, at_peak: float) -> Needed:
    return Needed(whose, max(when_due, at_peak), at_peak)
