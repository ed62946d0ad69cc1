"""The rules of `doctor` that no test with a database shows."""

import re
from datetime import timedelta
from pathlib import Path

import pytest

from refresher.domain.checkup import access, facts, fleet, freshness, server, storage
from refresher.domain.checkup.checks import CHECKS, judged, verdict
from refresher.domain.checkup.findings import Finding, Outcome, unchecked
from refresher.domain.due import DuePolicy
from refresher.domain.pacing import Pace
from refresher.domain.quota import Demand

PAGE = Path(__file__).parents[2] / "docs" / "doctor.md"
OK, WARNING, PROBLEM, SKIPPED = Outcome
UNCHECKED = "unchecked"


def test_the_page_lists_the_checks():
    """In their order, each with what it looks at."""
    rows = re.findall(r"^\| `(\w+\.\w+)` \| ([^|]+) \|", PAGE.read_text(), re.MULTILINE)
    assert rows == [(check.id, check.looks_at) for check in CHECKS]


def test_what_could_not_be_read_is_skipped():
    """With the reason, if there is one."""
    known = {facts.Role: facts.Unread("permission denied")}
    found = {check.id: finding for check, finding in judged(known)}
    assert found.keys() == {check.id for check in CHECKS}
    assert found["role.rights"].text == "permission denied"
    assert {finding.outcome for finding in found.values()} == {SKIPPED}


@pytest.mark.parametrize(
    ("outcomes", "text"),
    [
        ([OK, OK], "all is well"),
        ([OK, UNCHECKED, SKIPPED], "1 not checked, 1 skipped"),
        ([PROBLEM, UNCHECKED, UNCHECKED], "1 problem, 2 not checked"),
        ([OK, SKIPPED], "all is well, 1 skipped"),
        ([WARNING, OK, PROBLEM, WARNING], "1 problem, 2 warnings"),
        ([PROBLEM, PROBLEM, SKIPPED, SKIPPED], "2 problems, 2 skipped"),
    ],
)
def test_the_verdict(outcomes, text):
    """Problems first. All is not well where something could not be checked."""
    findings = [
        unchecked("no answer") if each == UNCHECKED else Finding(each, "") for each in outcomes
    ]
    assert verdict(findings) == text


@pytest.mark.parametrize(
    ("short", "usual", "text"),
    [
        (899, 899, "covers live 14 min 59 s. The lead is longer: 1 h"),
        (
            899,
            7200,
            "covers live 2 h, one in twenty less than 14 min 59 s. The lead is longer: 1 h",
        ),
        (7200, 7200, "covers live 2 h. Lead and spread are cut to the last third of that"),
        (86_400, 86_400, "covers live 1 d. Lead and spread take 1 h 30 min of it"),
    ],
)
def test_the_lead_against_the_lives_of_covers(short, usual, text):
    """The short lives are told where they differ from the usual ones."""
    policy = DuePolicy(timedelta(hours=1), timedelta(minutes=30), timedelta(hours=6), 3)
    (finding,) = freshness.lead(facts.Lives(9, short, usual, policy))
    assert finding.text == text


@pytest.mark.parametrize(("seconds", "expected"), [(None, WARNING), (601.0, WARNING), (599.0, OK)])
def test_what_keeps_dead_rows(seconds, expected):
    """A slot that nobody uses is told whatever its age."""
    holder = facts.Holder("replication slot a, which nobody uses,", seconds, "drop it")
    (finding,) = storage.snapshots(facts.Snapshots([holder], hidden=0))
    assert finding.outcome is expected


@pytest.mark.parametrize(
    ("findings", "text"),
    [
        (
            fleet.alive(facts.Replicas([facts.Replica("a", "1", 675.0)], 0, "1")),
            "replica a has said nothing for 11 min 15 s",
        ),
        (
            fleet.alive(facts.Replicas([facts.Replica("a", "1", 3.0)], 0, "1")),
            "1 replica, none silent for 30 s",
        ),
        (
            access.credentials(facts.App(True, True, 189.0, None)),
            "TikTok refused the app credentials 3 min 9 s ago",
        ),
        (
            storage.snapshots(facts.Snapshots([facts.Holder("it", 5400.0, "end it")], hidden=0)),
            "it keeps dead rows from being cleared for 1 h 30 min",
        ),
        (
            access.keys(facts.Tokens(True, 1, 0, None, all_seen=True)),
            "the keys open the tokens of the 1 account with any",
        ),
    ],
)
def test_times_and_numbers_are_easy_to_read(findings, text):
    """Seconds by the thousand say nothing, and one is one."""
    assert next(iter(findings)).text == text


def test_an_old_server():
    """Named with its version."""
    session = facts.Session("14.9", 140009, facts.Pooling.NONE, 5.0, jit=False)
    (finding,) = server.version(session)
    assert (finding.outcome, finding.text) == (PROBLEM, "PostgreSQL 14.9 is too old")


def test_hosts_whose_covers_die_early_are_named():
    """With how much earlier they are asked for; the others are not."""
    (finding,) = freshness.hosts(facts.CoverHosts({"a.example": 0.0, "b.example": 3600.0}))
    assert finding.outcome is WARNING
    assert "b.example" in finding.text
    assert "1 h earlier" in finding.text
    (finding,) = freshness.hosts(facts.CoverHosts({"a.example": 0.0}))
    assert finding.outcome is OK


@pytest.mark.parametrize(
    ("listening", "expected"),
    [
        (facts.Listening(2, 3, 0, facts.Pooling.SESSION), OK),
        (facts.Listening(2, 1, 0, facts.Pooling.SESSION), WARNING),
        (facts.Listening(2, 0, 0, facts.Pooling.TRANSACTION), OK),
        (facts.Listening(2, 0, 1, facts.Pooling.NONE), SKIPPED),
        (facts.Listening(0, 0, 0, facts.Pooling.NONE), SKIPPED),
    ],
    ids=["all", "one does not", "they cannot", "hidden", "no replica"],
)
def test_replicas_that_do_not_listen(listening, expected):
    """It is told only where it could be otherwise, and is known."""
    (finding,) = fleet.listening(listening)
    assert finding.outcome is expected


def test_a_fleet_without_videos():
    """Nothing is needed, and no table was updated."""
    policy = DuePolicy(timedelta(hours=1), timedelta(minutes=30), timedelta(hours=6), 3)
    demand = Demand(0, 0, "", 86_400.0, policy, Pace(600, 600, lease_seconds=60), None)
    findings = [
        *freshness.token_quota(demand),
        *storage.hot_updates(facts.Tables([], autovacuum=True)),
    ]
    assert [finding.outcome for finding in findings] == [OK, SKIPPED]


def test_autovacuum_that_is_off_for_the_server():
    """Told once, whatever the tables say."""
    (finding,) = storage.autovacuum(facts.Tables([], autovacuum=False))
    assert finding.outcome is WARNING
