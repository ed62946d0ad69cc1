"""What people paste out of spreadsheets and databases, through the real import into PostgreSQL."""

import re
from datetime import UTC, datetime, timedelta

import hypothesis
import hypothesis.strategies as st
import pytest

from refresher.csv_files.complaints import BadFileError, Doubts
from refresher.csv_files.rows import read_accounts, read_videos
from refresher.logs import redacted_text
from refresher.postgres.imports import NothingToImportError, import_accounts, import_videos
from tests.conftest import check_output, environment

ID, OTHER = "7077642457847994444", "7077642457847994445"
BOTH = [("ana", ID), ("ana", OTHER)]
NO_BREAK, NARROW, ZERO_WIDTH, MARK = "\u00a0", "\u202f", "\u200b", "\ufeff"


def videos(text):
    return f"open_id,video_id\n{text}"


def accounts(text):
    return f"open_id,access_token,access_token_expires_at,refresh_token\n{text}"


@pytest.fixture
def file(tmp_path):
    def write(content):
        path = tmp_path / "rows.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


# --- Videos ---


@pytest.mark.parametrize(
    "content",
    {
        "comma": f"open_id,video_id\nana,{ID}\nana,{OTHER}\n",
        "semicolon": f"open_id;video_id\nana;{ID}\nana;{OTHER}\n",
        "tab": f"open_id\tvideo_id\nana\t{ID}\nana\t{OTHER}\n",
        "quoted semicolons": f'"open_id";"video_id"\n"ana";"{ID}"\n"ana";"{OTHER}"\n',
        "sep=;": f"sep=;\nopen_id;video_id\nana;{ID}\nana;{OTHER}\n",
        "sep=,": f"sep=,\r\nopen_id,video_id\r\nana,{ID}\r\nana,{OTHER}\r\n",
        '"sep=tab"': f'"sep=\t"\nopen_id\tvideo_id\nana\t{ID}\nana\t{OTHER}\n',
        "UTF-16, little end first": b"\xff\xfe"
        + f"open_id\tvideo_id\r\nana\t{ID}\r\nana\t{OTHER}\r\n".encode("utf-16-le"),
        "UTF-16, big end first": b"\xfe\xff"
        + f"open_id,video_id\nana,{ID}\nana,{OTHER}\n".encode("utf-16-be"),
        "byte order mark and sep=": f"{MARK}sep=;\nopen_id;video_id\nana;{ID}\nana;{OTHER}\n",
        "line ends of old Macs": f"open_id,video_id\rana,{ID}\rana,{OTHER}\r",
        "blanks": f" open_id , video_id\n ana, {ID}\nana ,{OTHER} \n",
        "blank before quotes": f'open_id, "video_id"\nana, "{ID}"\nana, "{OTHER}"\n',
        "no-break blanks": f"open_id{NO_BREAK},video_id\n{NO_BREAK}ana,{ID}{NO_BREAK}\n"
        f"ana,{NARROW}{OTHER}\n",
        "characters of no width": f"open_id,{ZERO_WIDTH}video_id\nana{MARK},{ID}\n"
        f"ana,{OTHER}{ZERO_WIDTH}\n",
        "capitals": f"Open_ID,VIDEO_ID\nana,{ID}\nana,{OTHER}\n",
        "empty columns in the header": f"open_id,video_id,,\nana,{ID}\nana,{OTHER},,\n",
        "empty columns in rows": f"open_id,video_id\nana,{ID},\nana,{OTHER},, ,\n",
        "rows of separators": f"open_id,video_id\n,\nana,{ID}\n,,,\nana,{OTHER}\n , \n,\n",
        "empty lines before the header": f"\n,,\nopen_id,video_id\nana,{ID}\nana,{OTHER}\n",
        "columns the other way round": f"video_id;open_id\n{ID};ana\n{OTHER};ana\n",
        '="…"': f'open_id,video_id\n="ana",="{ID}"\nana,"=""{OTHER}"""\n',
        "apostrophe": f"open_id,video_id\n'ana,'{ID}\nana,'{OTHER}'\n",
        "typographic quotes": f"open_id,video_id\n“ana”,„{ID}“\nana,‘{OTHER}’\n",  # noqa: RUF001
        ".0": f"open_id,video_id\nana,{ID}.0\nana,{OTHER}.00\n",
        ",0": f'open_id,video_id\nana,"{ID},0"\nana,{OTHER}\n',
        r"\N": f"open_id,video_id,cover_image_url\nana,{ID},\\N\nana,{OTHER},\n",
    }.items(),
    ids=lambda case: case[0],
)
async def test_read_as_it_is_meant(file, pool, content):
    """Without a word: nothing is lost, and there is one reading only."""
    await pool.execute("INSERT INTO refresher.accounts (open_id) VALUES ('ana')")
    said = []
    rows = read_videos(file(content[1]), datetime.now(UTC), doubts=Doubts(mention=said.append))
    await import_videos(pool, rows, due_at=lambda _: None)
    stored = await pool.fetch(
        "SELECT open_id, video_id FROM refresher.videos WHERE cover_image_url IS NULL"
        " ORDER BY video_id"
    )
    assert (list(map(tuple, stored)), said) == (BOTH, [])


ROUNDED = "looks rounded by a spreadsheet"


@pytest.mark.parametrize(
    ("content", "doubt"),
    [
        (
            f"open_id,title,video_id\nana,A dance,{ID}\n",
            ":1: no column of open_id,video_id,cover_image_url, ignored: 'title'",
        ),
        (
            f"open_id,,video_id,Likes\nana,x,{ID},4\n",
            ":1: no column of open_id,video_id,cover_image_url, ignored: '', 'Likes'",
        ),
        (
            videos("ana,1\nana,7077640000000000000\nana,7077650000000000000\n"),
            f":3: video_id: 7077640000000000000 {ROUNDED} (2 in all)",
        ),
        # Fifteen digits are kept: of one with nineteen the last four become zeros.
        (
            videos("ana,7077642457847990000\nana,1\n"),
            f":2: video_id: 7077642457847990000 {ROUNDED} (1 in all)",
        ),
        # What is left of an ID that was a float for a while.
        (
            videos("ana,7077642457847994368.0\n"),
            f":2: video_id: 7077642457847994368 {ROUNDED} (1 in all)",
        ),
    ],
    ids=["title", "two others", "five zeros", "four zeros", "a float"],
)
async def test_warned_of_or_refused(file, pool, content, doubt):
    """It is imported, with one warning that names count and line; with strict nothing is."""
    await pool.execute("INSERT INTO refresher.accounts (open_id) VALUES ('ana')")
    path, said = file(content), []

    async def done(doubts):
        rows = read_videos(path, datetime.now(UTC), doubts=doubts)
        return await import_videos(pool, rows, due_at=lambda _: None)

    with pytest.raises(BadFileError) as raised:
        await done(Doubts(strict=True))
    assert str(raised.value).startswith(f"{path}{doubt}")
    assert await pool.fetchval("SELECT count(*) FROM refresher.videos") == 0
    imported = await done(Doubts(mention=said.append))
    assert imported.stored == content.count("\n") - 1
    assert (len(said), said[0].startswith(f"{path}{doubt}")) == (1, True)


async def test_ids_that_end_in_zeros_by_chance_are_not_doubted(file, pool):
    """One in 10,000 in four, one in 100,000 in five; as many as a spreadsheet brings are."""
    await pool.execute("INSERT INTO refresher.accounts (open_id) VALUES ('ana')")
    for step, zeros, doubts in ((10_000, 9, 0), (100_000, 1, 0), (100_000, 2, 1), (10_000, 20, 1)):
        ids = [7_077_642_457_840_010_000 // step * step + step * n for n in range(zeros)]
        ids += [7_077_642_457_000_000_001 + 10 * n for n in range(1_000)]
        path, said = file(videos("".join(f"ana,{video_id}\n" for video_id in ids))), []
        rows = read_videos(path, datetime.now(UTC), doubts=Doubts(mention=said.append))
        await import_videos(pool, rows, due_at=lambda _: None)
        assert len(said) == doubts


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (videos("ana,7.07764E+18\n"), ":2: video_id: expected 1 to 20 digits, not '7.07764E+18'"),
        (videos('ana,"7,07764E+18"\n'), ":2: video_id: expected 1 to 20 digits, not '7,07764E+18'"),
        (videos(f"#NAME?,{ID}\n"), ":2: open_id: expected a value, not '#NAME?', which a"),
        (videos("ana,#REF!\n"), ":2: video_id: expected a value, not '#REF!', which a"),
        (videos("ana,########\n"), ":2: video_id: expected a value, not '########', which a"),
        (videos("ana,=A1+1\n"), ":2: video_id: expected a value, not a formula"),
        (videos(f"=-000abc,{ID}\n"), ":2: open_id: expected a value, not a formula"),
        (videos(f"ana,{ID}.5\n"), f":2: video_id: expected 1 to 20 digits, not '{ID}.5'"),
        (videos("\\N,1\n"), ":2: open_id: expected 1 to 200 characters, not ''"),
        (videos(f"act.hush,{ID}\n"), ":2: open_id: expected an open_id, not a token"),
        (videos("ana,Bearer hush\n"), ":2: video_id: expected 1 to 20 digits, not a token"),
        (
            "open_id,title,video_id,Video_ID\nana,x,1,1\n",
            ":1: expected the columns open_id,video_id",
        ),
        ("sep=|\nopen_id|video_id\n", ":1: expected sep= and a comma, a semicolon or a tab, not"),
        (
            "open_id,video_id\n".encode("utf-16-le"),
            ": expected text in UTF-8, or in UTF-16 with a byte order mark",
        ),
        (b"\xff\xfe" + b"o\x00" * 4 + b"p", ": expected text in UTF-16"),
        (b"PK\x03\x04\x14\x00", ": expected CSV, not a workbook: save it as CSV UTF-8"),
    ],
    ids=ascii,
)
async def test_refused_with_the_reason(file, pool, content, complaint):
    """What a spreadsheet has destroyed is not guessed at."""
    await pool.execute("INSERT INTO refresher.accounts (open_id) VALUES ('ana')")
    path = file(content)
    with pytest.raises(BadFileError) as raised:
        await import_videos(pool, read_videos(path, datetime.now(UTC)), due_at=lambda _: None)
    assert str(raised.value).startswith(f"{path}{complaint}")
    assert await pool.fetchval("SELECT count(*) FROM refresher.videos") == 0


# --- Accounts ---

NOON = datetime(2026, 11, 28, 16, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-28T16:00:00Z", NOON),
        ("2026-11-28 16:00", NOON),
        ("2026-11-28 16:00:00.000+00", NOON),
        ("2026-11-28 17:00:00 +0100", NOON),
        ("2026-11-28 16:00:00 UTC", NOON),
        ("20261128T160000Z", NOON),
        ("2026-11-28", NOON.replace(hour=0)),
        ("20261128", NOON.replace(hour=0)),
        ("2026/11/28 16:00", NOON),
        ("28.11.2026 16:00", NOON),
        ("28.11.2026, 16:00:00", NOON),
        ("28/11/2026 16:00", NOON),
        ("11/28/2026 4:00 PM", NOON),
        ("11/28/2026 12:00 AM", NOON.replace(hour=0)),
        ("11/11/2026", datetime(2026, 11, 11, tzinfo=UTC)),
        ("Sat, 28 Nov 2026 16:00:00 GMT", NOON),
        (str(int(NOON.timestamp())), NOON),
        (f"{int(NOON.timestamp())}.0", NOON),
        (f"{int(NOON.timestamp())}123", NOON + timedelta(milliseconds=123)),
        (f"{int(NOON.timestamp())}000123", NOON + timedelta(microseconds=123)),
        ("1796000000123", datetime(2026, 11, 30, 0, 53, 20, 123_000, UTC)),
        ('="2026-11-28 16:00"', NOON),
        ("", None),
        ("\\N", None),
    ],
)
async def test_times(file, pool, text, moment):
    """As databases, spreadsheets and programs write them; without a zone UTC is meant."""
    quoted = '"' + text.replace('"', '""') + '"'
    path = file(accounts(f"ana,act.one,{quoted},rft.one\n"))
    await import_accounts(pool, read_accounts(path))
    stored = await pool.fetchval("SELECT access_token_expires_at FROM refresher.accounts")
    assert stored == moment


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("11/12/2026 16:00", ": day and month could be either"),
        ("1-2-2026", ": day and month could be either"),
        ("28.11.26 16:00", ": a year has four digits"),
        ("179600000012", ": since 1970 it is 10 digits of seconds, 13 of milliseconds"),
        ("202611281600", ": since 1970 it is 10 digits of seconds, 13 of milliseconds"),
        ("46354.6666", ""),
        ("31.02.2026", ""),
        ("2026-11-28116:00", ""),
        ("9999-12-31 23:59:59-05", ""),
        ("28 Nov", ""),
    ],
)
async def test_times_of_two_readings_are_refused(file, text, reason):
    """So is what is no time; the reason is given where there is one to give."""
    path = file(accounts(f"ana,act.one,{text},rft.one\n"))
    with pytest.raises(BadFileError) as raised:
        list(read_accounts(path))
    assert str(raised.value) == (
        f"{path}:2: access_token_expires_at: expected an ISO 8601 time, not {text!r}{reason}"
    )


@pytest.mark.parametrize(
    "row",
    [
        "ana,act.one,,rft.one",
        "ana,Bearer act.one,,bearer  rft.one",
        f"ana,{NO_BREAK}act.one ,,'rft.one'",
        'ana,"""act.one""",,“rft.one”',
        'ana,="act.one",,\'rft.one',
        'ana,Bearer "act.one",, "Bearer rft.one"',
    ],
)
async def test_tokens_out_of_whatever_was_around_them(file, pool, row):
    """Quotes, blanks, and the word that stands before a token in a header line."""
    path = file(accounts(f"{row}\n"))
    await import_accounts(pool, read_accounts(path))
    stored = await pool.fetchrow("SELECT access_token, refresh_token FROM refresher.accounts")
    assert tuple(stored) == ("act.one", "rft.one")


EXCHANGED = "are the two columns exchanged?"


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (
            "ana,rft.hush,,act.hush",
            "expected an access token in column access_token, not a refresh token: " + EXCHANGED,
        ),
        (
            "ana,act.hush,,act.hush",
            "expected a refresh token in column refresh_token, not an access token: " + EXCHANGED,
        ),
        ("ana,=hush(),,", "expected a value, not a formula (column access_token)"),
        (
            "ana,\\N,,rft.hush",
            "expected a token in column access_token, not an empty or unprintable value",
        ),
        ("ana,act.x,rft.hush,", "access_token_expires_at: expected an ISO 8601 time, not a token"),
        (
            "ana,Bearer Bearer act.hush hush,,",
            "expected a token in column access_token, not an empty or unprintable value",
        ),
    ],
)
async def test_a_bad_token_is_not_shown(file, row, complaint):
    """Neither in its own column nor in another one."""
    path = file(accounts(f"{row}\n"))
    with pytest.raises(BadFileError) as raised:
        list(read_accounts(path))
    assert str(raised.value) == f"{path}:2: {complaint}"
    assert "hush" not in str(raised.value)


# --- Whatever comes ---

PIECES = st.sampled_from(
    ["open_id", "video_id", "access_token", "refresh_token", "access_token_expires_at", "title",
     ",", ",", ";", "\t", "\n", "\n", "\r", '"', "'", "=", '="', "sep=;", "#NAME?", "\\N", "Bearer ",
     "act.hush", "rft.hush", "-000", ID, "7.07E+18", ".0", "00000", "1796000000", "11/12/2026", " ",
     NO_BREAK, MARK, "\0", "é", "\U0001d7d9", "٣"]
)  # fmt: skip


@hypothesis.given(
    pieces=st.lists(PIECES, max_size=40),
    header=st.sampled_from(["", videos(""), accounts(""), "video_id;open_id;\n"]),
    encoding=st.sampled_from(["utf-8", "utf-16", "utf-16-le", "latin-1"]),
    cut=st.integers(0, 2),
)
@hypothesis.settings(
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], max_examples=300
)
def test_nothing_that_is_no_file_of_ours_ends_otherwise(file, pieces, header, encoding, cut):
    """Rows that a database takes, or a complaint that shows no token."""
    content = (header + "".join(pieces)).encode(encoding, "replace")
    path = file(content[: len(content) - cut])
    for read in (lambda: read_accounts(path), lambda: read_videos(path, NOON)):
        complaint = ""
        try:
            for row in read():
                assert row.open_id
                assert row.open_id.isprintable()
        except BadFileError as error:
            complaint = str(error)
        assert "hush" not in redacted_text(complaint)


def test_a_long_cell_comes_to_an_end(file):
    """No pattern tries every way through it: with that these would take for ever."""
    for long in (" ", "1", "=", "#", "'", "Bearer ", "1.", "0"):
        cell = f"2026-11-28 16:00{long * (130_000 // len(long))}x"
        path = file(accounts(f"{cell},{cell},{cell},{cell}\n"))
        with pytest.raises(BadFileError):
            list(read_accounts(path))


# --- The commands ---


@pytest.fixture
def refresher(database, tmp_path, launcher):
    """Run a command to its end with this standard input; (exit code, stdout, stderr)."""

    async def run(*command, given=b""):
        code, out, err = await launcher.run(
            *command, environment=environment(database), folder=tmp_path, given=given
        )
        check_output(out + err)
        return code, out, err

    return run


async def test_all_wrong_lines_are_named(refresher, file, pool):
    """The first twenty, each in a line of its own, then how many more; nothing is written."""
    rows = "".join(f"ana,{'x' if n % 2 else ''}{n}\n" for n in range(2, 60))
    path = file(videos(rows))
    await pool.execute("INSERT INTO refresher.accounts (open_id) VALUES ('ana')")
    code, out, err = await refresher("videos", "import", str(path))
    lines = err.splitlines()
    assert (code, out, len(lines)) == (2, "", 21)
    named = [re.match(rf"refresher: {re.escape(str(path))}:(\d+): video_id: ", x) for x in lines]
    assert [int(found[1]) for found in named[:20]] == list(range(3, 43, 2))
    assert lines[20] == "refresher: wrong lines beside these: 9"
    assert await pool.fetchval("SELECT count(*) FROM refresher.videos") == 0


@pytest.mark.parametrize(
    ("kind", "row", "complaint"),
    [
        ("videos", "bob{n},1", "open_id: expected a known account, not 'bob0'"),
        ("videos", "ana,{n}\nana,{n}", "open_id,video_id: expected each once (first in line 2)"),
        ("accounts", "b{n},act.x\nb{n},act.x", "open_id: expected each once (first in line 2)"),
    ],
)
async def test_so_are_those_that_only_the_database_finds(
    refresher, file, pool, kind, row, complaint
):
    """Unknown accounts and rows that come twice."""
    await pool.execute("INSERT INTO refresher.accounts (open_id) VALUES ('ana')")
    second = "video_id" if kind == "videos" else "access_token"
    rows = "\n".join(row.format(n=n) for n in range(23))
    path = file(f"open_id,{second}\n{rows}\n")
    code, out, err = await refresher(kind, "import", str(path))
    lines = err.splitlines()
    assert (code, out, len(lines)) == (2, "", 21)
    assert f": {complaint}" in lines[0]
    assert lines[20] == "refresher: wrong lines beside these: 3"


async def test_a_dry_run_checks_and_tells_and_writes_nothing(refresher, file, pool):
    """Also what only the database knows: unknown accounts, known videos, newer tokens."""
    new = file(accounts("ana,act.one,2026-11-28 16:00,rft.one\nben,act.two,,\n"))
    told = "2 accounts would be added or re-authorized\n"
    assert await refresher("accounts", "import", "--dry-run", str(new)) == (0, told, "")
    assert await pool.fetchval("SELECT count(*) FROM refresher.accounts") == 0
    await refresher("accounts", "import", str(new))
    await pool.execute("INSERT INTO refresher.videos (open_id, video_id) VALUES ('ana', '1')")
    before = await pool.fetch("SELECT a, xmin FROM refresher.accounts AS a ORDER BY open_id")
    old = file(accounts("ana,act.old,2026-11-27 16:00,rft.old\ncid,act.three,,\n"))
    told = "1 account would be added or re-authorized, 1 left alone: the stored tokens are newer\n"
    assert await refresher("accounts", "import", "--dry-run", str(old)) == (0, told, "")
    told = "2 videos would be added, 1 known already\n"
    path = file(videos("ana,1\nana,2\nben,1\n"))
    assert await refresher("videos", "import", "--dry-run", str(path)) == (0, told, "")
    code, _, err = await refresher("videos", "import", "--dry-run", str(file(videos("bob,1\n"))))
    assert (code, "expected a known account, not 'bob'" in err) == (2, True)
    assert await pool.fetchval("SELECT count(*) FROM refresher.videos") == 1
    assert (
        await pool.fetch("SELECT a, xmin FROM refresher.accounts AS a ORDER BY open_id") == before
    )


async def test_from_standard_input(refresher, pool):
    """So the file of tokens need be readable to its owner only; complaints name the input."""
    given = accounts("ana,act.one,,rft.one\n").encode()
    code, out, err = await refresher("accounts", "import", "-", given=given)
    assert (code, out, err) == (0, "1 account added or re-authorized\n", "")
    given = b"\xff\xfe" + videos(f"ana;{ID}\n").replace(",", ";").encode("utf-16-le")
    code, out, err = await refresher("videos", "import", "-", given=given)
    assert (code, out, err) == (0, "1 video added, 0 known already\n", "")
    code, _, err = await refresher("videos", "import", "-", given=videos("ana,x\n").encode())
    complaint = "refresher: standard input:2: video_id: expected 1 to 20 digits, not 'x'\n"
    assert (code, err) == (2, complaint)


async def test_warned_of_at_the_command_line(refresher, file, pool):
    """On stderr, and exit 0; with --strict it is an error."""
    await pool.execute("INSERT INTO refresher.accounts (open_id) VALUES ('ana')")
    path = str(file(f"open_id,video_id,title\nana,{ID},A dance\n"))
    told = f"{path}:1: no column of open_id,video_id,cover_image_url, ignored: 'title'\n"
    assert await refresher("videos", "import", "--strict", path) == (2, "", f"refresher: {told}")
    code, out, err = await refresher("videos", "import", path)
    assert (code, out) == (0, "1 video added, 0 known already\n")
    assert err == f"refresher: warning: {told}"


@pytest.mark.parametrize("content", [videos(""), videos(",\n , \n")], ids=["header", "separators"])
async def test_an_import_of_nothing_is_an_error(refresher, file, pool, content):
    """Somebody has forgotten the rows: said, with the file's name."""
    path = file(content)
    told = f"refresher: {path}: expected rows below the header\n"
    assert await refresher("videos", "import", str(path)) == (2, "", told)
    with pytest.raises(NothingToImportError):
        await import_videos(pool, read_videos(path, datetime.now(UTC)), due_at=lambda _: None)


async def test_the_columns_stand_in_the_help(refresher):
    """All of them, and that - is standard input."""
    for kind, column in (("accounts", "refresh_token_expires_at"), ("videos", "cover_image_url")):
        _, out, _ = await refresher(kind, "import", "--help")
        assert column in out
        assert "- reads standard input" in " ".join(out.split())


@pytest.mark.parametrize("open_id", ["-000abc", "--000", "-", "_000QDO", "-0hE=lp"])
async def test_an_open_id_may_begin_with_a_hyphen(refresher, pool, open_id):
    """TikTok's do: it is an argument as any other."""
    await pool.execute("INSERT INTO refresher.accounts (open_id) VALUES ($1)", open_id)
    state = "SELECT state FROM refresher.accounts"
    for command, after in (("pause",), "paused"), (("resume", "--"), "active"):
        code, out, err = await refresher("accounts", *command, open_id)
        assert (code, err, out.startswith(f"{open_id}: ")) == (0, "", True)
        assert await pool.fetchval(state) == after


async def test_a_mistyped_option_is_still_an_error(refresher, pool):
    """It is taken for an account that nobody knows, and where to look for options is said."""
    await pool.execute("INSERT INTO refresher.accounts (open_id) VALUES ('ana')")
    code, out, err = await refresher("accounts", "pause", "--force")
    assert (code, out) == (2, "")
    assert "expected a known account, not '--force'; of options tells" in err
    code, _, err = await refresher("accounts", "pause", "ana", "--force")
    assert (code, err.count("\n")) == (2, 1)
    assert await pool.fetchval("SELECT state FROM refresher.accounts") == "active"
