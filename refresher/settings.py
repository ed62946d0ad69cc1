"""The operator's settings: read once, checked at start, passed in."""

import base64
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from msgspec import Meta

from refresher.domain.connection_string import (
    EXPECTED_URL,
    ConnectionStringError,
    read_connection_string,
)
from refresher.domain.credentials import AppCredentials
from refresher.domain.due import DuePolicy
from refresher.domain.limits import HIGHEST_LIMIT, YEAR_SECONDS
from refresher.domain.pacing import Pace, lease_seconds
from refresher.domain.schema_name import EXPECTED_NAME, USUAL_SCHEMA, is_schema_name
from refresher.domain.webhooks import Target
from refresher.setting_files import BadSettingFileError, Found, read_env_file, read_secrets
from refresher.setting_values import Kind, Plain, Secret, SecretText, Text

PREFIX: Final = "REFRESHER_"
HTTP_URL: Final = re.compile(
    r"https?://[\w-]+(\.[\w-]+)*(:\d+)?(/[\w./~-]*)?|https?://\[[\da-f:]+\](:\d+)?/?"
)
#: Stricter than Fernet itself, which ignores characters that are not base64.
FERNET_KEY: Final = re.compile(r"[A-Za-z0-9_-]{43}=")
#: It may hold a user, a password and a query: receivers give out such URLs.
WEBHOOK_URL: Final = re.compile(r"https?://(?![/?])[!\"$-~]+")
WEBHOOK_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what all of them begin with
#: The standard's.
WEBHOOK_SECRET_BYTES: Final = range(24, 65)
ENV_FILE: Final = Path(".env")
SECRETS_FOLDER: Final = Path("/run/secrets")
#: Names the folder in which systemd puts a service's credentials.
CREDENTIALS_VARIABLE: Final = "CREDENTIALS_DIRECTORY"


class SettingsError(Exception):
    """A setting that is missing or wrong; the message is one line and holds no secret."""


def _postgresql_url(value: str) -> None:
    read_connection_string(value, {})


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = HTTP_URL.fullmatch(value) and (parts.port or 1) and parts.hostname
    except ValueError:
        usable = None
    if not usable:
        raise ValueError("expected http://host or https://host")
    return value.rstrip("/")


def _listen(value: str) -> str:
    host, _, port = value.rpartition(":")
    with suppress(UnicodeError):  # as the socket would encode it
        if host.encode("idna") and port.isdecimal() and 0 <= int(port) <= LAST_PORT:
            return value
    raise ValueError("expected host:port")


def _schema_name(value: str) -> str:
    if not is_schema_name(value):
        raise ValueError(EXPECTED_NAME)
    return value


def _credential(value: str) -> None:
    if len(value.splitlines()) > 1:
        raise ValueError("expected one line")


def _fernet_keys(value: str) -> None:
    if not all(FERNET_KEY.fullmatch(key) for key in _split(value)):
        raise ValueError(
            "expected Fernet keys, 32 bytes each in URL-safe base64, separated by commas"
        )


def _webhook_url(given: str) -> None:
    try:
        parts = urlsplit(given)
        usable = WEBHOOK_URL.fullmatch(given) and (parts.port or 1) and parts.hostname
        (parts.hostname or "").encode("idna")  # as the socket would encode it
    except ValueError:
        usable = None
    if not usable:
        raise ValueError("expected http://host/path or https://host/path, in ASCII")


def _webhook_secrets(value: str) -> None:
    secrets = _split(value)
    if not secrets or not all(map(_is_webhook_secret, secrets)):
        raise ValueError(
            "expected whsec_ and 24 to 64 bytes in base64, several such secrets separated by commas"
        )


def _is_webhook_secret(secret: str) -> bool:
    """Stricter than the library, which drops characters that are not base64."""
    text = secret.removeprefix(WEBHOOK_SECRET_PREFIX)
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        return False
    is_whole = text != secret and base64.b64encode(key).decode() == text
    return is_whole and len(key) in WEBHOOK_SECRET_BYTES


def split_keys(value: Secret | None) -> list[str]:
    """The keys of a comma-separated list, in its order."""
    return _split(value.get_secret_value()) if value else []


def _split(keys: str) -> list[str]:
    return [key.strip() for key in keys.split(",") if key.strip()]


LAST_PORT: Final = 65535
Limit = Annotated[int, Meta(ge=0, le=HIGHEST_LIMIT)]
Seconds = Annotated[float, Meta(gt=0, le=YEAR_SECONDS)]
SecondsOrZero = Annotated[float, Meta(ge=0, le=YEAR_SECONDS)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Environment variables `REFRESHER_*`, then `.env`, then files of secrets.

    The files lie in the folder of systemd's credentials or in /run/secrets.
    `read_settings` makes one.
    """

    database_url: Annotated[Secret, SecretText(_postgresql_url)]
    tiktok_base_url: Annotated[str, Text(_http_url)] = "https://open.tiktokapis.com"
    tiktok_client_key: Annotated[Secret | None, SecretText(_credential)] = None
    tiktok_client_secret: Annotated[Secret | None, SecretText(_credential)] = None
    token_management: Literal["managed", "external"] = "managed"  # noqa: S105 - a mode
    token_keys: Annotated[Secret | None, SecretText(_fernet_keys)] = None
    rate_limit_per_token: Limit = 600
    rate_limit_per_app: Limit = 0
    lead_seconds: SecondsOrZero = 3600
    spread_seconds: SecondsOrZero = 1800
    fallback_ttl_seconds: Seconds = 21600
    poll_seconds: Seconds = 5
    concurrency: Annotated[int, Meta(ge=1, le=10_000)] = 64
    request_timeout_seconds: Seconds = 10
    lease_seconds: Annotated[float, Meta(ge=1, le=86_400)] = 60
    shutdown_grace_seconds: SecondsOrZero = 20
    missing_limit: Annotated[int, Meta(ge=1, le=1000)] = 5
    notify_covers: bool = False
    http_listen: Annotated[str | None, Text(_listen)] = None
    webhook_url: Annotated[Secret | None, SecretText(_webhook_url)] = None
    webhook_secret: Annotated[Secret | None, SecretText(_webhook_secrets)] = None
    log_format: Literal["json", "console", "auto"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    probes_per_hour: Annotated[int, Meta(ge=0, le=3600)] = 6
    schema: Annotated[str, Text(_schema_name)] = USUAL_SCHEMA

    #: Names with our prefix that no setting has, in any of the sources, with the place in a file.
    ignored: tuple[str, ...] = ()

    @property
    def pace(self) -> Pace:
        """How fast requests may be sent, for the daemon and for the simulator alike."""
        return Pace(
            limit_per_token=self.rate_limit_per_token,
            limit_per_app=self.rate_limit_per_app,
            lease_seconds=lease_seconds(self.lease_seconds, self.request_timeout_seconds),
        )

    @property
    def due_policy(self) -> DuePolicy:
        """When a cover is asked for again."""
        return DuePolicy(
            lead=timedelta(seconds=self.lead_seconds),
            spread=timedelta(seconds=self.spread_seconds),
            fallback_ttl=timedelta(seconds=self.fallback_ttl_seconds),
            missing_limit=self.missing_limit,
        )

    @property
    def app_credentials(self) -> AppCredentials | None:
        """Client key and secret; None if they are not set."""
        key, secret = self.tiktok_client_key, self.tiktok_client_secret
        if key is None or secret is None:
            return None
        return AppCredentials(key.get_secret_value(), secret.get_secret_value())

    @property
    def webhook_target(self) -> Target | None:
        """Where webhooks go; None: nowhere."""
        if self.webhook_url is None:
            return None
        return Target(self.webhook_url.get_secret_value(), split_keys(self.webhook_secret))

    @property
    def renews_tokens(self) -> bool:
        """Whether we are to renew access tokens, and have the app credentials for it."""
        return self._is_managed and self.tiktok_client_key is not None

    @property
    def lacks_credentials(self) -> bool:
        """Whether we are to renew access tokens, and have no app credentials for it."""
        return self._is_managed and self.tiktok_client_key is None

    @property
    def _is_managed(self) -> bool:
        return self.token_management == "managed"  # noqa: S105 - a mode


#: Kinds of ours; msgspec reads the others.
OWN: Final = (Text, SecretText)


def _kind(annotation: Any) -> Kind | None:
    """What a field takes; None: it is no setting."""
    if get_origin(annotation) is Annotated and isinstance(said := get_args(annotation)[1], OWN):
        return said
    is_plain = annotation is bool or get_origin(annotation) in {Annotated, Literal}
    return Plain(annotation) if is_plain else None


#: What each setting takes, by its name without the prefix.
KINDS: Final[Mapping[str, Kind]] = {
    name: kind
    for name, annotation in get_type_hints(Settings, include_extras=True).items()
    if (kind := _kind(annotation))
}


def read_settings(**overrides: object) -> Settings:
    """The settings in force; `overrides` come first.

    Raises `SettingsError`, which names the variable, what was expected and what was given.
    """
    files = _read_files()
    given: dict[str, object] = {}
    for found in reversed(files):  # the last one wins
        given |= _fields(found)
    given |= {**_of_environment(), **overrides}
    # Empty counts as unset.
    settings = _checked({name: value for name, value in given.items() if value != ""}, files)
    if complaint := _contradiction(settings):
        raise SettingsError(complaint)
    return settings


def _checked(given: Mapping[str, object], files: Iterable[Found]) -> Settings:
    """Raises `SettingsError`."""
    values: dict[str, Any] = {}
    complaints = []
    if "database_url" not in given:  # the only one without a default
        complaints.append(f"{PREFIX}DATABASE_URL is not set: {EXPECTED_URL}")
    for name, kind in KINDS.items():
        if name not in given:
            continue
        try:
            values[name] = kind.read(given[name])
        except ValueError as error:
            complaints.append(_complaint(name, kind, given[name], error))
    if complaints:
        raise SettingsError("; ".join(complaints))
    return Settings(**values, ignored=_unknown(*files))


def _contradiction(settings: Settings) -> str | None:
    """What is wrong with several settings together."""
    if (settings.tiktok_client_key is None) != (settings.tiktok_client_secret is None):
        return (
            f"{PREFIX}TIKTOK_CLIENT_KEY, {PREFIX}TIKTOK_CLIENT_SECRET: expected both or neither"
            " of the two"
        )
    if settings.webhook_url and not settings.webhook_secret:
        return (
            f"{PREFIX}WEBHOOK_SECRET is not set: expected whsec_ and 24 to 64 bytes in base64,"
            f" as {PREFIX}WEBHOOK_URL is set"
        )
    return None


def _complaint(name: str, kind: Kind, given: object, error: ValueError) -> str:
    variable = PREFIX + name.upper()
    if isinstance(error, ConnectionStringError):
        return f"{variable}: {error}"  # it says itself what is wrong
    shown = "the value given" if isinstance(kind, SecretText) else repr(given)
    return f"{variable}: {error}, not {shown}"


def unknown_names() -> tuple[str, ...]:
    """What `Settings.ignored` would be, also where another setting is missing or wrong.

    If a file cannot be read, those of the environment alone.
    """
    try:
        return _unknown(*_read_files())
    except SettingsError:
        return _unknown()


def _read_files() -> list[Found]:
    """`.env` and the folders of secrets, in the order in which they count.

    Raises `SettingsError`.
    """
    credentials = os.environ.get(CREDENTIALS_VARIABLE)
    folders = [*([Path(credentials)] if credentials else []), SECRETS_FOLDER]
    try:
        return [
            read_env_file(ENV_FILE, _is_known, PREFIX),
            *(read_secrets(folder, _is_known, PREFIX) for folder in folders),
        ]
    except BadSettingFileError as error:
        raise SettingsError(str(error)) from None


def _unknown(*files: Found) -> tuple[str, ...]:
    return (*unknown_variables(os.environ), *(name for found in files for name in found.unknown))


def _fields(found: Found) -> dict[str, object]:
    """Values by field, without empty ones."""
    return {
        name.removeprefix(PREFIX).lower(): value for name, value in found.values.items() if value
    }


def _of_environment() -> dict[str, object]:
    """Values by field, without empty ones; the case of a variable's name does not matter."""
    return {
        name.upper().removeprefix(PREFIX).lower(): value
        for name, value in os.environ.items()
        if value and _is_known(name)
    }


def _is_known(variable: str) -> bool:
    name = variable.upper()
    return name.startswith(PREFIX) and name.removeprefix(PREFIX).lower() in KINDS


def unknown_variables(environment: Iterable[str]) -> list[str]:
    """Variables with our prefix that no setting reads: mistyped, or of another version."""
    return sorted(
        name for name in environment if name.upper().startswith(PREFIX) and not _is_known(name)
    )
