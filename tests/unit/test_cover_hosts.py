"""Which hosts may be asked for covers."""

import pytest

from refresher.domain.cover_hosts import CoverHosts, host_of, local_origin, suffix_of

NAMED = "p16-sign-va.tiktokcdn.com"


def known(*hosts, local=None, grown=0.0):
    under_test = CoverHosts(local)
    under_test.hear(dict.fromkeys(hosts, grown))
    return under_test


@pytest.mark.parametrize(
    ("host", "suffix"),
    [
        ("p16-sign-va.tiktokcdn.com", "tiktokcdn.com"),
        ("p16-common-sign.tiktokcdn-us.com", "tiktokcdn-us.com"),
        ("p16.tiktokcdn.com.akamaized.net", "tiktokcdn.com.akamaized.net"),
        ("tiktokcdn.com", "tiktokcdn.com"),
        ("covers.co.uk", "covers.co.uk"),
        ("p16.covers.co.uk", "covers.co.uk"),
        ("p16.tiktok.cc", "p16.tiktok.cc"),
    ],
)
def test_the_suffix_is_of_one_owner(host, suffix):
    """Never a domain under which anybody may register."""
    assert suffix_of(host) == suffix


@pytest.mark.parametrize(
    "url", [f"https://{NAMED}/a?b=%2F", "https://p77.tiktokcdn.com/a", "https://a.b.tiktokcdn.com/"]
)
def test_a_host_under_a_named_suffix_may_be_asked(url):
    """Also one that no answer has named so far."""
    assert known(NAMED).of(url) == host_of(url)


@pytest.mark.parametrize(
    "url",
    [
        f"http://{NAMED}/a",
        f"https://{NAMED}:22/a",
        f"https://{NAMED}",
        f"https://user@{NAMED}/a",
        f"https://evil.example\\@{NAMED}/a",
        f"https://evil.example#.{NAMED}/a",
        f"https://{NAMED}.evil.example/a",
        "https://eviltiktokcdn.com/a",
        "https://evil.example/a",
        "https://127.0.0.1/a",
        "https://[::1]/a",
        "https://localhost/a",
        "https://0x7f.1/a",
        "https://.tiktokcdn.com/a",
        "https://-.tiktokcdn.com/a",
        "https://P16.TIKTOKCDN.COM/a",
        "file:///etc/passwd",
        "gopher://x.tiktokcdn.com/a",
        "https:///a",
        "",
    ],
)
def test_nothing_else_may_be_asked(url):
    """Another scheme, port, owner or spelling; an address; what programs read differently."""
    assert known(NAMED, "localhost.example").of(url) is None


def test_nothing_may_be_asked_before_an_answer_has_named_a_host():
    """What an application stored is not enough."""
    assert known().of(f"https://{NAMED}/a") is None


def test_hosts_are_learned_from_answers():
    """Each once, and no address or port."""
    under_test = known("p77.tiktokcdn.com")
    under_test.note([f"https://{NAMED}/a", f"https://{NAMED}/b", "https://p77.tiktokcdn.com/"])
    under_test.note(["https://127.0.0.1/a", "http://127.0.0.1:80/a", "https://x.example:8443/"])
    assert under_test.news() == [NAMED]
    assert under_test.news() == []


@pytest.mark.parametrize(
    ("base_url", "origin"),
    [
        ("https://open.tiktokapis.com", None),
        ("https://open.tiktokapis.com:8443/v2", None),
        ("https://8.8.8.8", None),
        ("http://open.tiktokapis.com", "http://open.tiktokapis.com"),
        ("http://127.0.0.1:8090", "http://127.0.0.1:8090"),
        ("http://emulator:8090/tiktok", "http://emulator:8090"),
        ("https://localhost:8443", "https://localhost:8443"),
        ("https://10.0.0.1:8443", "https://10.0.0.1:8443"),
        ("https://[::1]:8443", "https://[::1]:8443"),
    ],
)
def test_a_tiktok_of_ones_own_has_its_origin(base_url, origin):
    """Asked without TLS, or at an address of one's own."""
    assert local_origin(base_url) == origin


def test_the_origin_of_ones_own_tiktok_may_be_asked():
    """This one only, with its port; other local addresses still may not."""
    under_test = known("127.0.0.1:8090", local="http://127.0.0.1:8090", grown=9.0)
    assert under_test.of("http://127.0.0.1:8090/a") == "127.0.0.1:8090"
    assert under_test.is_local("http://127.0.0.1:8090/a")
    assert under_test.prefix("127.0.0.1:8090") == "http://127.0.0.1:8090/"
    assert under_test.prefix(NAMED) == f"https://{NAMED}/"
    for url in ("http://127.0.0.1:8091/a", "http://127.0.0.1/a", "http://127.0.0.1:80900/a"):
        assert under_test.of(url) is None
    assert under_test.grown == {"127.0.0.1:8090": 9.0}


def test_a_known_local_origin_is_nothing_to_a_daemon_of_the_real_tiktok():
    """Its row in the table may be left from a trial."""
    assert known("127.0.0.1:8090").of("http://127.0.0.1:8090/a") is None
    assert known("127.0.0.1:8090").of("https://127.0.0.1:8090/a") is None
