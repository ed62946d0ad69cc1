"""`accounts list` and `videos list`, for people, programs and spreadsheets."""

import csv
import io
import json
import re

import pytest

from refresher.cli.accounts import ACCOUNT_CELLS
from refresher.cli.listing import printing, text
from refresher.postgres import listing
from refresher.postgres.audit import audit_step
from tests.terminal import ESCAPE, on_terminal

ACCOUNTS = """
INSERT INTO refresher.accounts (open_id, access_token, state, state_reason, isolated_since,
                                isolated_reason, refresh_token_expires_at, last_failure_at,
                                last_failure_code, last_failure_http_status, last_failure_log_id)
VALUES ('-ana', 'act.x', 'active', NULL, NULL, NULL, '2027-01-01 00:00+00', NULL, NULL, NULL, NULL),
       ('=ben', 'act.x', 'paused', 'paused by the operator', NULL, NULL, NULL, NULL, NULL, NULL, NULL),
       ('cleo', 'act.x', 'needs_scope', 'scope_not_authorized', NULL, NULL, NULL,
        '2026-11-29 08:00+00', 'scope_not_authorized', 401, '2026LOG'),
       ('dora', 'act.x', 'active', NULL, now(), 'internal_error', NULL, NULL, NULL, NULL, NULL)
"""

VIDEOS = """
INSERT INTO refresher.accounts (open_id, access_token, state)
VALUES ('ana', 'act.x', 'active'), ('ben', 'act.x', 'paused');
INSERT INTO refresher.videos (open_id, video_id, cover_image_url, cover_expires_at, missing_since,
                              gone_at, misses, refusal, due_at)
SELECT open_id, kind, CASE WHEN kind <> '5' THEN 'https://c' END,
       CASE WHEN kind <> '5' THEN now() + CASE kind WHEN '1' THEN 1 ELSE -1 END * interval '1 hour' END,
       CASE WHEN kind IN ('3', '4') THEN now() END, CASE kind WHEN '4' THEN now() END,
       CASE WHEN kind IN ('3', '4', '6') THEN 3 ELSE 0 END, CASE kind WHEN '6' THEN 'internal_error' END,
       now() + interval '1 day'
FROM unnest('{ana,ben}'::text[]) AS open_id, unnest('{1,2,3,4,5,6}'::text[]) AS kind
"""


@pytest.mark.parametrize(
    ("state", "listed"),
    [
        ([], ["-ana", "=ben", "cleo", "dora"]),
        (["--state", "active"], ["-ana", "dora"]),
        (["--state", "paused"], ["=ben"]),
        (["--state", "needs_reauthorization"], []),
        (["--state", "needs_scope"], ["cleo"]),
        (["--state", "isolated"], ["dora"]),
    ],
    ids=lambda value: value[-1] if value else "none",
)
async def test_accounts_are_listed_by_state(refresher, pool, state, listed):
    """For programs as a JSON array, by the names of the columns; no token is in it."""
    await pool.execute(ACCOUNTS)
    code, out, _ = await refresher("accounts", "list", "--json", *state)
    told = json.loads(out)
    assert code == 0
    assert [account["open_id"] for account in told] == listed
    assert not [name for account in told for name in account if name.endswith("_token")]


async def test_an_account_is_told_with_its_last_failure(refresher, pool):
    """And with the end of the user's consent; in the table, too."""
    await pool.execute(ACCOUNTS)
    accounts = json.loads((await refresher("accounts", "list", "--json"))[1])
    assert accounts[0]["refresh_token_expires_at"] == "2027-01-01T00:00:00+00:00"
    assert (accounts[2]["last_failure_at"], accounts[2]["last_failure_log_id"]) == (
        "2026-11-29T08:00:00+00:00",
        "2026LOG",
    )
    _, table, _ = await refresher("accounts", "list")
    lines = table.splitlines()
    assert "videos at last release  valid then" in lines[0]
    assert "2027-01-01 00:00:00+00:00" in lines[1]
    assert "2026-11-29 08:00:00+00:00  scope_not_authorized" in lines[3]


@pytest.mark.parametrize(
    ("command", "fields"),
    [("accounts list", listing.ACCOUNT_FIELDS), ("videos list", listing.VIDEO_FIELDS)],
)
async def test_an_empty_spreadsheet_has_its_header(refresher, pool, command, fields):
    """The same as one that is not empty: a program may rely on it."""
    _, empty, _ = await refresher(*command.split(), "--csv")
    assert empty == f"{','.join(fields)}\n"
    await pool.execute(VIDEOS)
    _, out, _ = await refresher(*command.split(), "--csv")
    assert out.startswith(empty)
    assert out.count("\n") > 1
    assert out.count("open_id") == 1
    told = json.loads((await refresher(*command.split(), "--json"))[1])
    assert {tuple(row) for row in told} == {fields}


async def test_foreign_names_are_printed_as_they_are(refresher, pool):
    """Square brackets are no markup, and no control character reaches the terminal."""
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, state, state_reason, lease_owner,"
        " lease_expires_at) VALUES ('x[/bold]y', 'paused', E'\\x1b[2J[red]bad', NULL, NULL),"
        " ('z', 'active', NULL, E'host[/bold]\\x1b[2J', now() + interval '1 hour')"
    )
    await pool.execute(
        "INSERT INTO refresher.videos (open_id, video_id) VALUES ('x[/bold]y', E'v[/]\\x1b[2J')"
    )
    for command, told in (
        ("accounts list", ["x[/bold]y  paused", "\ufffd[2J[red]bad"]),
        ("videos list", ["x[/bold]y  v[/]\ufffd[2J"]),
        ("status", ["1 host[/bold]\ufffd[2J"]),
    ):
        code, out, err = await refresher(*command.split())
        assert (code, err) == (0, "")
        assert [text for text in told if text not in out] == []
        assert "\x1b" not in out


@pytest.mark.parametrize(("width", "last"), [(37, "state"), (58, "reason"), (300, "wakes at")])
async def test_a_terminal_gets_the_columns_that_fit(database, pool, width, last):
    """The first ones, in lines that are not folded; those that are left out are named."""
    await pool.execute(ACCOUNTS)
    written = ESCAPE.sub("", await on_terminal("accounts list", database, COLUMNS=str(width)))
    header, *rows = written.splitlines()
    assert header.rstrip().endswith(last)
    assert [row.split()[0] for row in rows[:4]] == ["-ana", "=ben", "cleo", "dora"]
    assert max(map(len, rows[:4])) <= width
    told = [row for row in rows if row.startswith("refresher: left out, as")]
    left_out = list(ACCOUNT_CELLS)[1 + list(ACCOUNT_CELLS).index(last) :]
    assert [re.findall("'(.+?)'", row) for row in told] == [left_out] * bool(left_out)


async def test_every_page_has_the_columns_that_fit(capfd, monkeypatch):
    """Where its rows are wider than those before, with a header of its own; an empty page has none."""
    monkeypatch.setattr("refresher.cli.listing.terminal_width", lambda: 20)
    narrow, wide = {"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "2" * 9, "c": "3" * 8}

    async def pages():
        for page in ([], [narrow], [narrow, narrow], [], [wide]):
            yield page

    cells = {name: text(name) for name in "abc"}
    await printing(cells, [], as_json=False, as_csv=False)(pages())
    written = capfd.readouterr()
    assert written.out.splitlines() == [
        "a  b  c",
        *3 * ["1  2  3"],
        "a  b",
        "1  222222222",
    ]
    assert "left out, as this terminal is too narrow: 'c';" in written.err


@pytest.mark.parametrize("command", ["accounts list --state isolated", "videos list"])
async def test_an_empty_list_says_so_to_people(refresher, database, pool, command):
    """Programs get nothing."""
    await pool.execute("INSERT INTO refresher.accounts (open_id) VALUES ('ana')")
    assert await refresher(*command.split()) == (0, "", "")
    assert (await on_terminal(command, database)).strip() == "refresher: nothing to list"


async def test_no_line_in_a_pipe_ends_in_spaces(refresher, pool):
    """Columns stand below each other, and what is empty at the end is left out."""
    await pool.execute(VIDEOS)
    for command in ("accounts list", "accounts show ana", "videos list", "status"):
        _, out, _ = await refresher(*command.split())
        lines = out.split("\n")
        assert len(lines) > 2
        assert [line for line in lines if line != line.rstrip()] == []


async def test_a_spreadsheet_takes_no_cell_for_a_formula(refresher, pool, tmp_path):
    """CSV: what begins like one has an apostrophe before it, which imports leave out again."""
    await pool.execute(ACCOUNTS)
    await pool.execute("DELETE FROM refresher.accounts WHERE open_id = '=ben'")
    await pool.execute("INSERT INTO refresher.videos (open_id, video_id) VALUES ('-ana', '70')")
    _, out, _ = await refresher("accounts", "list", "--csv")
    assert [row["open_id"] for row in csv.DictReader(io.StringIO(out))] == ["'-ana", "cleo", "dora"]
    _, out, _ = await refresher("videos", "list", "--csv")
    (tmp_path / "exported.csv").write_text(out)
    await pool.execute("DELETE FROM refresher.videos")
    code, out, _ = await refresher("videos", "import", "exported.csv")
    assert (code, out) == (0, "1 video added, 0 known already\n")
    assert await pool.fetchval("SELECT open_id FROM refresher.videos") == "-ana"


@pytest.mark.parametrize(
    ("state", "listed"),
    [
        ("missing", ["ana 3", "ben 3"]),
        ("gone", ["ana 4", "ben 4"]),
        ("rejected", ["ana 6", "ben 6"]),
        ("expired", ["ana 2", "ana 6"]),
    ],
)
async def test_videos_are_listed_by_state(refresher, pool, state, listed):
    """Expired are, as in status, covers that could be kept alive: not those of a paused account."""
    await pool.execute(VIDEOS)
    _, out, _ = await refresher("videos", "list", "--json", "--state", state)
    assert [f"{video['open_id']} {video['video_id']}" for video in json.loads(out)] == listed
    await audit_step(pool)
    told = json.loads((await refresher("status", "--json"))[1])
    if state in {"missing", "expired"}:
        assert told[state] == len(listed)


async def test_videos_of_one_account_are_listed(refresher, pool):
    """In a table that names the account's state and when each is asked for."""
    await pool.execute(VIDEOS)
    code, out, _ = await refresher("videos", "list", "--account", "ben", "--state", "gone")
    header, line = out.splitlines()
    assert code == 0
    assert header.split("  ")[0] == "open_id"
    assert (line.split()[:2], line.split()[-1]) == (["ben", "4"], "paused")


async def test_lists_go_page_by_page(pool, monkeypatch):
    """Every row once, in order, also where a page has none that is wanted; nothing holds them all."""
    monkeypatch.setattr(listing, "VIDEOS_AT_ONCE", 2)
    monkeypatch.setattr(listing, "ACCOUNTS_AT_ONCE", 1)
    await pool.execute(VIDEOS)
    pages = [page async for page in listing.list_videos(pool)]
    assert [len(page) for page in pages] == [2] * 6
    assert [row["video_id"] for page in pages for row in page] == [*"123456"] * 2
    of_one = [page async for page in listing.list_videos(pool, "gone", "ana")]
    assert [len(page) for page in of_one] == [0, 1, 0]
    accounts = [page async for page in listing.list_accounts(pool)]
    assert [row["open_id"] for page in accounts for row in page] == ["ana", "ben"]


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("accounts list --state gone", "--state: expected active, paused, "),
        ("videos list --state active", "--state: expected missing, gone, rejected or expired, not"),
        ("videos list --account eve --json", "expected a known account, not 'eve'; add it with"),
        ("videos list --json --csv", "expected --json or --csv, not both"),
    ],
)
async def test_a_list_that_cannot_be_is_refused(refresher, command, complaint):
    """One line that names the choices, exit 2."""
    code, out, err = await refresher(*command.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert complaint in err
