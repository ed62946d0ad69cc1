"""Settings in `.env` and in files of secrets."""

import os
import sys
from pathlib import Path
from pwd import getpwnam

import pytest

from refresher import cli, settings
from refresher.settings import SettingsError, read_settings

URL = "postgresql://refresher@db:5432/refresher"
SECRET = "REFRESHER_TIKTOK_CLIENT_SECRET"
QUOTE_IT = "expected single quotes around the value, as in NAME='...'"


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """No setting but the database and a client key, an empty folder of secrets and no `.env`."""
    for field in settings.KINDS:
        monkeypatch.delenv(f"REFRESHER_{field.upper()}", raising=False)
    monkeypatch.setenv("REFRESHER_DATABASE_URL", URL)
    monkeypatch.setenv("REFRESHER_TIKTOK_CLIENT_KEY", "key")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setattr(settings, "SECRETS_FOLDER", tmp_path / "secrets")
    (tmp_path / "secrets").mkdir()
    monkeypatch.chdir(tmp_path)


def client_secret():
    value = read_settings().tiktok_client_secret
    return value and value.get_secret_value()


def complaint():
    with pytest.raises(SettingsError) as raised:
        read_settings()
    return str(raised.value)


# --- .env ---

#: What `docker compose config` 2.26.1 and 2.40.3 make of the value of the line NAME=..., where we
#: do the same.
AS_COMPOSE = [
    ("plain", "plain"),
    ("p@ss:w/ord?=x&y", "p@ss:w/ord?=x&y"),
    ("a=b", "a=b"),
    ("=a", "=a"),
    ("a;", "a;"),
    ("a!b%c`ls`", "a!b%c`ls`"),
    ("café", "café"),
    ("  a  ", "a"),
    ("\ta\t", "a"),
    ("a\u00a0", "a"),
    ("a#b", "a#b"),
    ("#b", "#b"),
    ("a #b", "a"),
    ("a # b # c", "a"),
    ("a\t#b", "a\t#b"),
    ("a'b", "a'b"),
    ('a"b', 'a"b'),
    ("a\\nb", "a\\nb"),
    ("a\\\\b", "a\\\\b"),
    ("\\", "\\"),
    ("'${HOME}'", "${HOME}"),
    ("'$HOME'", "$HOME"),
    ("'a${b'", "a${b"),
    ("'a$$b'", "a$$b"),
    ("'a\\$b'", "a\\$b"),
    ("'a #b'", "a #b"),
    ("'a' #c", "a"),
    ("'a'#c", "a"),
    ("'a'\t#c", "a"),
    ("'a'  ", "a"),
    ("'it\\'s'", "it's"),
    ("'a\\nb'", "a\\nb"),
    ("'a\\\\b'", "a\\\\b"),
    ("'a\\\\'", "a\\\\"),
    ("'say \"x\"'", 'say "x"'),
    ('"a #b"', "a #b"),
    ('"a" # it\'s', "a"),
    ('"it\'s"', "it's"),
    ('"a\\tb"', "a\tb"),
    ('"a\\\\b"', "a\\b"),
    ('"a\\\\n"', "a\\n"),
    ('"a\\\\"', "a\\"),
    ('"a\\"b"', 'a"b'),
    ('"a\\\\\\"b"', 'a\\"b'),
    ('"a\\$b"', "a$b"),
    ('"a\\${b}"', "a${b}"),
    ("", None),
    (" ", None),
    ("''", None),
    ('""', None),
]

#: Where compose replaces something, refuses the file, or reads what nobody would expect.
REFUSED = [
    ("${HOME}", QUOTE_IT),
    ("a$b", QUOTE_IT),
    ("a$$b", QUOTE_IT),
    ("a${b", QUOTE_IT),
    ("a${b:-c}d", QUOTE_IT),
    ("a\\$b", QUOTE_IT),
    ("a$", QUOTE_IT),
    ('"${HOME}"', QUOTE_IT),
    ('"a$b"', QUOTE_IT),
    ('"a$$b"', QUOTE_IT),
    ('"a\\$$b"', QUOTE_IT),
    ('"a\\\\$b"', QUOTE_IT),
    ('"\\x"', QUOTE_IT),
    ('"a\\\'b"', QUOTE_IT),
    (" #b", QUOTE_IT),
    ("a\rb", QUOTE_IT),
    ("'a", "expected a closing '"),
    ('"a', 'expected a closing "'),
    ("'\\'", "expected a closing '"),
    ("'a'b", "expected nothing but a comment after the closing quote"),
    ('"a" b', "expected nothing but a comment after the closing quote"),
    ("'a';", "expected nothing but a comment after the closing quote"),
    ('"a\\nb"', None),
    ("'a\nb'", None),
]


@pytest.mark.parametrize(("written", "value"), AS_COMPOSE, ids=repr)
def test_a_value_is_what_docker_compose_reads(tmp_path, monkeypatch, written, value):
    """Whatever stands around it: at the end of the file, before CRLF, between other lines."""
    monkeypatch.setenv("HOME", "/replaced")
    if value is None:
        monkeypatch.delenv("REFRESHER_TIKTOK_CLIENT_KEY")
    for text in (
        f"{SECRET}={written}",
        f"\ufeff\n# it's a $comment\n{SECRET}={written}\r\nOTHER='two\r\nlines'\r\n",
        f"A=${{B}}\nnot a line of ours\n  export {SECRET}={written}\nB=it's\n",
    ):
        (tmp_path / ".env").write_text(text, encoding="utf-8", newline="")
        assert client_secret() == value


@pytest.mark.parametrize(("written", "expected"), REFUSED, ids=repr)
def test_a_value_that_would_be_another_one_elsewhere_is_refused(tmp_path, written, expected):
    """With its line and name, not its value."""
    (tmp_path / ".env").write_text(f"A=1\n{SECRET}={written}\n", newline="")
    said = complaint()
    if expected is None:  # read as compose reads it, and no credential has two lines
        assert said == f"{SECRET}: expected one line, not the value given"
    else:
        assert said == f".env:2: {SECRET}: {expected}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{SECRET}\n", f".env:1: {SECRET}: expected NAME=value"),
        ("REFRESHER_LEED_SECONDS  \n", ".env:1: REFRESHER_LEED_SECONDS: expected NAME=value"),
        (f"{SECRET} x\n", f".env:1: {SECRET}: expected NAME=value"),
        (f"\nexport {SECRET} x\n", f".env:2: {SECRET}: expected NAME=value"),
        (f"{SECRET}-=x\n", None),
        (f"A='forgotten\n{SECRET}=it's\n", ".env:1: expected a closing quote in the same line"),
        ("A='forgotten\nB=2\n", ".env:1: expected a closing quote in the same line"),
        ('A="forgotten\nB=2\n', None),
        ("=b\n$x=1\n-----\n<<<<\n", None),
        (f"#{SECRET}='\n", None),
    ],
)
def test_only_lines_of_ours_are_held_to_it(tmp_path, text, said):
    """Another program's lines are no concern, as long as they swallow none of ours."""
    (tmp_path / ".env").write_text(
        text + "REFRESHER_POLL_SECONDS=7\nREFRESHER_TIKTOK_CLIENT_SECRET='x'"
    )
    if said:
        assert complaint() == said
    else:
        read = read_settings()
        assert (read.poll_seconds, read.tiktok_client_secret.get_secret_value()) == (7, "x")


def test_the_last_of_two_lines_counts(tmp_path):
    """As for compose."""
    (tmp_path / ".env").write_text(f"{SECRET}=a\n{SECRET}: b\n")
    assert client_secret() == "b"


def test_an_env_file_that_is_a_folder_is_passed_over_and_said(tmp_path, monkeypatch):
    """Some name their virtual environment so; Docker makes one where a file to mount is missing."""
    monkeypatch.delenv("REFRESHER_TIKTOK_CLIENT_KEY")
    (tmp_path / ".env").mkdir()
    assert read_settings().ignored == (".env (a folder)",)


@pytest.mark.parametrize("text", [b"\xff\xfeA\x00", b"A=\xe9\n", b"A\x00=\x00"])
def test_an_env_file_in_another_encoding_is_named(tmp_path, text):
    """UTF-16 as Windows writes it, Latin-1."""
    (tmp_path / ".env").write_bytes(text)
    assert complaint().startswith(".env: expected text in UTF-8")


# --- Names that no setting has ---


def test_mistyped_names_are_found_in_every_source(tmp_path, monkeypatch):
    """With the place where it is not the environment."""
    monkeypatch.delenv("REFRESHER_TIKTOK_CLIENT_KEY")
    monkeypatch.setenv("REFRESHER_LEED_SECONDS", "1")
    (tmp_path / ".env").write_text("REFRESHER_LEAD_SECONDS=5\nexport REFRESHER_POLL='x'\nPOLL=1\n")
    (tmp_path / "secrets" / "refresher_token_key").write_text("x")
    (tmp_path / "secrets" / "refresher_token_keys.txt").write_text("x")
    (tmp_path / "secrets" / "another").write_text("x")
    assert read_settings().ignored == (
        "REFRESHER_LEED_SECONDS",
        "REFRESHER_POLL (.env:2)",
        str(tmp_path / "secrets" / "refresher_token_key"),
        str(tmp_path / "secrets" / "refresher_token_keys.txt"),
    )


# --- Files of secrets ---


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"s3cret\n", "s3cret"),
        (b"s3cret", "s3cret"),
        (b" s3cret \t\r\n\n", "s3cret"),
        (b"\xef\xbb\xbfs3cret\n", "s3cret"),
        (b"'${x}'$y #z\n", "'${x}'$y #z"),
    ],
)
def test_a_secret_is_all_of_its_file_but_white_space_around(tmp_path, content, value):
    """Nothing in it is replaced, no quote and no # means anything."""
    (tmp_path / "secrets" / SECRET.lower()).write_bytes(content)
    assert client_secret() == value


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda file: file.mkdir(), "expected a file, not a folder"),
        (lambda file: file.symlink_to("nowhere"), "No such file or directory"),
        (lambda file: file.symlink_to(file.name), "Too many levels of symbolic links"),
        (os.mkfifo, "expected a file, not something else"),
        (lambda file: file.write_bytes(b"\xff\xfes\x00"), "expected text in UTF-8"),
        (lambda file: file.write_bytes(b"s\x00e\x00"), "expected text in UTF-8, without NUL"),
    ],
    ids=["folder", "dangling", "loop", "fifo", "utf-16", "nul"],
)
def test_a_secret_that_cannot_be_read_is_named_with_its_reason(tmp_path, make, reason):
    """Also where a nearer source has the value: it is meant to be there."""
    file = tmp_path / "secrets" / "refresher_database_url"
    make(file)
    assert complaint() == f"{file}: {reason}"


def test_a_secret_may_be_a_link(tmp_path):
    """As Kubernetes mounts them."""
    (tmp_path / "elsewhere").write_text("s3cret\n")
    (tmp_path / "secrets" / SECRET.lower()).symlink_to(tmp_path / "elsewhere")
    assert client_secret() == "s3cret"


@pytest.mark.parametrize(
    ("credential", "secret", "value"),
    [("a", "b", "a"), (None, "b", "b"), ("", "b", "b"), ("a", None, "a")],
)
def test_a_credential_of_systemd_comes_before_a_file_of_secrets(
    tmp_path, monkeypatch, credential, secret, value
):
    """In the folder that systemd names, under the same names. Other credentials are not ours."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    (folder / "another").write_text("x")
    (folder / "refresher_token_key").write_text("x")
    for place, content in ((folder, credential), (tmp_path / "secrets", secret)):
        if content is not None:
            (place / SECRET.lower()).write_text(content)
    assert client_secret() == value
    assert read_settings().ignored == (str(folder / "refresher_token_key"),)


def test_an_environment_without_credentials_has_no_folder_of_them(tmp_path, monkeypatch):
    """An empty name is not the current folder."""
    (tmp_path / SECRET.lower()).write_text("x")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "")
    monkeypatch.delenv("REFRESHER_TIKTOK_CLIENT_KEY")
    assert client_secret() is None


@pytest.fixture
def without_rights(tmp_path):
    """Root may read all: then as nobody."""
    tmp_path.chmod(0o755)
    if os.geteuid():
        yield
        return
    os.seteuid(getpwnam("nobody").pw_uid)
    yield
    os.seteuid(0)


@pytest.mark.parametrize(
    ("locked", "said"),
    [
        ("secrets/refresher_token_keys", "secrets/refresher_token_keys: Permission denied"),
        ("secrets", "secrets: Permission denied"),
        (".env", ".env: Permission denied"),
    ],
)
def test_without_the_right_to_read_a_file_it_is_named(monkeypatch, tmp_path, request, locked, said):
    """With the reason, and not taken for a value that is not set."""
    monkeypatch.setattr(settings, "SECRETS_FOLDER", Path("secrets"))
    (tmp_path / "secrets" / "refresher_token_keys").write_text("x")
    (tmp_path / ".env").write_text("")
    (tmp_path / locked).chmod(0)
    request.getfixturevalue("without_rights")
    assert complaint() == said


def test_the_command_line_says_it_in_one_line(tmp_path, monkeypatch, capfd):
    """Exit 2; a variable's name is shown, its value is not."""
    (tmp_path / ".env").write_text(f"{SECRET}=hu$h\n")
    monkeypatch.setattr(sys, "argv", ["refresher", "status"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, *capfd.readouterr()) == (
        2,
        "",
        f"refresher: .env:1: {SECRET}: {QUOTE_IT}\n",
    )
    (tmp_path / ".env").unlink()
    (tmp_path / "secrets" / "refresher_token_keys").mkdir()
    with pytest.raises(SystemExit):
        cli.main()
    assert capfd.readouterr().err == (
        f"refresher: {tmp_path}/secrets/refresher_token_keys: expected a file, not a folder\n"
    )
