"""What an operator can do where covers die."""

from typing import Final

from refresher.domain.pacing import APP_REACH_SECONDS, step_seconds
from refresher.domain.quota import APP_LIMIT, CROWDED, TOKEN_LIMIT, raised
from refresher.simulation.outlook import Outlook
from refresher.simulation.plan import MINUTE_SECONDS

MORE_QUOTA: Final = "ask TikTok for more quota, or keep fewer covers"


def remedy(told: Outlook) -> str | None:
    """First the setting that is the limit in force; None where quota is not why covers die."""
    if told.today.first_death_at is None or told.paused_since is not None:
        return None
    of_token, of_app = told.need.busiest_token, max(told.need.when_due, told.need.at_peak)
    token_step = step_seconds(told.today.limit_per_token)
    app_step = step_seconds(told.today.limit_per_app, APP_REACH_SECONDS)
    if max(of_token * token_step, of_app * app_step) <= CROWDED * MINUTE_SECONDS:
        return None
    if of_token * token_step > of_app * app_step:
        return f"{raised(TOKEN_LIMIT, of_token)}; else {MORE_QUOTA}"
    if told.app_limit_found:
        return f"429s have shown the limit of the app: {MORE_QUOTA}"
    return f"{raised(APP_LIMIT, of_app)}; else {MORE_QUOTA}"
