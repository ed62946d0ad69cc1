"""TLS as libpq's parameters ask for it: checks the files, and makes asyncpg's arguments."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

#: libpq's files, and their names in ~/.postgresql if the parameter names none.
FILES: Final = {
    "sslrootcert": "root.crt",
    "sslcrl": "root.crl",
    "sslcert": "postgresql.crt",
    "sslkey": "postgresql.key",
}
#: These show who the server is. Only the modes in `LOOKING` read them.
OF_THE_SERVER: Final = ("sslrootcert", "sslcrl")
LOOKING: Final = ("require", "verify-ca", "verify-full")
SYSTEM: Final = "system"
#: As libpq since version 17.
PROTOCOLS: Final = ("postgresql",)
#: asyncpg reads these as libpq does.
PARAMETERS: Final = (
    *FILES,
    *("sslmode", "sslpassword", "ssl_min_protocol_version", "ssl_max_protocol_version"),
)


class LocalFileError(Exception):
    """A file of this machine that TLS needs cannot be read, or is not what it should be."""


def tls_arguments(parameters: Mapping[str, str]) -> dict[str, Any]:
    """Arguments for asyncpg. Raises `LocalFileError`."""
    if parameters.get("sslmode") == "disable":
        return {"ssl": False}
    files = _files(parameters)
    direct = {"direct_tls": True} if parameters.get("sslnegotiation") == "direct" else {}
    if parameters.get("sslrootcert") == SYSTEM:
        return {"ssl": _context(ssl.create_default_context(), parameters, files), **direct}
    if files:
        _context(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), parameters, files)
    # In a URL, because asyncpg accepts them nowhere else. And only if it reads `prefer` itself, it
    # falls back to a connection without TLS.
    asked = {name: parameters[name] for name in PARAMETERS if parameters.get(name)}
    query = urlencode({"sslmode": "prefer", **asked}, quote_via=quote)
    return {"dsn": f"postgresql://?{query}", **direct}


def _files(parameters: Mapping[str, str]) -> dict[str, str]:
    """The files that exist. Raises `LocalFileError` for one that cannot be read."""
    mode = parameters.get("sslmode", "prefer")
    paths = {}
    for name, usual in FILES.items():
        named = parameters.get(name)
        if named == SYSTEM or (not named and name in OF_THE_SERVER and mode not in LOOKING):
            continue
        if not named and (name, parameters.get("sslrootcert")) == ("sslcrl", SYSTEM):
            continue
        needed = named or (name == "sslrootcert" and mode.startswith("verify"))
        try:
            path = named or str(Path.home() / ".postgresql" / usual)
            Path(path).open("rb").close()
        except (FileNotFoundError, NotADirectoryError) as error:
            if needed:
                raise _unreadable(name, error.filename, error.strerror) from None
        except OSError as error:
            raise _unreadable(name, error.filename, error.strerror) from None
        except RuntimeError:  # no home at all
            if needed:
                raise _unreadable(name, f"~/.postgresql/{usual}", "no home folder") from None
        else:
            paths[name] = path
    return paths


def _unreadable(name: str, path: object, reason: object) -> LocalFileError:
    return LocalFileError(f"expected {name} to be a file that can be read: {path}: {reason}")


def _context(
    context: ssl.SSLContext, parameters: Mapping[str, str], files: Mapping[str, str]
) -> ssl.SSLContext:
    """The context with every file read, so that a wrong file fails before anything is sent."""
    context.set_alpn_protocols(PROTOCOLS)
    for name in OF_THE_SERVER:
        if path := files.get(name):
            _read(name, path, lambda path=path: context.load_verify_locations(cafile=path))
    if path := files.get("sslcert"):
        key, password = files.get("sslkey"), parameters.get("sslpassword", "")
        _read("sslcert", path, lambda: context.load_cert_chain(path, key, lambda: password))
    for name, attribute in (
        ("ssl_min_protocol_version", "minimum_version"),
        ("ssl_max_protocol_version", "maximum_version"),
    ):
        if version := parameters.get(name):
            setattr(context, attribute, ssl.TLSVersion[version.replace(".", "_")])
    return context


def _read(name: str, path: str, read: Any) -> None:
    try:
        read()
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or "not in PEM"
        raise LocalFileError(
            f"expected {name} to hold what belongs there in PEM, with its key: {path}: {reason}"
        ) from None
