"""The files in refresher/postgres/sql, and how they become what is sent."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import refresher
from refresher.postgres import statements
from refresher.postgres.constants import CONSTANTS
from refresher.postgres.statements import Statement, StatementError, source, statement

PACKAGE = Path(refresher.__file__).parent
SQL = PACKAGE / "postgres/sql"
FILES = sorted(SQL.glob("**/*.sql"))
STATEMENTS = [
    str(file.relative_to(SQL).with_suffix("")) for file in FILES if file.parent.name != "fragments"
]


def test_parameters_travel_by_name():
    """They are numbered as they appear, however often, and given in any order."""
    read = Statement("SELECT :b, :a, :b")
    assert read.text == "SELECT $1, $2, $1"
    assert read(a=1, b=2) == ("SELECT $1, $2, $1", 2, 1)
    assert Statement("SELECT 1")() == ("SELECT 1",)


@pytest.mark.parametrize("values", [{}, {"a": 1}, {"a": 1, "b": 2, "c": 3}, {"a": 1, "c": 3}])
def test_a_missing_or_unknown_value_is_refused(values):
    """Before anything is sent, and both are named."""
    with pytest.raises(TypeError) as refused:
        Statement("SELECT :a, :b")(**values)
    assert str(refused.value) == (
        f"parameters missing: {sorted({'a', 'b'} - values.keys())}, "
        f"unknown: {sorted(values.keys() - {'a', 'b'})}"
    )


@pytest.mark.parametrize(
    "text",
    [
        "'a :b'",
        "'it''s :b'",
        r"E'\':b'",
        '"a :b"',
        '"a"":b"',
        "$$ :b $$",
        "$x$ $$ :b $x$",
        "1 -- :b\n",
        "1 /* :b */",
        "1::b",
        "(1)::b",
        "'1'::b",
        "ids[1:b]",
        "ids[:b]",
        "ids[f(1):b]",
        "ids[ids[1]:b]",
    ],
)
def test_not_every_colon_is_a_parameter(text):
    """Nor one in what is quoted, a cast or a slice."""
    assert Statement(f"SELECT {text}, :a").text == f"SELECT {text}, $1"


def test_a_parameter_may_stand_beside_anything():
    """A cast of it, an operator, a bracket."""
    text = Statement("SELECT :a::text||:b,(:c),ids[(:d):(:e)],'x':: text,:f").text
    assert text == "SELECT $1::text||$2,($3),ids[($4):($5)],'x':: text,$6"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of statements instead of ours: call it to write a file."""
    monkeypatch.setattr(statements, "_ROOT", tmp_path)
    monkeypatch.setattr(statements, "CONSTANTS", {"most": 7})
    (tmp_path / "fragments").mkdir()
    statements._read.cache_clear()
    yield lambda name, text: (tmp_path / f"{name}.sql").write_text(text)
    statements._read.cache_clear()


def test_fragments_and_constants_are_put_in(folder):
    """Arguments, too, which may name fragments; parameters of both are one statement's."""
    folder("fragments/is_due", "-- Whom a claim takes.\nwake_at <= :now")
    folder("fragments/open", "{{ who }}\n  AND next_slot_at < {{ until }}")
    folder("it", 'SELECT 1\nWHERE {{ open who="{{ is_due }}" until=":now + :a" }}\nLIMIT {{most}}')
    assert (
        source("it") == "SELECT 1\nWHERE wake_at <= :now\n  AND next_slot_at < :now + :a\nLIMIT 7"
    )
    assert statement("it")(now=1, a=2)[1:] == (1, 2)


def test_comments_are_not_sent(folder):
    """Where they are comments."""
    folder("it", "-- Why :x.\nSELECT '--a', /* :y\n */ :b -- {{ z }}\n\n   -- w\nFROM \"--t\"")
    assert source("it") == "SELECT '--a',  :b\nFROM \"--t\""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{{ nothing }}", "sql/fragments/nothing.sql: No such file or directory"),
        ('{{ open a="1" }}', "sql/fragments/open.sql: does not use ['a']"),
        ("{{ open a=1 }}", 'sql/it.sql: expected {{ name key="SQL" }}'),
    ],
)
def test_a_file_that_cannot_be_used_is_named(folder, text, told):
    """When it is read, so at the latest when the daemon starts."""
    folder("fragments/open", "true")
    folder("it", text)
    with pytest.raises(StatementError, match=f"^{re.escape(told)}$"):
        statement("it")


def test_every_fragment_and_every_constant_is_used():
    """What is left over would be read in vain."""
    used = {name for file in FILES for name in re.findall(r"\{\{\s*(\w+)", file.read_text())}
    fragments = {file.stem for file in FILES if file.parent.name == "fragments"}
    assert fragments | CONSTANTS.keys() <= used
    assert not fragments & CONSTANTS.keys()


def test_every_statement_is_called():
    """And every one that is called is there: loading the modules has shown that."""
    code = "\n".join(file.read_text() for file in (PACKAGE / "postgres").glob("**/*.py"))
    assert sorted(re.findall(r'= statement\("([\w/]+)"\)', code)) == STATEMENTS


async def test_the_server_understands_every_statement(pool):
    """Also those that are rarely sent."""
    async with pool.acquire() as connection, connection.transaction():
        for stage in ("stage_accounts", "stage_videos"):
            await connection.execute(*statement(stage)())
        for name in STATEMENTS:
            assert await connection.prepare(statement(name).text)


def test_an_installed_package_has_its_statements(tmp_path):
    """Even one that is imported from a zip file, which has no paths."""
    packed = tmp_path / "refresher.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in PACKAGE.rglob("*"):
            if file.suffix in {".py", ".sql"}:
                archive.write(file, file.relative_to(PACKAGE.parent))
    ask = "from refresher.postgres import statements as s; print(s.__file__, s.source('now'))"
    python = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(packed)!r}); {ask}"]
    told = subprocess.run(python, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    assert told == f"{packed}/refresher/postgres/statements.py SELECT now()\n"
