"""What the bytes of the video query and of the token endpoint mean."""

import json
from contextlib import suppress
from dataclasses import replace
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresher.domain.answers import MEANINGS, Affects
from refresher.domain.errors import (
    AccessTokenRefused,
    ClientRefused,
    GrantRefused,
    QueryRefused,
    ScopeRefused,
    Throttled,
    TokenRequestFailed,
    UpstreamError,
    UpstreamFailed,
)
from refresher.domain.model import TokenPair
from refresher.tiktok.query_answer import read_answer
from refresher.tiktok.revoke_answer import read_revocation
from refresher.tiktok.token_answer import read_token_answer
from refresher.tiktok.wire import LOG_ID_HEADER, build_query, build_revocation, build_token_request

NOW = 1_790_000_000.0
LOG_ID = "20260828021607B9B16EDC3EA4D6951B80"
OK = {"code": "ok", "message": "", "log_id": LOG_ID}
COVER = "https://example.com/tos-a/c5e4~tplv:300.image?x-expires=1790000000&x-signature=e%2FM%3D"
LONG_ID = "98765432109876543210"  # does not fit into 64 bits
BODIES = {
    "not-json": b"<html><body>Bad Gateway</body></html>",
    "empty": b"",
    "cut": b'{"data":{"videos":[{"id":"1","cover_image_url":"https://exa',
    "not-utf8": b'{"data":{"videos":[{"id":"\xff"}]},"error":{"code":"ok"}}',
    "null": b"null",
    "deep": b'{"data":{"videos":' + b"[" * 100_000,
    "no-error": b'{"data":{"videos":[]}}',
    "videos-no-list": b'{"data":{"videos":{}},"error":{"code":"ok"}}',
    "code-no-text": b'{"data":{"videos":[]},"error":{"code":0}}',
    "bare-ok": b'{"code":"ok"}',
}


def answered(*videos, error=OK, **data):
    return json.dumps({"data": {"videos": videos, **data}, "error": error}).encode()


def read(body, status=200, headers=None, asked=("1", "7", LONG_ID)):
    return read_answer(status, headers or {}, body, asked, NOW)


def failure(status, body, headers=None):
    with pytest.raises(UpstreamError) as raised:
        read(body, status, headers)
    return raised.value


# --- The request ---


def test_a_query_is_what_the_documentation_says():
    """The fields are in the query string, the token in its header, the IDs as strings in JSON."""
    query = build_query("act.ana", ["7077642457847994444", LONG_ID])
    assert query.path_and_query == "/v2/video/query/?fields=id,cover_image_url"
    assert query.headers == {
        "Authorization": "Bearer act.ana",
        "Content-Type": "application/json",
    }
    assert query.body == b'{"filters":{"video_ids":["7077642457847994444","%s"]}}' % (
        LONG_ID.encode()
    )


def test_a_query_does_not_show_its_token():
    """The repr of a query holds no token."""
    assert "act.ana" not in repr(build_query("act.ana", [LONG_ID]))


# --- Good answers ---


@pytest.mark.parametrize(
    "data",
    [{}, {"cursor": 0, "has_more": False}, {"cursor": 1_643_332_803_000, "has_more": True}],
    ids=["bare", "live", "documented"],
)
def test_covers_are_read_by_id(data):
    """The covers come byte for byte; a cursor means nothing, and other fields are ignored."""
    body = answered({"id": LONG_ID, "cover_image_url": COVER, "title": "Video 1"}, **data)
    assert read(body) == {LONG_ID: COVER}


def test_an_answer_may_leave_out_everything():
    """No videos with code ok is an answer: all that was asked for is missing."""
    assert read(answered(cursor=0, has_more=False)) == {}


@pytest.mark.parametrize(
    ("odd", "covers"),
    [
        ({"id": 7, "cover_image_url": COVER}, {"7": COVER}),
        ({"cover_image_url": COVER}, {}),
        (None, {}),
        ("7", {}),
        ([{"id": "7"}], {}),
        ({"id": "7"}, {"7": None}),
        ({"id": "7", "cover_image_url": None}, {"7": None}),
        ({"id": "7", "cover_image_url": {"uri": COVER}}, {"7": {"uri": COVER}}),
    ],
    ids=["id-number", "no-id", "null", "text", "list", "no-cover", "cover-null", "cover-object"],
)
def test_an_odd_video_costs_only_itself(odd, covers):
    """One video of another shape does not cost the others their covers."""
    good = {"id": "1", "cover_image_url": COVER}
    assert read(answered(good, odd)) == {"1": COVER, **covers}


# --- Failures ---


@pytest.mark.parametrize(
    "shape", ["data-empty", "data-null", "videos", "odd-videos", "no-data", "bare"]
)
@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "access_token_invalid", AccessTokenRefused),
        (200, "access_token_invalid", AccessTokenRefused),
        (400, "access_token_invalid", AccessTokenRefused),
        (401, "a_code_of_next_year", AccessTokenRefused),
        (401, "scope_not_authorized", ScopeRefused),
        (200, "scope_not_authorized", ScopeRefused),
        (400, "scope_permission_missed", ScopeRefused),
        (429, "rate_limit_exceeded", Throttled),
        (200, "rate_limit_exceeded", Throttled),
        (429, "a_code_of_next_year", Throttled),
        (400, "invalid_params", QueryRefused),
        (400, "invalid_param", QueryRefused),
        (400, "invalid_request", QueryRefused),
        (400, "Invalid_Params", QueryRefused),
        (200, "invalid_params", QueryRefused),
        (500, "internal_error", UpstreamFailed),
        (200, "internal_error", UpstreamFailed),
        (400, "a_code_of_next_year", UpstreamFailed),
        (200, "a_code_of_next_year", UpstreamFailed),
    ],
)
def test_status_and_code_together_decide(status, code, kind, shape):
    """Each family of errors is told apart in every shape of body that has been seen."""
    error = {"code": code, "message": "Some text.", "log_id": LOG_ID}
    body = {
        "data-empty": {"data": {}, "error": error},
        "data-null": {"data": None, "error": error},
        "videos": {"data": {"videos": []}, "error": error},
        "odd-videos": {"data": {"videos": [None]}, "error": error},
        "no-data": {"error": error},
        "bare": error,
    }[shape]
    failed = failure(status, json.dumps(body).encode())
    assert type(failed) is kind
    assert (failed.code, failed.status, failed.log_id) == (code, status, LOG_ID)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_good_status_with_a_body_that_is_no_answer(body):
    """200 alone is no success; the log ID is in the header then."""
    failed = failure(200, body, {LOG_ID_HEADER: LOG_ID})
    assert type(failed) is UpstreamFailed
    assert (failed.code, failed.status, failed.log_id) == ("malformed_answer", 200, LOG_ID)


@pytest.mark.parametrize("body", [BODIES["not-json"], b"", b'{"error":"flat"}'])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, UpstreamFailed),
        (400, UpstreamFailed),
        (401, UpstreamFailed),
        (403, UpstreamFailed),
        (429, Throttled),
        (502, UpstreamFailed),
    ],
)
def test_a_status_is_enough_where_the_body_says_nothing(status, kind, body):
    """A gateway's page or an empty body is judged by its status; a gateway's 401 parks nobody."""
    failed = failure(status, body, {LOG_ID_HEADER: LOG_ID})
    assert type(failed) is kind
    assert (failed.code, failed.status, failed.log_id) == ("no_error_object", status, LOG_ID)


@pytest.mark.parametrize("code", ["ok", ""])
def test_a_bad_status_without_a_code_of_its_own(code):
    """The log must not say that a failure was ok, or nothing."""
    body = json.dumps({"error": {"code": code, "log_id": LOG_ID}}).encode()
    failed = failure(503, body)
    assert (type(failed), failed.code, failed.log_id) == (UpstreamFailed, "no_error_object", LOG_ID)


@pytest.mark.parametrize("log_id", [None, 7, ["x"]])
def test_a_log_id_of_another_type_costs_nothing(log_id):
    """It is for the support: the covers are read, and the error keeps its code."""
    error = {"code": "ok", "message": None, "log_id": log_id}
    good = {"data": {"videos": [{"id": "1", "cover_image_url": COVER}]}, "error": error}
    assert read(json.dumps(good).encode()) == {"1": COVER}
    bad = json.dumps({"error": {**error, "code": "access_token_invalid"}}).encode()
    assert type(failure(401, bad)) is AccessTokenRefused


def test_the_log_id_of_the_body_comes_first():
    """The header only helps where the body has no log ID; without either it is empty."""
    body = json.dumps({"error": {"code": "internal_error", "log_id": LOG_ID}}).encode()
    assert failure(500, body, {LOG_ID_HEADER: "another"}).log_id == LOG_ID
    assert failure(500, b"").log_id == ""


DATE = "Mon, 21 Sep 2026 14:13:20 GMT"  # NOW
LATER = "Mon, 21 Sep 2026 14:15:20 GMT"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 30 ", 30.0),
        ("0", 0.0),
        ("2.5", 2.5),
        ("99999", 99_999.0),
        ("100000", None),
        ("-1", None),
        ("1.", None),
        ("1e3", None),
        ("²", None),
        ("٣", None),
        ("", None),
        ("soon", None),
        ("2026-09-21T14:15:20Z", None),
        (LATER, 120.0),
        ("Monday, 21-Sep-26 14:15:20 GMT", 120.0),
        ("Mon Sep 21 14:15:20 2026", 120.0),
        ("Mon, 21 Sep 2026 16:15:20 +0200", 120.0),
        ("Mon, 21 Sep 2026 14:00:00 GMT", 0.0),
        ("Tue, 21 Sep 2027 14:15:20 GMT", None),
        ("Mon, 99 Sep 2026 14:15:20 GMT", None),
        ("Mon, 21 Sep 999999999999 14:15:20 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    """A wish that can be meant is taken, anything else is as good as none."""
    throttled = failure(429, b"", {} if value is None else {"Retry-After": value})
    assert isinstance(throttled, Throttled)
    assert throttled.retry_after_seconds == seconds


@pytest.mark.parametrize("date", [DATE, "Monday, 21-Sep-26 14:13:20 GMT"])
def test_a_date_counts_from_the_replys_own(date):
    """Our wall clock may be wrong: it is asked only where the reply says nothing that can be read."""
    headers = {"Retry-After": LATER, "Date": date}
    for now in (0.0, NOW, NOW + 86_400 * 365):
        with pytest.raises(Throttled) as raised:
            read_answer(429, headers, b"", ["1"], now)
        assert raised.value.retry_after_seconds == 120.0
    with pytest.raises(Throttled) as raised:
        read_answer(429, headers | {"Date": "yesterday"}, b"", ["1"], NOW + 20)
    assert raised.value.retry_after_seconds == 100.0


def test_only_credentials_and_throttles_stop_the_whole_account():
    """The account's other chunks are spared what they would meet as well, and nothing else."""
    kinds: list[type[UpstreamError]] = [
        AccessTokenRefused,
        ScopeRefused,
        Throttled,
        QueryRefused,
        UpstreamFailed,
    ]
    affected = [MEANINGS[kind].affects for kind in kinds]
    assert [affects is Affects.ACCOUNT for affects in affected] == [True, True, True, False, False]


# --- The token endpoint ---

GRANT = {
    "access_token": "act.new!4523.va",
    "expires_in": 7200,
    "open_id": "ana",
    "refresh_expires_in": 31_536_000,
    "refresh_token": "rft.new!4523.va",
    "scope": "user.info.basic,video.list",
    "token_type": "Bearer",
}
PAIR = TokenPair(
    "act.new!4523.va", 7200.0, "rft.new!4523.va", 31_536_000.0, "user.info.basic,video.list", "ana"
)


def granted(status=200, headers=None, **changes):
    """The pair for Ana; None takes a field away."""
    fields = {name: value for name, value in {**GRANT, **changes}.items() if value is not None}
    return read_token_answer(status, headers or {}, json.dumps(fields).encode(), NOW)


def token_failure(status, body, headers=None):
    with pytest.raises(UpstreamError) as raised:
        read_token_answer(status, headers or {}, body, NOW)
    return raised.value


def test_a_token_request_is_a_form():
    """As documented; what needs escaping is escaped, and the repr shows nothing of it."""
    request = build_token_request("key&1", "secret=ü", "rft.old!4523.va+x")
    assert request.path_and_query == "/v2/oauth/token/"
    assert request.headers == {"Content-Type": "application/x-www-form-urlencoded"}
    assert parse_qs(request.body.decode(), strict_parsing=True) == {
        "client_key": ["key&1"],
        "client_secret": ["secret=ü"],
        "grant_type": ["refresh_token"],
        "refresh_token": ["rft.old!4523.va+x"],
    }
    assert "rft." not in repr(request)
    assert "secret" not in repr(request)


@pytest.mark.parametrize("status", [200, 201, 400])
def test_a_new_pair_is_read(status):
    """The body says what it is; no repr shows a token."""
    pair = granted(status, token_type=7, another="field")
    assert pair == PAIR
    assert "new!" not in repr(pair)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"expires_in": "7200", "refresh_expires_in": "31536000"}, {}),
        ({"refresh_token": None}, {"refresh_token": None}),
        ({"refresh_token": ""}, {"refresh_token": None}),
        ({"refresh_expires_in": None}, {"refresh_token_lives_seconds": None}),
        ({"refresh_expires_in": 0}, {"refresh_token_lives_seconds": None}),
        ({"refresh_expires_in": "soon"}, {"refresh_token_lives_seconds": None}),
        ({"scope": None}, {"scope": None}),
        ({"open_id": None}, {"open_id": None}),
        ({"open_id": 7}, {"open_id": None}),
        ({"open_id": "ben"}, {"open_id": "ben"}),
        ({"refresh_token": 7}, {"refresh_token": None}),
        ({"error": "", "log_id": LOG_ID}, {}),
        ({"expires_in": 0.5}, {"access_token_lives_seconds": 0.5}),
    ],
)
def test_what_a_pair_leaves_open_is_none(changes, expected):
    """Then what is stored stays; numbers may be text, and an empty error is none."""
    assert granted(**changes) == replace(PAIR, **expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"access_token": None},
        {"access_token": ""},
        {"access_token": "two lines\n"},
        {"access_token": 7},
    ],
    ids=["none", "empty", "lines", "number"],
)
def test_an_answer_without_a_usable_pair_leaves_the_outcome_open(changes):
    """The old refresh token may be used up: it is no definite refusal."""
    with pytest.raises(UpstreamFailed) as raised:
        granted(**changes)
    assert type(raised.value) is UpstreamFailed


@pytest.mark.parametrize("status", [200, 400, 401, 500])
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("invalid_grant", GrantRefused),
        ("access_denied", GrantRefused),
        ("invalid_scope", ScopeRefused),
        ("invalid_client", ClientRefused),
        ("unauthorized_client", ClientRefused),
        ("invalid_request", TokenRequestFailed),
        ("unsupported_grant_type", TokenRequestFailed),
        ("server_error", TokenRequestFailed),
        ("temporarily_unavailable", TokenRequestFailed),
        ("a_code_nobody_has_seen", TokenRequestFailed),
    ],
)
def test_token_errors_are_known_by_the_body(status, code, kind):
    """Whatever the HTTP status; also beside half a pair; code, status and log_id go on."""
    for body in ({}, GRANT | {"refresh_token": ""}, GRANT | {"access_token": ""}):
        error = {**body, "error": code, "error_description": "x", "log_id": LOG_ID}
        failed = token_failure(status, json.dumps(error).encode(), {LOG_ID_HEADER: "another"})
        assert type(failed) is kind
        assert (failed.code, failed.status, failed.log_id) == (code, status, LOG_ID)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("status", [200, 502])
def test_a_token_answer_that_is_none_leaves_the_outcome_open(status, body):
    """A gateway's page, half a body, an answer of another endpoint: tried again."""
    failed = token_failure(status, body, {LOG_ID_HEADER: LOG_ID})
    assert type(failed) is UpstreamFailed
    assert failed.log_id == LOG_ID


def test_the_token_endpoint_may_throttle():
    """With a page or with the error object of the other endpoints."""
    for body in (b"", b'{"error":{"code":"rate_limit_exceeded","log_id":"x"}}'):
        failed = token_failure(429, body, {"Retry-After": "7"})
        assert isinstance(failed, Throttled)
        assert failed.retry_after_seconds == 7.0


# --- Anything at all ---

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def near(**fields):
    """An object with these fields, each of them possibly left out or replaced by anything."""
    return anything | st.fixed_dictionaries(
        {}, optional={name: value | anything for name, value in fields.items()}
    )


videos = st.lists(near(id=st.just(LONG_ID), cover_image_url=st.just(COVER)), max_size=3)
codes = st.sampled_from(["ok", "access_token_invalid", "rate_limit_exceeded", "internal_error"])
errors = near(code=codes, message=st.just(""), log_id=st.just(LOG_ID))
near_answers = near(data=near(videos=videos), error=errors).map(lambda it: json.dumps(it).encode())
statuses = st.sampled_from([200, 204, 302, 400, 401, 403, 429, 500, 502])


@given(status=statuses, body=st.binary() | near_answers, cut=st.none() | st.integers(0, 50))
def test_any_body_is_an_answer_or_an_upstream_error(status, body, cut):
    """Whatever comes back, whole or cut, nothing but `UpstreamError` is raised."""
    with suppress(UpstreamError):
        covers = read(body[:cut], status)
        assert status // 100 == 2
        assert all(isinstance(video_id, str) for video_id in covers)


near_grants = near(
    **{name: st.just(value) for name, value in GRANT.items()},
    error=st.sampled_from(["", "invalid_grant", "server_error"]),
    log_id=st.just(LOG_ID),
).map(lambda it: json.dumps(it).encode())


@given(status=statuses, body=st.binary() | near_grants, cut=st.none() | st.integers(0, 50))
def test_any_body_is_a_pair_or_an_upstream_error(status, body, cut):
    """A pair can be sent and stored; nothing but `UpstreamError` is raised for all else."""
    with suppress(UpstreamError):
        pair = read_token_answer(status, {}, body[:cut], NOW)
        assert pair.access_token.isascii()
        assert pair.access_token.isprintable()
        assert 0 < pair.access_token_lives_seconds < 1e10
        assert pair.refresh_token != ""


# --- The revoke endpoint ---


def test_a_revocation_is_sent_as_a_form():
    """The credentials and the token, in no URL and no repr."""
    request = build_revocation("key", "s&cret", "act.ana!4523.va")
    assert request.path_and_query == "/v2/oauth/revoke/"
    assert request.headers == {"Content-Type": "application/x-www-form-urlencoded"}
    assert parse_qs(request.body.decode()) == {
        "client_key": ["key"],
        "client_secret": ["s&cret"],
        "token": ["act.ana!4523.va"],
    }
    assert "act." not in repr(request)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""),
        (204, b""),
        (200, b" \n"),
        (200, b"{}"),
        (200, b'{"error":{"code":"ok","message":"","log_id":"1"}}'),
        (200, b'{"data":{},"error":{"code":"ok","message":"","log_id":"1"}}'),
    ],
)
def test_an_empty_answer_is_a_revocation(status, body):
    """The page says empty and shows an empty object; the envelope of other endpoints will do."""
    read_revocation(status, {}, body, NOW)


@pytest.mark.parametrize(
    ("status", "body", "error", "code"),
    [
        (200, b'{"error":"invalid_grant"}', AccessTokenRefused, "invalid_grant"),
        (400, b'{"error":"invalid_client"}', ClientRefused, "invalid_client"),
        (400, b'{"error":"invalid_request"}', TokenRequestFailed, "invalid_request"),
        (200, b'{"error":"server_error"}', TokenRequestFailed, "server_error"),
        (
            401,
            b'{"error":{"code":"access_token_invalid"}}',
            AccessTokenRefused,
            "access_token_invalid",
        ),
        (429, b'{"error":{"code":"rate_limit_exceeded"}}', Throttled, "rate_limit_exceeded"),
        (429, b"", Throttled, "no_error_object"),
        (500, b"", UpstreamFailed, "no_error_object"),
        (502, b"<html>Bad Gateway</html>", UpstreamFailed, "no_error_object"),
        (200, b"<html>Log in</html>", UpstreamFailed, "malformed_answer"),
        (200, b"{", UpstreamFailed, "malformed_answer"),
        (200, b"null", UpstreamFailed, "malformed_answer"),
        (
            200,
            b'{"message":"error","data":{"error_code":10002}}',
            UpstreamFailed,
            "malformed_answer",
        ),
        (302, b"", UpstreamFailed, "no_error_object"),
    ],
)
def test_anything_else_is_no_revocation(status, body, error, code):
    """The error says whether the token was dead before, the app is refused, or nobody knows."""
    with pytest.raises(UpstreamError) as raised:
        read_revocation(status, {LOG_ID_HEADER: LOG_ID}, body, NOW)
    assert (type(raised.value), raised.value.code) == (error, code)
    assert raised.value.log_id == LOG_ID


@given(st.binary(max_size=60), st.integers(100, 599))
def test_no_answer_to_a_revocation_breaks_the_reader(body, status):
    """Whatever comes is a revocation or one of the errors."""
    with suppress(UpstreamError):
        read_revocation(status, {}, body, NOW)
