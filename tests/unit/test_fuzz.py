"""Anything at all: bytes of no shape, answers of nearly the right one, secrets in any place."""

import json
import re
import traceback
from datetime import UTC, datetime
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refresher.domain.errors import CoverUnusable, DailyQuotaSpent, Throttled, UpstreamError
from refresher.domain.expiry import read_cover
from refresher.domain.model import TokenPair, usable_token
from refresher.logs import LONG_NAMES, SHORT_NAMES, redact, redacted_text
from refresher.tiktok.query_answer import read_answer
from refresher.tiktok.token_answer import LONGEST_LIFE_SECONDS, read_token_answer
from refresher.tiktok.wire import LOG_ID_HEADER, build_query

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
COVER = "https://example.com/tos-a/c5e4~tplv:300.image?x-expires=1790000000&x-signature=e%2FM%3D"
LOG_ID = "20260828021607B9B16EDC3EA4D6951B80"
ANSWER = {
    "data": {
        "videos": [
            {"id": "7400000000000000001", "cover_image_url": COVER, "title": "Video 1"},
            {"id": "7400000000000000002", "cover_image_url": COVER},
        ],
        "cursor": 1_643_332_803_000,
        "has_more": False,
    },
    "error": {"code": "ok", "message": "", "log_id": LOG_ID},
}
ASKED = ["7400000000000000001", "7400000000000000002"]
FAILURE = {
    "data": {},
    "error": {"code": "access_token_invalid", "message": "It is invalid.", "log_id": LOG_ID},
}
BARE = {"code": "rate_limit_exceeded", "message": "", "log_id": LOG_ID}
GRANT = {
    "open_id": "ana",
    "scope": "user.info.basic,video.list",
    "access_token": "act.example12345Example12345Example",
    "expires_in": 86_400,
    "refresh_token": "rft.example12345Example12345Example",
    "refresh_expires_in": 31_536_000,
    "token_type": "Bearer",
}
REFUSAL = {
    "error": "invalid_grant",
    "error_description": "Refresh token is invalid or expired.",
    "log_id": LOG_ID,
}

# --- The wire ---

texts = st.text() | st.sampled_from(
    ["ok", "", "\0", "\ud800", "\udcff", "null", "1e999", "-1", "NaN", " 86400 ", "١٢", "9" * 400]
)
numbers = (
    st.integers()
    | st.floats()
    | st.sampled_from([10**30, -(10**400), 10**400, 2**63, 2**64, 1e308, -0.0, inf, -inf])
)
anything = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def mutated(draw, value):
    """The value with some of its parts left out, doubled or of another type, at any depth."""
    match draw(st.sampled_from(["keep"] * 6 + ["replace", "drop", "wrap", "text"])):
        case "replace":
            return draw(anything)
        case "wrap":
            return [value]
        case "text":
            return json.dumps(value)
        case _:
            pass
    if isinstance(value, dict):
        kept = [key for key in value if draw(st.integers(0, 9))]
        changed = {key: draw(mutated(value[key])) for key in kept}
        return changed | draw(st.dictionaries(texts, anything, max_size=1))
    if isinstance(value, list):
        items = [draw(mutated(item)) for item in value if draw(st.integers(0, 9))]
        return items + items[: draw(st.integers(0, 1))]
    return value


@st.composite
def bodies(draw, *shapes):
    """A real answer, changed as an object, as text and as bytes."""
    text = json.dumps(
        draw(mutated(draw(st.sampled_from(shapes)))), ensure_ascii=draw(st.booleans())
    )
    if draw(st.integers(0, 4)) == 0:
        doubled = draw(st.sampled_from(['"error":', '"data":', '"code":"ok",', '"id":"1",', "{"]))
        at = draw(st.integers(0, len(text)))
        text = text[:at] + doubled + text[at:]
    encoding = draw(st.sampled_from(["utf-8"] * 6 + ["utf-16", "utf-32", "latin-1", "utf-8-sig"]))
    errors = "xmlcharrefreplace" if encoding == "latin-1" else "surrogatepass"
    body = text.encode(encoding, errors)
    if draw(st.integers(0, 4)) == 0:
        body = body[: draw(st.integers(0, len(body)))] + draw(st.binary(max_size=4))
    return body


statuses = st.sampled_from([200, 200, 200, 201, 204, 302, 400, 401, 403, 404, 429, 500, 502, 599])
headers = st.dictionaries(
    st.sampled_from([LOG_ID_HEADER, "Retry-After", "Date", "Content-Type"]),
    st.text(max_size=20)
    | st.sampled_from(["30", " 5 ", "2.5", "99999999999", "²", "٣", "-1", "\udcff"])
    | st.from_regex(r"[MT]on, \d\d? Sep \d{1,12} \d\d?:\d\d?(:\d\d?)?( GMT)?", fullmatch=True),
)
deep = st.builds(
    lambda left, right, depth: left * depth + right * depth,
    st.sampled_from([b"[", b'{"data":', b'{"error":', b'{"data":{"videos":[', b'[{"a":']),
    st.sampled_from([b"", b"]", b"}"]),
    st.sampled_from([10, 1_000, 50_000]),
)


def check_error(error: UpstreamError) -> None:
    """Whoever catches it can log it, and count with it."""
    assert isinstance(error.code, str)
    assert error.code
    assert isinstance(error.log_id, str)
    assert isinstance(error.status, int)
    if isinstance(error, (Throttled, DailyQuotaSpent)) and error.retry_after_seconds is not None:
        assert 0 <= error.retry_after_seconds < 100_000


@settings(max_examples=400, deadline=None)
@given(
    status=statuses,
    headers=headers,
    body=st.binary() | deep | bodies(ANSWER, FAILURE, BARE, GRANT),
    asked=st.lists(st.sampled_from(ASKED)),
)
def test_any_answer_is_covers_or_an_upstream_error(status, headers, body, asked):
    """Nothing else is raised, and what is read can be held against what was asked for."""
    try:
        covers = read_answer(status, headers, body, asked, NOW.timestamp())
    except UpstreamError as error:
        check_error(error)
        return
    assert status // 100 == 2
    assert not covers or not covers.keys().isdisjoint(asked)
    for video_id, url in covers.items():
        assert type(video_id) is str
        try:
            cover_url, expires_at = read_cover(url, NOW.timestamp(), 21_600.0)
        except CoverUnusable:
            continue
        assert cover_url == url
        assert expires_at > NOW.timestamp()


@settings(max_examples=400, deadline=None)
@given(status=statuses, headers=headers, body=st.binary() | deep | bodies(GRANT, REFUSAL, FAILURE))
def test_any_token_answer_is_a_pair_or_an_upstream_error(status, headers, body):
    """Nothing else is raised, and a pair can be sent, and its lifetimes counted with."""
    try:
        pair = read_token_answer(status, headers, body, NOW.timestamp())
    except UpstreamError as error:
        check_error(error)
        return
    check_pair(pair)


def check_pair(pair: TokenPair) -> None:
    assert usable_token(pair.access_token)
    assert 0 < pair.access_token_lives_seconds < LONGEST_LIFE_SECONDS
    assert pair.refresh_token is None or (type(pair.refresh_token) is str and pair.refresh_token)
    lives_seconds = pair.refresh_token_lives_seconds
    assert lives_seconds is None or 0 < lives_seconds < LONGEST_LIFE_SECONDS
    assert pair.scope is None or type(pair.scope) is str
    assert pair.open_id is None or type(pair.open_id) is str


@pytest.mark.parametrize("text", ["\0", "rft.\0x", "rft.\nx", "rft. x", "ä"])
def test_a_refresh_token_that_cannot_be_sent_is_none(text):
    """It could not be stored, or not be used: the old one stays, which may still be good."""
    body = json.dumps(GRANT | {"refresh_token": text}).encode()
    assert read_token_answer(200, {}, body, NOW.timestamp()).refresh_token is None


@pytest.mark.parametrize("code", ["a\0b", "x" * 10_000], ids=["nul", "long"])
def test_a_code_can_be_stored_and_logged(code):
    """It becomes the reason of a park: PostgreSQL stores no NUL, and nobody reads pages of it."""
    body = json.dumps({"error": {"code": code, "log_id": LOG_ID}}).encode()
    with pytest.raises(UpstreamError) as raised:
        read_answer(401, {}, body, ["1"], NOW.timestamp())
    assert "\0" not in raised.value.code
    assert len(raised.value.code) <= 200


@given(token=st.text() | st.none(), video_ids=st.lists(st.text(st.characters(codec="utf-8"))))
def test_a_query_can_be_sent_or_is_refused(token, video_ids):
    """What would break a header line is an `UpstreamError`, like a token that TikTok refuses."""
    try:
        query = build_query(token, video_ids)
    except UpstreamError as error:
        check_error(error)
        return
    assert query.headers["Authorization"].isascii()
    assert query.headers["Authorization"].isprintable()
    assert json.loads(query.body) == {"filters": {"video_ids": video_ids}}


# --- Nothing secret in a log ---

SECRET = "hush"
ALPHABET = "abcXYZ019-_.!*~+/=%"
secrets = st.text(ALPHABET, max_size=12).map(lambda text: SECRET + text)
passwords = st.text("abcXYZ019-_.!*~+%@:", max_size=12).map(lambda text: SECRET + text)
names = st.sampled_from(
    [
        "access_token",
        "refresh_token",
        "client_secret",
        "client_key",
        "token_keys",
        "password",
        "PGPASSWORD",
        "REFRESHER_TOKEN_KEYS",
        "x-signature",
        "Signature",
        "sig",
        "Authorization",
        "clientSecret",
    ]
)


def shapes(secret, name, user):
    """The ways in which a secret gets into a text."""
    return [
        f"act.{secret}",
        f"rft.{secret}",
        f"Bearer {secret}",
        f"{name}={secret}",
        f"{name}: {secret}",
        f'"{name}": "{secret}"',
        f"'{name}': '{secret}'",
        json.dumps(json.dumps({name: secret})),
        json.dumps({name: secret}, indent=2),
        f"https://example.com/c?x-expires=1&x-signature={secret}&s=1",
        f"postgresql://{user}:{secret.replace('/', '%2F')}@db:5432/d",
        f"DETAIL:  Failing row contains (1, {secret}).",
    ]


pieces = st.builds(
    shapes, secrets, names, st.text("abc.-_%", max_size=5)
).flatmap(st.sampled_from)  # fmt: skip
#: Says that a secret follows.
TELLTALE = re.compile(
    f"(?i){LONG_NAMES}|{SHORT_NAMES}|bearer|basic|detail|context|://|act|rft|hush"
)
others = st.text().filter(lambda text: not TELLTALE.search(text))
#: What ends a word, so that what follows is one of its own.
breaks = st.sampled_from([" ", "\n", "(", "[", "{", ",", ", ", "; ", "\t", "<", "|", "&", "\0"])


@given(before=others, gap=breaks, secret=pieces, after=others)
def test_no_secret_survives_in_any_text(before, gap, secret, after):
    """Whatever stands around it."""
    assert SECRET not in redacted_text(before + gap + secret + gap + after)


@given(user=st.text("abc.-_%", max_size=5), password=passwords, after=others)
def test_no_password_of_a_url_survives(user, password, after):
    """Up to the last @ of the host's part, whatever characters somebody left as they are."""
    text = redacted_text(f"cannot reach postgresql://{user}:{password}@db.example.com/d {after}")
    assert SECRET not in text
    assert text.startswith(f"cannot reach postgresql://{user}:[redacted]@db.example.com/d")


@given(parts=st.lists(pieces | others, max_size=6))
def test_several_secrets_hide_none_of_each_other(parts):
    """Each in a line of its own, among lines of anything."""
    assert SECRET not in redacted_text("\n".join(parts))


fields = st.recursive(
    pieces
    | st.integers()
    | st.none()
    | st.booleans()
    | pieces.map(ValueError)
    | pieces.map(str.encode),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from(["a", "b", "open_id"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(entry=st.dictionaries(st.text(max_size=8), fields, max_size=4))
def test_no_secret_survives_in_nested_fields(entry):
    """Lists, tuples, objects, exceptions and bytes, as deep as they may be."""
    assert SECRET not in repr(redact(None, "info", entry))


@given(
    name=names,
    value=st.recursive(secrets, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)),
)
def test_nothing_of_a_secret_field_survives(name, value):
    """A field with such a name is no longer there, whatever it held."""
    entry = {"outer": [{name: value}], name: value}
    assert redact(None, "info", entry) == {"outer": [{name: "[redacted]"}], name: "[redacted]"}


def test_no_secret_survives_as_a_key():
    """Counted by token, say."""
    assert SECRET not in repr(redact(None, "info", {"counts": {f"act.{SECRET}": 1}}))


@given(messages=st.lists(pieces, min_size=1, max_size=4), noted=st.booleans())
def test_no_secret_survives_in_a_chain_of_exceptions(messages, noted):
    """Causes, contexts and notes are printed in a traceback, too."""
    error = None
    for number, message in enumerate(messages):
        raised = RuntimeError(message, {"args": message})
        if number % 2:
            raised.__cause__ = error
        else:
            raised.__context__ = error
        error = raised
    assert error
    if noted:
        error.add_note(messages[0])
    printed = "".join(traceback.format_exception(error))
    assert SECRET in printed
    assert SECRET not in repr(redact(None, "error", {"exception": printed, "error": error}))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            f"postgresql://me@server:{SECRET}@db/d",
            id="user-with-at-sign",
        ),
        pytest.param(
            f"postgresql://me:ab/{SECRET}@db/d",
            id="password-with-slash",
        ),
        pytest.param(
            f'{{"client_secret": "{SECRET}',
            id="cut-in-the-secret",
        ),
        pytest.param(
            f"password='{SECRET}\n{SECRET}'",
            id="two-lines",
        ),
        pytest.param(
            f"[('client_secret', '{SECRET}')]",
            id="pairs",
        ),
        pytest.param(
            f"body=access_token%3Dact.{SECRET}%26a%3D1",
            id="percent-encoded",
        ),
    ],
)
def test_a_secret_in_an_odd_shape_is_redacted(text):
    """Found by looking for what the shapes above leave out."""
    assert SECRET not in redacted_text(text)


words = st.sampled_from(
    ["the", "account", "ana", "was", "not", "found", "7400000000000000001", "HTTP", "429", "took",
     "0.25", "s", "(of", "20)", "a", "password", "secret", "is", "missing", "expected", "'x'", "not",
     "https://example.com:8080/a@b?x-expires=1&s=a%2Fb", "postgresql://me@db:5432/d", "act", "rft"]
)  # fmt: skip


@given(text=st.lists(words, max_size=12).map(" ".join))
def test_a_text_without_secrets_stays_readable(text):
    """Nothing is taken from it."""
    assert redacted_text(text) == text


@given(parts=st.lists(pieces | others, max_size=4))
def test_redacting_twice_changes_nothing(parts):
    """What a library has quoted of our own log is as it was."""
    once = redacted_text(" ".join(parts))
    assert redacted_text(once) == once


@pytest.mark.parametrize(
    "piece",
    ['secret="', "\\", "password=\\", "://a:", "://a:b@c", "bearer ", "Bearer\t", "DETAIL:\n",
     "DETAIL:\n \n\tx", "\n ", "act.", "x@", " ", "password ", 'password="\\', "'", "CONTEXT:", "=",
     "password:", "a=b&", "https://", "(rft."],
)  # fmt: skip
def test_a_long_hostile_text_comes_to_an_end(piece):
    """No pattern tries every way through a text: with that these would take for ever."""
    assert redacted_text(piece * (200_000 // len(piece))) is not None


@pytest.mark.parametrize("piece", ["a", "-", "_", "sig", "password", "access_token", "x-signature"])
def test_a_long_word_comes_to_an_end(piece):
    """A log_id or a code of a broken answer may be as long as the answer."""
    assert redacted_text(piece * (200_000 // len(piece))) is not None
