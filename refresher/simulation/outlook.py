"""What becomes of the stored covers under the quota in force, beside another quota."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from refresher.domain.cohorts import NO_COVER, Cohort, Fleet
from refresher.domain.due import seconds_ahead
from refresher.domain.pacing import Pace
from refresher.domain.stored import Consents, Life, Stored, Tokens, Unasked
from refresher.simulation.engine import Engine
from refresher.simulation.losses import Loss, Losses
from refresher.simulation.need import Need, need_of
from refresher.simulation.plan import (
    DAY_SECONDS,
    HOUR_SECONDS,
    MINUTE_SECONDS,
    OnProgress,
    Plan,
    Ttl,
)
from refresher.simulation.remedy import remedy

OnProgressOf = Callable[[int, int], None]
#: Hourly covers live to a full hour, and for so long at least.
LEAST_HOURLY_SECONDS: Final = DAY_SECONDS - HOUR_SECONDS - 60


@dataclass(frozen=True, slots=True)
class Prospect:
    """What a quota does to the covers that can be kept alive."""

    #: Requests a minute; 0: no limit.
    limit_per_token: int
    limit_per_app: int
    #: Unix time; None where no cover dies.
    first_death_at: float | None
    #: Covers that are dead in the worst minute.
    most_dead: int
    #: Covers that die. One that dies twice counts twice.
    deaths: int
    deaths_within_24_hours: int
    #: Accounts that lose covers.
    accounts: int
    #: In its worst minute.
    lowest_valid_share: float
    #: None where the time ends before.
    valid_share_after_24_hours: float | None
    #: At the end.
    last_valid_share: float
    #: The accounts that lose covers, as far as they were looked into. Those with most come first.
    losses: Sequence[Loss]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """A forecast of the stored fleet. Programs get these names, as JSON. Times are Unix seconds."""

    now: float
    #: How far it looks.
    seconds: float
    accounts: int
    #: That can be kept alive.
    covers: int
    #: Those of them that are dead already: they do not die once more.
    dead_now: int
    #: How many videos it was estimated from; None: it is exact.
    sampled: int | None
    #: How long covers live, and whether that was observed or is assumed.
    ttl: Ttl
    ttl_observed: bool
    #: How long before it dies a cover is asked for, without and with all of the spread.
    least_lead_seconds: float
    most_lead_seconds: float
    need: Need
    #: What to do where quota is why covers die.
    remedy: str | None
    today: Prospect
    #: Under half of today's quota, or a given one; None where there is no limit to be halved.
    other: Prospect | None
    halved: bool
    #: Since when everything is paused.
    paused_since: float | None
    unasked: Mapping[str, Unasked]
    consents: Consents
    #: They are assumed to be renewed when that is tried next, whatever is in the way now.
    tokens: Tokens


def look_ahead(
    stored: Stored,
    plan: Plan,
    limit_per_app: int | None = None,
    on_progress: OnProgressOf = lambda _, __: None,
) -> Outlook:
    """What becomes of the covers under the quota in force, and under another one.

    `plan` has the settings. The other quota is `limit_per_app`, or else half of today's.
    `on_progress` hears how many minutes are simulated, and how many there are in all.
    """
    now = in_force(stored, plan)
    pace = halved(now.pace) if limit_per_app is None else _limited(now.pace, limit_per_app)
    plans = [now, *([] if pace is None else [replace(now, pace=pace)])]
    prospects = _prospects(stored, plans, on_progress)
    return _outlook(stored, now, plan.pace, prospects, is_half=limit_per_app is None)


def _outlook(
    stored: Stored, plan: Plan, as_set: Pace, prospects: Sequence[Prospect], *, is_half: bool
) -> Outlook:
    """What `prospects` show, today's and perhaps another. `plan` is `in_force`."""
    today, *others = prospects
    need = need_of(stored.fleet, plan)
    return Outlook(
        now=stored.fleet.now,
        seconds=plan.seconds,
        accounts=stored.accounts,
        covers=round(_reachable(stored.fleet)),
        dead_now=round(_dead(stored.fleet)),
        sampled=stored.sampled,
        ttl=plan.ttl,
        ttl_observed=observed_ttl(stored.lives) is not None,
        least_lead_seconds=seconds_ahead(plan.policy, 0.0, plan.longest_seconds),
        most_lead_seconds=seconds_ahead(plan.policy, 1.0, plan.longest_seconds),
        need=need,
        remedy=_remedy(stored, as_set, need, today),
        today=today,
        other=others[0] if others else None,
        halved=is_half,
        paused_since=stored.paused_since,
        unasked=stored.unasked,
        consents=stored.consents,
        tokens=stored.tokens,
    )


def _remedy(stored: Stored, as_set: Pace, need: Need, today: Prospect) -> str | None:
    if today.first_death_at is None or stored.paused_since is not None:
        return None
    return remedy(need, as_set, stored.app_rate)


def look_at_today(
    stored: Stored, plan: Plan, on_progress: OnProgress = lambda _: None
) -> tuple[Prospect, Need]:
    """The same for the quota in force alone, and what is needed. `plan` has the settings.

    `on_progress` hears how many minutes are simulated; what it raises ends the simulation.
    """
    plan = in_force(stored, plan)
    return prospect(stored, plan, on_progress), need_of(stored.fleet, plan)


def in_force(stored: Stored, plan: Plan) -> Plan:
    """The plan with the app's rate that was found, and with covers that live as observed."""
    limits = [plan.pace.limit_per_app, *([max(1, int(stored.app_rate))] if stored.app_rate else [])]
    limit = min((limit for limit in limits if limit), default=0)
    ttl = observed_ttl(stored.lives) or plan.ttl
    return replace(plan, ttl=ttl, pace=replace(plan.pace, limit_per_app=limit))


def halved(pace: Pace) -> Pace | None:
    """Half the app's limit, or half of each token's where the app has none; None without any."""
    if pace.limit_per_app:
        return _limited(pace, max(1, pace.limit_per_app // 2))
    if pace.limit_per_token:
        return replace(pace, limit_per_token=max(1, pace.limit_per_token // 2))
    return None


def _prospects(
    stored: Stored, plans: Sequence[Plan], on_progress: OnProgressOf
) -> Sequence[Prospect]:
    """Of each plan. They are equally long."""
    minutes = round(plans[0].seconds / MINUTE_SECONDS)

    def after(others: int) -> OnProgress:
        return lambda done: on_progress(others * minutes + done, len(plans) * minutes)

    told = []
    for others, plan in enumerate(plans):
        told.append(prospect(stored, plan, after(others)))
        after(others)(minutes)
    return told


def prospect(stored: Stored, plan: Plan, on_progress: OnProgress = lambda _: None) -> Prospect:
    """Simulate. `plan` is `in_force`."""
    fleet = _copied(stored.fleet)
    losses = Losses(fleet, plan.seconds)
    engine = Engine(fleet, plan, losses)
    if stored.paused_since is None:
        engine.run(on_progress)
    for account in engine.accounts:
        for cohort in account.cohorts:
            losses.left(account.number, cohort)
    return _told(losses, plan, fleet.now, _reachable(stored.fleet))


def observed_ttl(lives: Sequence[Life]) -> Ttl | None:
    """How long most covers live; None where there is no cover."""
    covers = sum(life.covers for life in lives)
    hourly = sum(life.covers for life in lives if _is_hourly(life))
    if not covers or hourly > covers / 2:
        return "hourly" if covers else None
    counted = 0
    for life in sorted(lives, key=lambda life: life.seconds):
        counted += life.covers
        if counted >= covers / 2:
            # Stored a moment after it was obtained.
            return max(1, -int(-life.seconds // 1))
    return None


def _is_hourly(life: Life) -> bool:
    on_the_hour = life.expires_at % HOUR_SECONDS == 0
    return on_the_hour and LEAST_HOURLY_SECONDS <= life.seconds <= DAY_SECONDS


def _limited(pace: Pace, limit_per_app: int) -> Pace:
    return replace(pace, limit_per_app=limit_per_app)


def _copied(fleet: Fleet) -> Fleet:
    """To be used up."""
    accounts = {
        open_id: [cohort.of(cohort.count) for cohort in cohorts]
        for open_id, cohorts in fleet.accounts.items()
    }
    return replace(fleet, accounts=accounts)


def _reachable(fleet: Fleet) -> float:
    return _counted(fleet, lambda cohort: cohort.reachable)


def _dead(fleet: Fleet) -> float:
    return _counted(
        fleet, lambda cohort: cohort.reachable and NO_COVER < cohort.expires_at <= fleet.now
    )


def _counted(fleet: Fleet, counts: Callable[[Cohort], bool]) -> float:
    return sum(
        fleet.weights.get(open_id, 1.0) * cohort.count
        for open_id, cohorts in fleet.accounts.items()
        for cohort in cohorts
        if counts(cohort)
    )


def _told(losses: Losses, plan: Plan, now: float, covers: float) -> Prospect:
    first = losses.first_death_seconds
    dead_by_minute = losses.dead_by_minute()
    valid = [1 - min(dead, covers) / covers if covers else 1.0 for dead in dead_by_minute]
    after_a_day = DAY_SECONDS // 60 - 1
    return Prospect(
        limit_per_token=plan.pace.limit_per_token,
        limit_per_app=plan.pace.limit_per_app,
        first_death_at=None if first is None else now + first,
        most_dead=round(max(dead_by_minute)),
        deaths=round(losses.deaths()),
        deaths_within_24_hours=round(losses.deaths(DAY_SECONDS)),
        accounts=round(losses.accounts),
        lowest_valid_share=min(valid),
        valid_share_after_24_hours=valid[after_a_day] if len(valid) > after_a_day else None,
        last_valid_share=valid[-1],
        losses=losses.by_account(),
    )
