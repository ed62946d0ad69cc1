"""What is logged, how, and what never is."""

import json
import logging
import sys
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresher.events import EVENTS, LIBRARY_WARNED, Event
from refresher.logs import configure, emit, notable, redact, redacted_text

SECRET = "hush-hush"
LIBRARY = logging.getLogger("some.library")
HAPPENED = Event("test.happened", "info", ("fields",))


@pytest.fixture
def logged(capfd):
    """Do something with logging set up as JSON; the lines it logged."""

    def lines(do, *args, level="info", **kwargs):
        configure(log_format="json", level=level)
        do(*args, **kwargs)
        return [json.loads(line) for line in capfd.readouterr().out.splitlines()]

    return lines


def without_time(line):
    return {name: value for name, value in line.items() if name != "timestamp"}


# --- The lines ---


def test_a_line_is_one_json_object(logged):
    """Timestamp in UTC and ISO 8601, level, event and the fields, whatever they hold."""
    fields = {"open_id": "a\nb", "count": 3, "share": 0.5, "none": None, "states": {"a": [1]}}
    (line,) = logged(emit, HAPPENED, **fields)
    time = datetime.fromisoformat(line["timestamp"])
    assert time.utcoffset() == timedelta(0)
    assert without_time(line) == {"level": "info", "event": "test.happened", **fields}


def test_each_line_names_the_replica(capfd):
    """Also those of libraries; a terminal shows one replica only."""
    configure(log_format="json", level="info", replica="host-1-ab")
    emit(HAPPENED)
    LIBRARY.warning("trouble")
    lines = capfd.readouterr().out.splitlines()
    assert [json.loads(line)["replica"] for line in lines] == ["host-1-ab"] * 2
    configure(log_format="console", level="info", replica="host-1-ab")
    emit(HAPPENED)
    assert "host-1-ab" not in capfd.readouterr().out


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_an_event_has_its_own_level(logged, event):
    """Who emits an event does not choose its level."""
    (line,) = logged(emit, event)
    assert without_time(line) == {"level": event.level, "event": event.name}


def test_lines_below_the_level_are_left_out(logged):
    """At warning, an info event is not logged."""
    assert logged(emit, HAPPENED, level="warning") == []
    assert len(logged(emit, LIBRARY_WARNED, level="warning")) == 1


def test_bytes_of_no_encoding_do_not_break_a_line(logged):
    """A header of a broken server comes with lone surrogates: the event is logged all the same."""
    (line,) = logged(emit, HAPPENED, log_id="2026\udcff")
    assert line["event"] == "test.happened"


def test_other_values_are_logged_as_text(logged):
    """A value that JSON does not know is shown as its text, without the secrets in it."""
    (line,) = logged(emit, HAPPENED, error=ValueError(f"password={SECRET}"), tokens={"act.hush"})
    assert (line["error"], line["tokens"]) == ("password=[redacted]", "{'[redacted]'}")


# --- The standard library's logging ---


def test_a_library_speaks_through_our_log(logged):
    """A library's warning becomes an event with its logger's name; its chatter does not."""
    assert logged(LIBRARY.info, "chatter") == []
    (line,) = logged(LIBRARY.warning, "token %s is late", "act.hush")
    assert without_time(line) == {
        "level": "warning",
        "event": "library.warned",
        "logger": "some.library",
        "message": "token [redacted] is late",
    }


def test_a_librarys_exception_is_logged_with_its_traceback(logged):
    """Where and why, in the same line."""
    with pytest.raises(ZeroDivisionError) as raised:
        divmod(1, 0)
    (line,) = logged(LIBRARY.error, "it failed", exc_info=raised.value)
    assert line["message"] == "it failed"
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert "ZeroDivisionError: " in line["exception"]


def test_a_librarys_broken_message_is_no_fault_of_its_caller(logged):
    """A record that cannot be formatted must not raise where the library logged it."""
    assert len(logged(LIBRARY.warning, "%d", "no number")) == 1


# --- The last warnings and errors ---


def test_the_last_of_each_warning_and_error_is_kept(logged):
    """However many others came since then; without secrets, and no event of another level."""
    before = {one.entry["event"]: one.count for one in notable()}
    rare, frequent, info = EVENTS["token.lost"], EVENTS["account.throttled"], HAPPENED

    def happen():
        emit(rare, open_id="ana", password=SECRET)
        for n in range(200):
            emit(frequent, open_id=f"account-{n}")
        emit(info)

    logged(happen)
    kept = {one.entry["event"]: one for one in notable()}
    assert kept[rare.name].count == before.get(rare.name, 0) + 1
    assert kept[rare.name].entry["password"] == "[redacted]"
    assert kept[frequent.name].count == before.get(frequent.name, 0) + 200
    assert kept[frequent.name].entry["open_id"] == "account-199"
    assert info.name not in kept
    assert next(iter(kept)) == frequent.name


# --- Console or JSON ---


@pytest.mark.parametrize(
    ("log_format", "terminal", "is_json"),
    [
        ("json", False, True),
        ("json", True, True),
        ("console", False, False),
        ("auto", False, True),
        ("auto", True, False),
    ],
)
def test_auto_means_console_on_a_terminal(monkeypatch, capfd, log_format, terminal, is_json):
    """The format is the one asked for; auto looks at where the output goes."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    configure(log_format=log_format, level="info")
    emit(HAPPENED, password=SECRET)
    output = capfd.readouterr().out
    assert "test.happened" in output
    assert SECRET not in output
    assert output.startswith("{") == is_json


def test_the_console_shows_a_traceback_without_secrets(capfd):
    """On a terminal a traceback is as safe as in JSON."""
    configure(log_format="console", level="info")
    emit(HAPPENED, exc_info=ValueError(f"password={SECRET}"))
    output = capfd.readouterr().out
    assert "ValueError: password=[redacted]" in output


# --- Nothing secret ---


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("token act.aB1!4523.va was refused", "token [redacted] was refused"),
        ("(rft.aB1*x, act.c2)", "([redacted], [redacted])"),
        ("Bearer hush-hush", "Bearer [redacted]"),
        ('{"access_token": "hush-hush", "n": 1}', '{"access_token": "[redacted]", "n": 1}'),
        ("{'client_secret': 'hush-hush'}", "{'client_secret': '[redacted]'}"),
        ("client_key=hush-hush&n=1", "client_key=[redacted]&n=1"),
        ("PASSWORD = hush-hush", "PASSWORD = [redacted]"),
        ("dsn?password=hush-hush&n=1", "dsn?password=[redacted]&n=1"),
        ("postgresql://me:hush-hush@db:5432/d", "postgresql://me:[redacted]@db:5432/d"),
        ("redis://:hush-hush@db", "redis://:[redacted]@db"),
        (
            "https://a/b~c:d.jpeg?x-expires=1&x-signature=hush%2Fhush%3D&s=1",
            "https://a/b~c:d.jpeg?x-expires=1&x-signature=[redacted]&s=1",
        ),
        (
            "duplicate key\nDETAIL:  Key (token)=(hush-hush) exists.\nHINT: none",
            "duplicate key\nDETAIL:[redacted]\nHINT: none",
        ),
        ("CONTEXT:  COPY videos, line 1: hush-hush", "CONTEXT:[redacted]"),
    ],
    ids=[
        "access-token",
        "both-tokens",
        "bearer",
        "json",
        "repr",
        "form",
        "capitals",
        "query",
        "dsn",
        "dsn-without-user",
        "signature",
        "detail",
        "context",
    ],
)
def test_secrets_in_a_text_are_redacted(text, shown):
    """By shape, by name or by place, and only the secret itself."""
    assert redacted_text(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer hush-hush",
        "{'Authorization': 'Bearer hush-hush'}",
        "Authorization: Basic hush-hush",
        "REFRESHER_TIKTOK_CLIENT_SECRET=hush-hush",
        "REFRESHER_TOKEN_KEYS=first-key=,hush-hush=",
        "PGPASSWORD=hush-hush",
        "postgresql://me:pass@hush-hush@db/d",
        "password='very, hush-hush'",
        '{\\"client_secret\\": \\"hush-hush\\"}',
        "DETAIL:  Failing row contains (1, two\nlines, hush-hush).",
    ],
    ids=[
        "header",
        "headers",
        "basic",
        "our-variable",
        "several-keys",
        "postgresql-variable",
        "at-sign",
        "quoted",
        "json-in-json",
        "detail-of-two-lines",
    ],
)
def test_no_part_of_a_secret_is_left(text):
    """However it is written down, nothing of it comes through."""
    assert SECRET not in redacted_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "the contract.act of the play; an act. Then rest",
        "https://example.com:8080/a@b?x-expires=1&s=a%2Fb",
        "postgresql://me@db:5432/d",
        "7400000000000000001",
        "expected 2 columns, not 3",
        "token refused: HTTP 401",
        "a secret, a password and a signature",
    ],
)
def test_plain_text_is_left_alone(text):
    """What is no secret is logged as it is."""
    assert redacted_text(text) == text


@given(before=st.text(), after=st.text())
def test_a_token_is_redacted_wherever_it_stands(before, after):
    """No text around a token hides it."""
    assert SECRET not in redacted_text(f"{before} act.{SECRET} {after} rft.{SECRET}")


@pytest.mark.parametrize(
    "name", ["access_token", "refresh_token", "client_secret", "token_keys", "Authorization"]
)
def test_a_secret_field_is_redacted_wherever_it_is(name):
    """By its name, at any depth, whatever its value."""
    entry = {name: SECRET, "a": {name: [SECRET]}, "b": [{name: {"c": SECRET}}], "open_id": "ana"}
    assert redact(None, "info", entry) == {
        name: "[redacted]",
        "a": {name: "[redacted]"},
        "b": [{name: "[redacted]"}],
        "open_id": "ana",
    }


def test_secrets_at_any_depth_of_a_field_are_redacted():
    """Texts in lists and objects are no safer place than a text by itself."""
    entry = {"a": ["act.hush", {"b": ("rft.hush", 1, None, True)}]}
    assert redact(None, "info", entry) == {
        "a": ["[redacted]", {"b": ["[redacted]", 1, None, True]}]
    }


def test_a_traceback_shows_no_secret(logged):
    """Neither the exception nor the one it came from gives a token away."""
    error = ValueError(f"postgresql://me:{SECRET}@db")
    error.__cause__ = KeyError("act.hush")
    (line,) = logged(emit, HAPPENED, exc_info=error)
    assert "KeyError: '[redacted]'" in line["exception"]
    assert line["exception"].endswith("ValueError: postgresql://me:[redacted]@db")
