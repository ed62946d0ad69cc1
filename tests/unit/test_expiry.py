"""Reading a cover's expiry from its URL."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from refresher.domain.errors import CoverUnusable
from refresher.domain.expiry import (
    EARLIEST_EXPIRY,
    LONGEST_LIFE_SECONDS,
    LONGEST_URL,
    all_url_characters,
    named_expiry,
    read_cover,
    usual_expiry,
)

NOW = datetime(2026, 9, 1, 12, 30, tzinfo=UTC)
TTL = timedelta(hours=6)
TOMORROW = datetime(2026, 9, 2, 12, tzinfo=UTC)
PATH = "https://p16-sign-va.example.com/tos-maliva-p-0068/oIAAHF~tplv-tiktokx-q:300:400:q72.jpeg"
PARAMETERS = ["dr=14782", "refresh_token=15a6ba46", "x-signature=8U%2FnJ2%2BwK%3D", "s=FOR_DEV"]

LATEST = int(NOW.timestamp() + LONGEST_LIFE_SECONDS)
seconds = st.integers(int(EARLIEST_EXPIRY), LATEST)  # every expiry that is taken for one


def url(*parameters):
    return f"{PATH}?{'&'.join(parameters)}"


def unix(time):
    return int(time.timestamp())


def read(thing):
    """The URL and its time as a datetime."""
    cover_url, expires_at = read_cover(thing, NOW.timestamp(), TTL.total_seconds())
    return cover_url, datetime.fromtimestamp(expires_at, UTC)


def any_case(text):
    return st.tuples(*[st.sampled_from([c.lower(), c.upper()]) for c in text]).map("".join)


@pytest.mark.parametrize(
    ("parameters", "expires_at"),
    [
        pytest.param([f"x-expires={unix(TOMORROW)}", *PARAMETERS], TOMORROW, id="first"),
        pytest.param([*PARAMETERS, f"x-expires={unix(TOMORROW)}"], TOMORROW, id="last"),
        pytest.param([f"x-expires={unix(TOMORROW)}#x-expires=1"], TOMORROW, id="before-fragment"),
        pytest.param([f"X-Expires={unix(TOMORROW)}"], TOMORROW, id="capitals"),
        pytest.param([f"Expires={unix(TOMORROW)}"], TOMORROW, id="no-x"),
        pytest.param([f"x-expires={unix(TOMORROW)}500"], TOMORROW + TTL / 43_200, id="millis"),
        pytest.param(
            [f"x-expires={unix(NOW + timedelta(days=15))}"], NOW + timedelta(days=15), id="photo"
        ),
        pytest.param(
            [f"expires={unix(NOW + TTL)}", f"x-expires={unix(TOMORROW)}"], TOMORROW, id="x-wins"
        ),
        pytest.param(
            ["a=1", "x-expires=1", f"expires={unix(TOMORROW)}"], TOMORROW, id="too-old-gives-way"
        ),
        pytest.param(
            ["x-expires=soon", f"expires={unix(TOMORROW)}"], TOMORROW, id="nonsense-gives-way"
        ),
    ],
)
def test_a_named_expiry_is_read(parameters, expires_at):
    """The cover expires when its URL says, wherever and however that is spelled."""
    assert read(url(*parameters)) == (url(*parameters), expires_at)


@given(parameters=st.permutations([*PARAMETERS, f"x-expires={unix(TOMORROW)}"]))
def test_a_url_comes_back_byte_for_byte(parameters):
    """No order of the parameters and no %2F in them changes the URL or hides its expiry."""
    assert read(url(*parameters)) == (url(*parameters), TOMORROW)


@given(key=st.sampled_from(["x-expires", "expires"]).flatmap(any_case), expires=seconds)
def test_any_sane_expiry_is_read_whatever_the_case_of_its_key(key, expires):
    """The key is matched without case, and every time in the sane range is believed."""
    named = named_expiry(url(*PARAMETERS, f"{key}={expires}"), NOW.timestamp())
    assert named == expires


@pytest.mark.parametrize(
    "parameter",
    [
        "",
        "x-expires",
        "x-expires=",
        "x-expires=soon",
        f"x-expires=-{unix(TOMORROW)}",
        f"x-expires={unix(TOMORROW)}.5",
        "x-expires=0",
        f"x-expires={int(EARLIEST_EXPIRY) - 1}",
        f"x-expires={LATEST + 1}",
        f"x-expires={unix(TOMORROW)}000000",
        "x-expires=" + 3000 * "9",
        f"#x-expires={unix(TOMORROW)}",
        f"#&x-expires={unix(TOMORROW)}",
        f"not-x-expires={unix(TOMORROW)}",
    ],
    ids=lambda parameter: parameter[:40] or "none",
)
def test_a_url_without_a_sane_expiry_lives_for_the_fallback(parameter):
    """Where the URL names no expiry, or nonsense, the fallback counts from the answer."""
    assert read(url(parameter)) == (url(parameter), NOW + TTL)


@pytest.mark.parametrize("age", [timedelta(0), timedelta(seconds=1), timedelta(days=900)])
def test_a_dead_cover_is_unusable(age):
    """A cover that has expired when it comes is refused, not given the fallback."""
    with pytest.raises(CoverUnusable, match="expired on arrival"):
        read(url(f"x-expires={unix(NOW - age)}"))


@pytest.mark.parametrize(
    ("given_url", "reason"),
    [
        (None, "no URL"),
        ("", "no URL"),
        (7, "no URL"),
        (["https://example.com/"], "no URL"),
        ("ftp://example.com/a.jpeg", "not an http URL"),
        ("//example.com/a.jpeg", "not an http URL"),
        ("https://example.com/" + LONGEST_URL * "a", "longer than 4096 characters"),
        ("https://example.com/a b", "characters that no URL holds"),
        ("https://example.com/a\n", "characters that no URL holds"),
        ("https://example.com/\0", "characters that no URL holds"),
        ("https://example.com/é", "characters that no URL holds"),
        ("https://example.com/\ud800", "characters that no URL holds"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_what_cannot_be_stored_is_unusable(given_url, reason):
    """The reason says what is wrong with a URL without showing it."""
    with pytest.raises(CoverUnusable, match=f"^{reason}$"):
        read(given_url)


@given(
    thing=st.one_of(
        st.text(),
        st.text().map("https://example.com/?x-expires={}".format),
        st.text(st.characters(max_codepoint=127)).map("http://{}".format),
        st.integers().map("https://example.com/?a=b&x-expires={}".format),
        st.one_of(st.none(), st.integers(), st.binary(), st.lists(st.text()), st.builds(object)),
    )
)
def test_anything_is_a_cover_or_unusable(thing):
    """Whatever an answer holds in place of a URL, the only complaint is `CoverUnusable`."""
    try:
        cover_url, expires_at = read(thing)
    except CoverUnusable:
        return
    assert cover_url == thing
    assert NOW.timestamp() < expires_at.timestamp() <= LATEST


#: What URLs are made of, and what may stand where in an odd one.
PIECES = [
    "https://", "http://", "HTTPS://", "example.com", "/a", "?", "#", "&", "=", "7", "%2F", "é", " ",
    "x-expires=", "&x-expires=", "&X-Expires=", "&X-EXPIRES=", "?x-expires=", "&expires=", "&EXPIRES=",
    "?expires=", f"&x-expires={unix(TOMORROW)}", f"{unix(TOMORROW)}", f"{unix(NOW)}", f"{unix(TOMORROW)}000", f"{LATEST + 1}",
    LONGEST_URL * "a",
]  # fmt: skip


@given(
    start=st.sampled_from([f"{PATH}?", PATH, "https://", ""]),
    rest=st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
)
@example(start=f"{PATH}?a=1", rest=f"&x-expires={unix(TOMORROW)}&x-expires=7")
@example(start=f"{PATH}?", rest=f"X-EXPIRES={unix(TOMORROW)}&x-expires={unix(TOMORROW) + 1}")
@example(start=f"{PATH}?", rest=f"a&x-expires={unix(TOMORROW)}#&x-expires=1")
def test_the_short_way_says_what_the_long_one_says(start, rest):
    """Of a URL as TikTok writes them; of any other one it says nothing."""
    cover_url = start + rest
    if not all_url_characters({"7": cover_url}):
        return
    expires_at = usual_expiry(cover_url, NOW.timestamp())
    if expires_at is not None:
        assert read_cover(cover_url, NOW.timestamp(), 0.0) == (cover_url, expires_at)


def test_usual_urls_go_the_short_way():
    """It is for nearly all of them."""
    usual = url("dr=14782", f"x-expires={unix(TOMORROW)}", "x-signature=8U%2FnJ2%2BwK%3D")
    assert usual_expiry(usual, NOW.timestamp()) == TOMORROW.timestamp()


@pytest.mark.parametrize(
    "odd", [None, 7, "a b", "é", "\ud800"], ids=["none", "number", "space", "letter", "surrogate"]
)
def test_one_odd_value_has_all_looked_at_closely(odd):
    """The characters of an answer's covers are looked at together."""
    usual = url(f"x-expires={unix(TOMORROW)}")
    assert all_url_characters({"1": usual, "2": usual})
    assert not all_url_characters({"1": usual, "2": odd})
