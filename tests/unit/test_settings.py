"""The operator's settings."""

from dataclasses import FrozenInstanceError

import pytest
from cryptography.fernet import Fernet

from refresher import settings
from refresher.domain.schema_name import EXPECTED_NAME
from refresher.setting_values import Secret
from refresher.settings import SettingsError, read_settings, unknown_variables

URL = "postgresql://refresher@db:5432/refresher"
KEY = Fernet.generate_key().decode()
SIGNING = f"whsec_{'MTIz' * 8}"
DEFAULTS = {
    "tiktok_base_url": "https://open.tiktokapis.com",
    "tiktok_client_key": None,
    "tiktok_client_secret": None,
    "token_management": "managed",
    "token_keys": None,
    "rate_limit_per_token": 600,
    "rate_limit_per_app": 0,
    "lead_seconds": 3600,
    "spread_seconds": 1800,
    "fallback_ttl_seconds": 21600,
    "poll_seconds": 5,
    "concurrency": 64,
    "request_timeout_seconds": 10,
    "lease_seconds": 60,
    "shutdown_grace_seconds": 20,
    "missing_limit": 5,
    "notify_covers": False,
    "http_listen": None,
    "webhook_url": None,
    "webhook_secret": None,
    "log_format": "auto",
    "log_level": "info",
    "probes_per_hour": 6,
    "schema": "refresher",
}


#: Names that need quotes, or are not for us.
BAD_SCHEMAS = [
    "Cell",
    "cell-1",
    "cell 1",
    "1cell",
    "user",
    "new",
    "public",
    "pg_cell",
    "x" * 49,
    "a_wake",
]


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """An environment without any setting, an empty folder of secrets and no `.env`."""
    for field in settings.KINDS:
        monkeypatch.delenv(f"REFRESHER_{field.upper()}", raising=False)
    monkeypatch.setattr(settings, "SECRETS_FOLDER", tmp_path / "secrets")
    (tmp_path / "secrets").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def given(monkeypatch):
    """Set variables of the environment, with a database unless told otherwise."""

    def give(**variables):
        for name, value in {"database_url": URL, **variables}.items():
            monkeypatch.setenv(f"REFRESHER_{name.upper()}", value)

    return give


def values(read):
    """Each setting by its name, secrets too."""
    found = {name: getattr(read, name) for name in settings.KINDS}
    return {
        name: value.get_secret_value() if isinstance(value, Secret) else value
        for name, value in found.items()
    }


def complaint():
    with pytest.raises(SettingsError) as raised:
        read_settings()
    return str(raised.value)


def test_the_defaults_are_those_of_the_contract(given):
    """All but the database has a default, and each is the promised one."""
    given()
    assert values(read_settings()) == {"database_url": URL, **DEFAULTS}


def test_every_setting_is_read_from_its_variable(given):
    """Each variable sets its own field."""
    wanted = {
        "database_url": "postgres://u:p@h/d",
        "tiktok_base_url": "http://localhost:8080",
        "tiktok_client_key": "key",
        "tiktok_client_secret": "secret",
        "token_management": "external",
        "token_keys": f"{KEY},{KEY}",
        "rate_limit_per_token": 1,
        "rate_limit_per_app": 2,
        "lead_seconds": 0.5,
        "spread_seconds": 0,
        "fallback_ttl_seconds": 3,
        "poll_seconds": 4,
        "concurrency": 6,
        "request_timeout_seconds": 7,
        "lease_seconds": 8,
        "shutdown_grace_seconds": 0,
        "missing_limit": 9,
        "notify_covers": True,
        "http_listen": "0.0.0.0:8080",
        "webhook_url": "https://ana:pass@host:8443/a%2Fb?key=1",
        "webhook_secret": f"{SIGNING}, {SIGNING}",
        "log_format": "json",
        "log_level": "debug",
        "probes_per_hour": 10,
        "schema": "cell_1",
    }
    given(**{name: str(value) for name, value in wanted.items()})
    assert values(read_settings()) == wanted


def test_a_missing_database_is_named():
    """The only required setting: the message says its name and its shape."""
    assert complaint() == (
        "REFRESHER_DATABASE_URL is not set: expected a URL as postgresql://user@host:5432/database"
    )


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("token_management", "both", "expected 'managed' or 'external'"),
        *(("schema", name, EXPECTED_NAME) for name in BAD_SCHEMAS),
        ("tiktok_base_url", "open.tiktokapis.com", "expected http://host or https://host"),
        ("tiktok_base_url", "ftp://host", "expected http://host or https://host"),
        ("tiktok_base_url", "https://", "expected http://host or https://host"),
        ("tiktok_base_url", "https://host?a=b", "expected http://host or https://host"),
        ("tiktok_base_url", "https://host#a", "expected http://host or https://host"),
        ("tiktok_base_url", "http://[", "expected http://host or https://host"),
        ("tiktok_base_url", "http://host:99999", "expected http://host or https://host"),
        ("tiktok_base_url", "http://a host", "expected http://host or https://host"),
        ("rate_limit_per_token", "-1", "expected 0 or more"),
        ("rate_limit_per_app", "many", "expected a whole number"),
        ("lead_seconds", "-1", "expected 0 or more"),
        ("spread_seconds", "nan", "expected 31536000 or less"),
        ("fallback_ttl_seconds", "0", "expected more than 0"),
        ("poll_seconds", "inf", "expected 31536000 or less"),
        ("concurrency", "0", "expected 1 or more"),
        ("request_timeout_seconds", "0", "expected more than 0"),
        ("lease_seconds", "0.9", "expected 1 or more"),
        ("shutdown_grace_seconds", "1m", "expected a number"),
        ("missing_limit", "1.5", "expected a whole number"),
        ("http_listen", "8080", "expected host:port"),
        ("http_listen", ":8080", "expected host:port"),
        ("http_listen", "localhost:http", "expected host:port"),
        ("http_listen", "localhost:65536", "expected host:port"),
        ("http_listen", "local..host:8080", "expected host:port"),
        ("log_format", "xml", "expected 'json', 'console' or 'auto'"),
        ("log_level", "loud", "expected 'debug', 'info', 'warning' or 'error'"),
        ("log_level", "\udcff", "expected text in UTF-8"),
    ],
)
def test_a_bad_value_is_named_with_what_was_expected(given, name, value, expected):
    """One line: the variable, what it should be, and what it is."""
    given(**{name: value})
    message = complaint()
    assert message == f"REFRESHER_{name.upper()}: {expected}, not {value!r}"


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:hush@h/d",
        "h:5432/hush",
        "postgresql://u:hush@h:port/d",
        "postgresql://u:hush@h:99999/d",
        "postgresql://u:hush@[/d",
    ],
)
def test_a_bad_database_url_is_not_shown(given, url):
    """A URL may hold a password, so the message only says what was expected."""
    given(database_url=url)
    assert complaint() == (
        "REFRESHER_DATABASE_URL: expected a URL as postgresql://user@host:5432/database, "
        "not the value given"
    )


def test_a_good_database_url_is_not_shown_either(given):
    """The repr of the settings holds no password."""
    given(database_url="postgresql://u:hush@h/d")
    assert "hush" not in repr(read_settings())


def test_all_complaints_come_at_once(given):
    """Whoever has two mistakes reads of both, still in one line."""
    given(concurrency="no\nne", missing_limit="0")
    first, second = complaint().split("; ")
    assert first.startswith("REFRESHER_CONCURRENCY: ")
    assert second.startswith("REFRESHER_MISSING_LIMIT: ")
    assert "\n" not in first


def test_settings_cannot_be_changed(given):
    """What was checked at the start stays what it was."""
    given()
    with pytest.raises(FrozenInstanceError):
        read_settings().poll_seconds = 1


def test_a_base_url_ends_without_a_slash(given):
    """A slash at the end is the same address."""
    given(tiktok_base_url="https://host/prefix/")
    assert read_settings().tiktok_base_url == "https://host/prefix"


# --- Where they come from ---


def test_the_nearest_source_wins(given, tmp_path):
    """Environment before `.env` before secrets, each on its own and all together."""
    (tmp_path / "secrets" / "refresher_database_url").write_text(URL + "\n")
    (tmp_path / "secrets" / "refresher_poll_seconds").write_text("1")
    (tmp_path / "secrets" / "refresher_lease_seconds").write_text("1")
    (tmp_path / "secrets" / "another_program").write_text("not ours")
    (tmp_path / ".env").write_text(
        "REFRESHER_POLL_SECONDS=2\nREFRESHER_LEASE_SECONDS=2\nREFRESHER_MISSING_LIMIT=2\n"
        "SOMETHING_ELSE=yes\n"
    )
    given(lease_seconds="3")
    read = read_settings()
    assert (read.poll_seconds, read.lease_seconds, read.missing_limit) == (2, 3, 2)


def test_a_secret_is_read_as_docker_mounts_it(tmp_path):
    """A file named like the variable holds the value, whatever newline ends it."""
    (tmp_path / "secrets" / "REFRESHER_DATABASE_URL").write_text(URL + "\n")
    assert read_settings().database_url.get_secret_value() == URL


def test_no_folder_of_secrets_is_no_error(given, tmp_path):
    """Outside of a container there is none."""
    (tmp_path / "secrets").rmdir()
    given()
    assert read_settings().database_url.get_secret_value() == URL


@pytest.mark.parametrize("source", ["environment", ".env", "secrets"])
def test_an_empty_value_counts_as_unset(given, tmp_path, source):
    """A variable that is there but empty leaves the default."""
    given()
    if source == "environment":
        given(poll_seconds="", http_listen="")
    elif source == ".env":
        (tmp_path / ".env").write_text("REFRESHER_POLL_SECONDS=\nREFRESHER_HTTP_LISTEN=\n")
    else:
        (tmp_path / "secrets" / "refresher_poll_seconds").write_text("\n")
        (tmp_path / "secrets" / "refresher_http_listen").write_text("\n")
    read = read_settings()
    assert (read.poll_seconds, read.http_listen) == (5, None)


def test_an_empty_database_url_is_missing(given):
    """Empty is not set: the message is the one of a missing database."""
    given(database_url="")
    assert complaint().startswith("REFRESHER_DATABASE_URL is not set: ")


@pytest.mark.parametrize("path", [".env", "secrets/refresher_database_url"])
def test_a_file_that_is_no_text_is_a_complaint(given, tmp_path, path):
    """A file in another encoding is the operator's to mend: a line, no traceback."""
    given()
    (tmp_path / path).write_bytes(b"REFRESHER_LOG_LEVEL=\xe9\xff\n")
    assert complaint()


def test_what_the_command_line_says_comes_first(given):
    """An override beats every source and is checked like any other value."""
    given(poll_seconds="2")
    assert read_settings(poll_seconds=3).poll_seconds == 3
    with pytest.raises(SettingsError, match=r"^REFRESHER_POLL_SECONDS: .*, not 0$"):
        read_settings(poll_seconds=0)


def test_mistyped_variables_are_found():
    """Those with our prefix that no setting reads, whatever else the environment holds."""
    environment = ["PATH", "REFRESHER_LEED_SECONDS", "REFRESHER_LEAD_SECONDS", "refresher_x"]
    assert unknown_variables(environment) == ["REFRESHER_LEED_SECONDS", "refresher_x"]


@pytest.mark.parametrize(
    "keys",
    ["short", f"{KEY},no-key", "ä" * 44, f"{KEY};{KEY}", f"{KEY} {KEY}", f"{KEY}=x"],
    ids=["short", "second", "ä", "semicolon", "space", "trailing"],
)
def test_a_key_that_is_none_is_refused_without_being_shown(given, keys):
    """What is expected is said, the value is not."""
    given(token_keys=keys)
    assert complaint() == (
        "REFRESHER_TOKEN_KEYS: expected Fernet keys, 32 bytes each in URL-safe base64, separated"
        " by commas, not the value given"
    )


def test_half_of_the_apps_credentials_is_refused(given):
    """Key and secret come together; neither value is shown."""
    given(tiktok_client_key="client-key-of-the-tests")
    assert complaint() == (
        "REFRESHER_TIKTOK_CLIENT_KEY, REFRESHER_TIKTOK_CLIENT_SECRET: expected both or neither of"
        " the two"
    )


@pytest.mark.parametrize(
    ("values", "refreshes"),
    [
        ({}, False),
        ({"tiktok_client_key": "k", "tiktok_client_secret": "s"}, True),
        (
            {
                "tiktok_client_key": "k",
                "tiktok_client_secret": "s",
                "token_management": "external",
            },
            False,
        ),
    ],
    ids=["no client", "managed", "external"],
)
def test_tokens_are_refreshed_where_it_is_ours_and_possible(given, values, refreshes):
    """Managed, and with the app's own credentials."""
    given(**values)
    assert read_settings().renews_tokens is refreshes


# --- Webhooks ---


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/hush",
        "host/hush",
        "https://",
        "https:///hush",
        "https://host:99999/hush",
        "https://a host/hush",
        "https://host/hush#part",
        "https://host..name/hush",
        "https://[/hush",
        "https://hüsh/",
        "https://user:hush@/path",
    ],
)
def test_a_webhook_url_that_is_none_is_not_shown(given, url):
    """It may hold credentials, so the message only says what was expected."""
    given(webhook_url=url, webhook_secret=SIGNING)
    assert complaint() == (
        "REFRESHER_WEBHOOK_URL: expected http://host/path or https://host/path, in ASCII,"
        " not the value given"
    )


@pytest.mark.parametrize(
    "secret",
    [
        "hush",
        SIGNING.removeprefix("whsec_"),
        f"whsec_{'MTIz' * 7}",
        f"whsec_{'MTIz' * 22}",
        f"whsec_{'MT-_' * 8}",
        f"{SIGNING}=",
        f"{SIGNING},hush",
        f"{SIGNING} {SIGNING}",
        ",",
    ],
    ids=[
        "word", "no prefix", "short", "long", "URL-safe", "padding", "second", "blank", "none",
    ],
)  # fmt: skip
def test_a_webhook_secret_that_is_none_is_not_shown(given, secret):
    """The library would take some of these, and sign with another key than the receiver's."""
    given(webhook_url="https://host", webhook_secret=secret)
    assert complaint() == (
        "REFRESHER_WEBHOOK_SECRET: expected whsec_ and 24 to 64 bytes in base64, several such"
        " secrets separated by commas, not the value given"
    )


def test_a_webhook_url_needs_a_secret(given):
    """Nothing goes out unsigned."""
    given(webhook_url="https://host/hush")
    assert complaint() == (
        "REFRESHER_WEBHOOK_SECRET is not set: expected whsec_ and 24 to 64 bytes in base64, as"
        " REFRESHER_WEBHOOK_URL is set"
    )


def test_webhooks_are_off_without_a_url(given):
    """A secret may stay where it is."""
    given(webhook_secret=SIGNING)
    assert read_settings().webhook_target is None


def test_a_target_shows_only_where_it_is(given):
    """Scheme, host and port; the repr not even these."""
    given(webhook_url="https://ana:hush@host:8443/hush?key=hush", webhook_secret=SIGNING)
    target = read_settings().webhook_target
    assert target.origin == "https://host:8443"
    assert "hush" not in repr(read_settings()) + repr(target)
    assert target.secrets == [SIGNING]
