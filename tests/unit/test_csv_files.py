"""The CSV files of the imports."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from refresher.csv_files.columns import ACCOUNT_COLUMNS
from refresher.csv_files.complaints import BadFileError
from refresher.csv_files.rows import AccountRow, VideoRow, read_accounts, read_videos
from refresher.csv_files.sheet import count_lines
from refresher.domain.spreadsheet import cell_value, safe_cell

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
URL = f"https://example.com/a~b:c.jpeg?x-expires={int(NOW.timestamp()) + 3600}&s=a%2Fb,c"
LONG_ID = "98765432109876543210"


@pytest.fixture
def file(tmp_path):
    """Write a CSV file; its path."""

    def write(content):
        path = tmp_path / "rows.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def videos(path):
    return list(read_videos(path, NOW))


def accounts(path):
    return list(read_accounts(path))


# --- Good files ---


def test_videos_with_and_without_a_cover(file):
    """The cover column may be left empty; a URL that names its expiry brings it along."""
    path = file(
        f"open_id,video_id,cover_image_url\nana,{LONG_ID},\nben,2,https://b.example/\ncy,3,{quoted(URL)}\n"
    )
    assert videos(path) == [
        VideoRow(2, "ana", LONG_ID, None, None),
        VideoRow(3, "ben", "2", "https://b.example/", None),
        VideoRow(4, "cy", "3", URL, NOW + timedelta(hours=1)),
    ]


def test_a_dead_cover_keeps_its_expiry(file):
    """A URL that has expired already is no error: it will be asked for at once."""
    (row,) = videos(file("open_id,video_id,cover_image_url\na,1,http://b/?x-expires=1649422733\n"))
    assert row.cover_expires_at == datetime(2022, 4, 8, 12, 58, 53, tzinfo=UTC)


def test_accounts_with_all_columns_in_any_order(file):
    """The header decides which column is which; times carry their zone, or mean UTC."""
    path = file(
        "scope,open_id,access_token,access_token_expires_at,refresh_token,refresh_token_expires_at\n"
        '"user.info.basic,video.list",ana,act.a!b.va,2026-09-02T12:00:00,rft.a,2027-09-01T01:00:00+02:00\n'
    )
    east = timezone(timedelta(hours=2))
    assert accounts(path) == [
        AccountRow(
            2,
            "ana",
            "act.a!b.va",
            NOW + timedelta(days=1),
            "rft.a",
            datetime(2027, 9, 1, 1, tzinfo=east),
            "user.info.basic,video.list",
        )
    ]


def test_accounts_need_only_open_id_and_token(file):
    """What is empty or has no column is not known."""
    row = AccountRow(2, "ana", "act.a", None, None, None, None)
    assert accounts(file("open_id,access_token\nana,act.a\n")) == [row]
    assert accounts(file(f"{','.join(ACCOUNT_COLUMNS)}\nana,act.a,,,,\n")) == [row]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfopen_id,video_id\nana,1\n",
        b"open_id,video_id\r\nana,1\r\n",
        b"open_id,video_id\nana,1",
        b'"open_id","video_id"\n"ana","1"\n',
    ],
    ids=["byte-order-mark", "windows-lines", "no-last-newline", "quotes"],
)
def test_files_as_spreadsheets_write_them(file, content):
    """A byte-order mark, other line ends and quotes around everything are all the same."""
    assert videos(file(content)) == [VideoRow(2, "ana", "1", None, None)]


def test_a_header_alone_is_no_rows(file):
    """Nothing to import is no error."""
    assert videos(file("open_id,video_id\n")) == []


def test_progress_tells_the_lines_read(file):
    """The progress ends at the number of lines in the file."""
    heard: list[int] = []
    path = file("open_id,video_id\nana,1\nana,2\n")
    for _ in read_videos(path, NOW, heard.append):
        pass
    assert heard == [2, 3]
    assert count_lines(path) == 3


def test_an_account_row_does_not_show_its_tokens(file):
    """The repr of a row holds no token."""
    (row,) = accounts(file("open_id,access_token,refresh_token\nana,act.a,rft.a\n"))
    assert "act.a" not in repr(row)
    assert "rft.a" not in repr(row)


# --- Bad files ---


@pytest.mark.parametrize(
    "header",
    [
        "",
        "\n",
        "open_id\n",
        "video_id,cover_image_url\n",
        "open_id,video_id,open_id\n",
        "open_id|video_id\n",
        "ana,b\n",
    ],
    ids=["empty", "blank", "one", "incomplete", "twice", "bars", "none"],
)
def test_a_wrong_header_is_refused(file, header):
    """The message names the columns that were expected and those that came."""
    path = file(header)
    with pytest.raises(BadFileError) as raised:
        videos(path)
    assert str(raised.value) == (
        f"{path}:1: expected the columns open_id,video_id (and perhaps cover_image_url), "
        f"separated by commas, semicolons or tabs, not {header.strip()!r}"
    )


def quoted(value):
    return f'"{value}"'


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("ana,", "video_id: expected 1 to 20 digits, not ''"),
        (f"ana,{LONG_ID}1", f"video_id: expected 1 to 20 digits, not '{LONG_ID}1'"),
        ("ana,12a", "video_id: expected 1 to 20 digits, not '12a'"),
        ("ana,-1", "video_id: expected 1 to 20 digits, not '-1'"),
        ("ana,1 2", "video_id: expected 1 to 20 digits, not '1 2'"),
        ("ana,٣", "video_id: expected 1 to 20 digits, not '٣'"),
        ("ana," + 99 * "a", f"video_id: expected 1 to 20 digits, not {50 * 'a'!r}"),
        (",1", "open_id: expected 1 to 200 characters, not ''"),
        (201 * "a" + ",1", f"open_id: expected 1 to 200 characters, not {50 * 'a'!r}"),
        ("a\0b,1", "open_id: expected 1 to 200 characters, not 'a\\x00b'"),
        ("ana", "expected 2 columns, not 1"),
        ("ana,1,2", "expected 2 columns, not 3"),
        ('"ana,1', "unexpected end of data"),
        ('"ana"x,1', "',' expected after '\"'"),
        ('"' + 200_000 * "a" + '",1', "field larger than field limit (131072)"),
    ],
    ids=lambda text: ascii(text)[:30],
)
def test_a_bad_row_is_named_by_its_line(file, row, complaint):
    """The message says file, line, what was expected and what came; the rows before are good."""
    path = file(f"open_id,video_id\nana,1\n{row}\n")
    rows = read_videos(path, NOW)
    assert next(rows).line == 2
    with pytest.raises(BadFileError) as raised:
        next(rows)
    assert str(raised.value).startswith(f"{path}:3: {complaint}")


@pytest.mark.parametrize(
    ("url", "reason"),
    [("ftp://a", "not an http URL"), ("http://a b", "characters that no URL holds")],
)
def test_a_cover_that_cannot_be_stored_is_refused(file, url, reason):
    """The reason is given, the URL is not shown."""
    path = file(f"open_id,video_id,cover_image_url\nana,1,{url}\n")
    with pytest.raises(BadFileError) as raised:
        videos(path)
    assert str(raised.value) == f"{path}:2: cover_image_url: {reason}"


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("ana,,,,,", "expected a token in column access_token, not an empty or unprintable value"),
        (
            "ana,a b,,,,",
            "expected a token in column access_token, not an empty or unprintable value",
        ),
        (
            "ana,hush\x07,,,,",
            "expected a token in column access_token, not an empty or unprintable value",
        ),
        (
            'ana,"hush\n",,,,',
            "expected a token in column access_token, not an empty or unprintable value",
        ),
        (
            "ana,hush,,é,,",
            "expected a token in column refresh_token, not an empty or unprintable value",
        ),
        ("ana,hush,soon,,,", "access_token_expires_at: expected an ISO 8601 time, not 'soon'"),
        (
            "ana,hush,,rft,1790000000.5,",
            "refresh_token_expires_at: expected an ISO 8601 time, not '1790000000.5'",
        ),
        (
            "ana,hush,2026-02-30,,,",
            "access_token_expires_at: expected an ISO 8601 time, not '2026-02-30'",
        ),
    ],
    ids=lambda text: ascii(text)[:30],
)
def test_a_bad_account_is_refused(file, row, complaint):
    """Tokens must be printable and times ISO 8601; a bad token is not shown."""
    path = file(f"{','.join(ACCOUNT_COLUMNS)}\n{row}\n")
    with pytest.raises(BadFileError) as raised:
        accounts(path)
    assert str(raised.value).partition(": ")[2] == complaint


def test_a_scope_that_no_database_takes_is_refused(file):
    """A NUL byte is found here, with its line, and not by PostgreSQL."""
    with pytest.raises(BadFileError, match=":2: scope: "):
        accounts(file("open_id,access_token,scope\nana,act.a,video\0list\n"))


def test_lines_are_counted_as_an_editor_counts_them(file):
    """Blank lines and quoted newlines count: the message says where the row begins."""
    path = file('open_id,access_token\n\nana,"a\nb"\n')
    with pytest.raises(BadFileError) as raised:
        accounts(path)
    assert str(raised.value).startswith(f"{path}:3: expected a token in column access_token")


def test_blank_lines_are_nothing(file):
    """Also at the end, where editors leave them."""
    path = file("open_id,access_token\n\nana,act.a\n\n")
    assert [row.line for row in accounts(path)] == [3]


def test_a_first_row_in_the_place_of_the_header_is_not_shown(file):
    """It may hold a token of any shape."""
    with pytest.raises(BadFileError, match="not 'ana,…'") as raised:
        accounts(file("ana,hush-hush-1\n"))
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize("content", [b"open_id,v\xe9\n", b"open_id,video_id\n\xe9,1\n"])
def test_other_encodings_are_refused(file, content):
    """A file that is not UTF-8 is refused, in the header or further down."""
    path = file(content)
    with pytest.raises(BadFileError) as raised:
        videos(path)
    assert str(raised.value) == f"{path}: expected text in UTF-8"


@pytest.mark.parametrize("read", [videos, count_lines], ids=["rows", "lines"])
def test_a_file_that_cannot_be_opened_is_named(tmp_path, read):
    """The message is the path and the system's reason."""
    with pytest.raises(BadFileError) as raised:
        read(tmp_path / "nowhere.csv")
    assert str(raised.value) == f"{tmp_path / 'nowhere.csv'}: No such file or directory"


@pytest.mark.parametrize("text", ["-000abc", "=1+1", "+1", "@sum", "\tana", "ana", "1-2", ""])
def test_what_is_written_for_a_spreadsheet_is_read_as_it_was(text):
    """Nothing that is written begins like a formula."""
    written = safe_cell(text)
    assert not written.startswith(("=", "+", "-", "@", "\t"))
    assert cell_value(written) == text.strip()
