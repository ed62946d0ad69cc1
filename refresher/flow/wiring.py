"""The parts of the flow, connected to each other."""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from refresher.domain.clocks import Chance, Clock
from refresher.domain.cover_hosts import CoverHosts
from refresher.domain.meter import Meter
from refresher.flow.app_rate import Accounts as Rated
from refresher.flow.app_rate import AppRate
from refresher.flow.capacity import Capacity
from refresher.flow.claiming import Accounts as Claimable
from refresher.flow.claiming import Claiming
from refresher.flow.gate import Gate, Upstream
from refresher.flow.health import Health
from refresher.flow.in_flight import InFlight
from refresher.flow.leases import Accounts as Leased
from refresher.flow.leases import Leases
from refresher.flow.lock_waits import Turns
from refresher.flow.outage import Outage
from refresher.flow.refresh import AccountRefresh
from refresher.flow.results import Announce, Results, WriteBack, announce_nothing
from refresher.flow.split import Split
from refresher.flow.stop import Stop
from refresher.flow.terms import Terms
from refresher.flow.tokens import TokenRenewal, Tokens


class Accounts(Claimable, Leased, Rated, Protocol):
    """The accounts as they are stored. Raises `DatabaseUnavailable`."""


@dataclass(frozen=True, slots=True)
class Outside:
    """The outside world, as the flow gets it."""

    accounts: Accounts
    tokens: Tokens
    write_back: WriteBack
    #: TikTok.
    upstream: Upstream
    #: Whether the database is away.
    outage: Outage
    #: Counts what is done.
    meter: Meter
    #: Which hosts kill covers early. Hears of hosts that answers name.
    hosts: CoverHosts
    #: Random numbers in [0, 1).
    chance: Chance
    #: Monotonic seconds.
    clock: Clock
    #: Hears of stored covers.
    announce: Announce = announce_nothing


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts that the loop drives."""

    stop: Stop
    health: Health
    capacity: Capacity
    claiming: Claiming
    app_rate: AppRate
    results: Results
    leases: Leases
    gate: Gate
    refresh: AccountRefresh


def connect(outside: Outside, terms: Terms, wake: asyncio.Event) -> Parts:
    """Build the parts. `wake` is set when it is time to look for due accounts."""
    chance, clock = outside.chance, outside.clock
    stop = Stop(terms.grace_seconds, clock)
    health = Health(terms.concurrency, chance=chance, clock=clock)
    capacity = Capacity(terms.concurrency, health)
    claiming = Claiming(outside.accounts, chance=chance, clock=clock)
    app_rate = AppRate(outside.accounts, outage=outside.outage, stop=stop, clock=clock)
    results, leases = _storing(
        outside, terms, wake, capacity=capacity, claiming=claiming, stop=stop
    )
    gate = Gate(
        outside.upstream,
        capacity=capacity,
        in_flight=InFlight(capacity, health, wake.set, clock=clock),
        health=health,
        app_rate=app_rate,
        results=results,
        terms=terms,
        meter=outside.meter,
        hosts=outside.hosts,
        clock=clock,
    )
    refresh = AccountRefresh(
        gate,
        Split(gate, leases, results, health=health, policy=terms.policy),
        results,
        leases,
        _renewal(outside, gate, stop),
        health=health,
        under_way=capacity.under_way,
        chance=chance,
    )
    return Parts(stop, health, capacity, claiming, app_rate, results, leases, gate, refresh)


def _storing(
    outside: Outside,
    terms: Terms,
    wake: asyncio.Event,
    *,
    capacity: Capacity,
    claiming: Claiming,
    stop: Stop,
) -> tuple[Results, Leases]:
    """What writes results, and what ends leases. Both take turns where they wait for locks."""
    turns = Turns(outside.write_back.holder, outside.outage, stop.waits_over, outside.clock)
    results = Results(
        outside.write_back,
        turns,
        under_way=capacity.under_way,
        hosts=outside.hosts,
        stop=stop,
        wake=wake,
        announce=outside.announce,
    )
    leases = Leases(outside.accounts, turns, claiming=claiming, stop=stop, wake=wake, terms=terms)
    return results, leases


def _renewal(outside: Outside, gate: Gate, stop: Stop) -> TokenRenewal:
    return TokenRenewal(
        outside.tokens,
        gate,
        outage=outside.outage,
        stop=stop,
        meter=outside.meter,
        chance=outside.chance,
        clock=outside.clock,
    )
