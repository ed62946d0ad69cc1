"""Each jq line of docs/questions.md gives the right answer on the log of a run with faults."""

import json
import re
import shlex
import shutil
import subprocess
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import jq
import pytest

from refresher.emulator.options import EmulatorOptions
from refresher.emulator.server import Emulator
from refresher.events import EVENTS, FIELDS
from refresher.postgres.database import connected
from refresher.postgres.migrate import migrate
from tests.conftest import World, check_output
from tests.faults import own_server
from tests.on_call import Run

PAGE = (Path(__file__).parents[1] / "docs" / "questions.md").read_text()
QUESTION = re.compile(
    r"^### (\d+)\. (.+?\?)\n.*?^```sh\n(.+?)\n```\n\n```logql\n(.+?)\n```$",
    re.MULTILINE | re.DOTALL,
)
QUESTIONS = {int(number): found for number, *found in QUESTION.findall(PAGE)}
SUMMARY = "freshness.summarized"
#: What a line of Loki may name besides fields of events.
ALWAYS = {"timestamp", "level", "event", "replica", "app"}


def test_there_are_twenty_questions_with_a_line_of_each_kind():
    """One line for jq and one for Loki."""
    assert list(QUESTIONS) == list(range(1, 21))
    for _, shell, logql in QUESTIONS.values():
        assert "\n" not in shell + logql
        assert shlex.split(shell)[0] == "jq"
        assert shell.endswith(" refresher.log")


@pytest.mark.parametrize("number", QUESTIONS)
def test_a_line_for_loki_names_events_and_fields_that_exist(number):
    """It begins with the stream, its brackets are closed, and its labels are fields."""
    line = QUESTIONS[number][2]
    assert '{app="refresher"} |' in line
    outside = re.sub(r'"[^"]*"', '""', line)
    assert all(outside.count(a) == outside.count(b) for a, b in ("()", "[]", "{}"))
    by = [name for names in re.findall(r"by \((.*?)\)", line) for name in names.split(", ")]
    named = re.findall(r"(\w+)(?:=~|!~|!?=|>)", outside) + re.findall(r"unwrap (\w+)", line)
    assert {*named, *by, *re.findall(r"\{\{\.(\w+)\}\}", line)} <= FIELDS.keys() | ALWAYS
    for pattern in re.findall(r'event=~?"(.*?)"', line):
        assert any(re.fullmatch(pattern, name) for name in EVENTS), pattern


def asked(log, number, **arguments):
    """What the line of this question prints, with these arguments in place of those of the page."""
    program, given = "", {}
    words = shlex.split(QUESTIONS[number][1])
    for place, word in enumerate(words):
        if word in {"--arg", "--argjson"}:
            name, value = words[place + 1 : place + 3]
            value = arguments.get(name, value)
            given[name] = value if word == "--arg" else json.loads(value)
            words[place + 2] = str(value)
        elif "inputs" in word:
            program = word
    lines = log.read_text().splitlines()
    answers = jq.compile(f"def inputs: .[]; {program}", args=given).input_value(lines).all()
    if shutil.which("jq"):
        done = subprocess.run(
            words, cwd=log.parent, check=True, capture_output=True, text=True, timeout=60
        )
        assert jq.compile(".").input_text(done.stdout).all() == answers
    return answers


def test_the_most_that_an_account_lost_is_told(tmp_path):
    """A later answer of some of its missing videos hides none of them."""
    log = tmp_path / "refresher.log"
    told = [
        {"event": "account.refreshed", "open_id": "ana", "timestamp": str(at), "missing": missing}
        for at, missing in enumerate([1, 3, 2, 0])
    ]
    log.write_text("\n".join(map(json.dumps, told)))
    assert asked(log, 4) == [{"open_id": "ana", "timestamp": "1", "missing": 3}]


@asynccontextmanager
async def world(server):
    options = EmulatorOptions(client_key="key-of-the-app", client_secret="secret-of-the-app")
    emulator = Emulator(options)
    await migrate(server.url)
    async with (
        emulator.serving() as base_url,
        connected(server.url, application_name="tests") as pool,
    ):
        yield World(emulator, base_url, pool)


@pytest.fixture
async def run(tmp_path):
    with own_server() as server:
        async with world(server) as all_there_is:
            run = Run(all_there_is, server, tmp_path)
            try:
                await run.take_place()
                yield run
            finally:
                await run.end()
    for replica in run.replicas:
        check_output(replica.output.read_text())


def of(lines, *names):
    return [line for line in lines if line["event"] in names]


def moment(text):
    return datetime.fromisoformat(text)


def dead_covers(run, lines, ask):
    (answer,) = ask(1)
    since = next(line for line in of(lines, SUMMARY) if line["expired"])
    assert answer == {"expired": 20, "since": since["timestamp"]}


def a_dead_cover(run, lines, ask):
    parked = [line["event"] for line in ask(2, account="parked")]
    assert parked == ["chunk.failed", "account.parked"]
    assert ask(2, account="parked")[-1]["why"] == "access_token_invalid"
    assert 3 in [line["why"] for line in ask(2, account="deleting")]
    assert {line["event"] for line in ask(2, account="ill")} >= {"chunk.failed", "account.isolated"}


def backlog(run, lines, ask):
    first, last = ask(3)
    assert (first["due"], last["due"]) == tuple(of(lines, SUMMARY)[at]["due"] for at in (0, -1))
    assert last["due"] > 200
    assert last["oldest_overdue_seconds"] > first["oldest_overdue_seconds"]


def missing_videos(run, lines, ask):
    assert [(line["open_id"], line["missing"]) for line in ask(4)] == [("deleting", 3)]


def to_authorize(run, lines, ask):
    (answer,) = ask(5)
    assert answer.keys() == {"parked", "scopeless"}
    assert answer["scopeless"]["state"] == "needs_scope"
    assert answer["parked"]["reason"] == "access_token_invalid"
    (parked,) = [line for line in of(lines, "account.parked") if line["open_id"] == "parked"]
    assert answer["parked"]["since"] == parked["timestamp"]
    assert answer["parked"]["log_id"] == parked["log_id"] != ""


def ending_consents(run, lines, ask):
    (answer,) = ask(6)
    assert (answer["open_id"], answer["within_days"]) == ("consenting", 3)
    assert timedelta(days=1) < moment(answer["ends_at"]) - moment(lines[0]["timestamp"])


def tokens_not_renewed(run, lines, ask):
    (answer,) = ask(7)
    told = of(lines, "token.failed")[-1]
    shown = ("timestamp", "code", "http_status", "retry_in_seconds", "log_id")
    assert answer == {"unrenewable": {name: told[name] for name in shown}}


def isolated_accounts(run, lines, ask):
    (answer,) = ask(8)
    (told,) = of(lines, "account.isolated")
    shown = ("code", "http_status", "log_id")
    values = {"since": told["timestamp"], **{name: told[name] for name in shown}}
    assert answer == {"ill": values}
    assert answer["ill"]["log_id"] == "log-of-ill"


def throttled_last_night(run, lines, ask):
    since, until = run.night
    answers = {line["open_id"]: line for line in ask(9, **{"from": since, "to": until})}
    assert answers.keys() == {"busy", "spent"}
    assert answers["spent"]["times"] == 1
    for open_id, answer in answers.items():
        told = [e for e in of(lines, "account.throttled") if e["open_id"] == open_id]
        told = [e for e in told if since <= e["timestamp"] < until]
        assert answer["longest"] == max(line["pause_seconds"] for line in told) > 0
    assert ask(9, **{"from": "2020-01-01", "to": since}) == []


def spent_days(run, lines, ask):
    (answer,) = ask(10)
    (told,) = [line for line in of(lines, "account.throttled") if line["quota"] == "day"]
    assert (answer["open_id"], answer["code"]) == ("spent", "daily_quota_limit_exceeded")
    until = moment(told["timestamp"]) + timedelta(seconds=told["pause_seconds"])
    assert abs(moment(answer["until"]) - until) < timedelta(seconds=2)


def limit_of_the_app(run, lines, ask):
    (answer,) = ask(11)
    told = of(lines, "app.throttled")[-1]
    assert answer == {name: told[name] for name in answer}
    assert answer["rate_per_minute"] > 0


def quota_left(run, lines, ask):
    (answer,) = ask(12)
    last = of(lines, SUMMARY)[-1]
    assert answer["left"] == 600 * 60 - last["hour_busiest"]
    assert answer["hour_requests"] == last["hour_requests"] > last["hour_busiest"] > 0


def tiktok_away(run, lines, ask):
    (answer,) = ask(13)
    assert (answer["event"], answer["replica"]) == ("upstream.lost", run.name(2))


def failing_requests(run, lines, ask):
    answers = {(line["code"], line["http_status"]): line for line in ask(14)}
    ill = answers["internal_error", 500]
    assert (ill["accounts"], ill["log_id"]) == (1, "log-of-ill")
    failed = of(lines, "chunk.failed", "token.failed")
    assert sum(line["times"] for line in answers.values()) == len(failed)
    throttled = {line["open_id"] for line in failed if line["code"] == "rate_limit_exceeded"}
    assert answers["rate_limit_exceeded", 429]["accounts"] == len(throttled) > 1


def running_replicas(run, lines, ask):
    killed, last = ask(15)
    assert {killed["replica"], last["replica"]} == {run.name(0), run.name(2)}
    for answer, number in ((killed, 0), (last, 2)):
        if answer["replica"] != run.name(number):
            continue
        own = run.replicas[number].lines()
        (started,) = of(own, "daemon.started")
        assert (answer["since"], answer["version"]) == (started["timestamp"], started["version"])
        assert answer["last_line"] == own[-1]["timestamp"]


def no_progress(run, lines, ask):
    (answer,) = ask(16)
    assert (answer["replica"], answer["due"] > 200) == (run.name(2), True)


def dead_replicas(run, lines, ask):
    (answer,) = ask(17, seconds="1")
    assert (answer["replica"], answer["silent"], answer["failed"]) == (run.name(0), True, False)
    assert ask(17, seconds="3600") == []


def what_changed(run, lines, ask):
    since, until = run.change
    answers = {line["event"]: line["times"] for line in ask(18, **{"from": since, "to": until})}
    assert answers["database.lost"] == answers["database.recovered"] == 1
    assert not answers.keys() & {"account.refreshed", SUMMARY, "daemon.started"}


def database_away(run, lines, ask):
    lost, recovered = ask(19)
    assert (lost["event"], recovered["event"]) == ("database.lost", "database.recovered")
    assert lost["reason"]
    assert recovered["away_seconds"] > 0
    assert lost["replica"] == recovered["replica"] == run.name(0)


def in_the_way(run, lines, ask):
    answers = {line["open_id"]: line for line in ask(20)}
    assert answers.keys() == {"locked", "refused"}
    assert answers["locked"]["holder"] == "nightly report"
    assert answers["refused"]["reason"] == "refused is under audit"


CHECKS = [
    dead_covers,
    a_dead_cover,
    backlog,
    missing_videos,
    to_authorize,
    ending_consents,
    tokens_not_renewed,
    isolated_accounts,
    throttled_last_night,
    spent_days,
    limit_of_the_app,
    quota_left,
    tiktok_away,
    failing_requests,
    running_replicas,
    no_progress,
    dead_replicas,
    what_changed,
    database_away,
    in_the_way,
]


@pytest.mark.long
async def test_the_answers_are_right(run):
    """Each of the twenty, about a run in which all of it happened."""
    log, lines = run.write(), run.lines()
    assert len(CHECKS) == len(QUESTIONS)
    for check in CHECKS:
        check(run, lines, partial(asked, log))
