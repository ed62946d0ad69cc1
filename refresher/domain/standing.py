"""An account after an operator set its state, in words."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """An account whose state an operator has set."""

    #: Its state before.
    was: str
    #: Its state now.
    is_: str
    #: Since when it has this state.
    since: datetime
    now: datetime
    #: A replica works it just now.
    leased: bool
    #: Requests may be sent from then on.
    free_at: datetime
    #: There is a refresh token.
    refreshable: bool
    #: The access token is to be renewed.
    token_due: bool
    #: The access token is not to be sent any more.
    token_dead: bool


def standing_line(open_id: str, standing: Standing, *, managed: bool) -> str:
    """One line: the change, and what follows from it; `managed`: we renew access tokens."""
    was, is_ = standing.was, standing.is_
    since = standing.since.isoformat(sep=" ", timespec="seconds")
    change = f"{was} -> {is_}" if was != is_ else f"{is_} already, since {since}"
    what = _worked(standing, managed=managed) if is_ == "active" else _left_alone(standing)
    return f"{open_id}: {change}; {what}"


def _left_alone(standing: Standing) -> str:
    if standing.leased:
        return "it is being worked just now: what is in flight is finished, then it rests"
    return "it is not asked for until it is resumed"


def _worked(standing: Standing, *, managed: bool) -> str:
    renewed = managed and standing.refreshable
    if standing.token_dead and not renewed:
        why = (
            "the access token is dead and there is no refresh token"
            if managed
            else "the access token is dead and not refreshed by this program as it is set"
        )
        return f"but {why}: it is parked again unless new tokens are stored"
    first = ", its access token is refreshed first" if renewed and _is_first(standing) else ""
    again = "; parked again if TikTok still refuses it" if standing.was.startswith("needs_") else ""
    return f"what is due is asked for {_when(standing)}{first}{again}"


def _is_first(standing: Standing) -> bool:
    return standing.token_due or standing.token_dead


def _when(standing: Standing) -> str:
    if standing.leased:
        return "just now"
    if standing.free_at > standing.now:
        return f"from {standing.free_at.isoformat(sep=' ', timespec='seconds')} on"
    return "at once"
