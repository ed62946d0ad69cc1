"""Our SQL on a connection to a cell whose schema has another name than usual."""

import pytest

from refresher.postgres.naming import Connection, connection_class, named


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT FROM refresher.videos", "SELECT FROM cell_1.videos"),
        ("'refresher.videos'::regclass", "'cell_1.videos'::regclass"),
        ("'refresher'::regnamespace", "'cell_1'::regnamespace"),
        ("CREATE SCHEMA refresher", "CREATE SCHEMA cell_1"),
        ("ALTER TABLE refresher.%I", "ALTER TABLE cell_1.%I"),
        ("to_regclass('refresher.' || name)", "to_regclass('cell_1.' || name)"),
        ("DROP SCHEMA refresher_set_aside", "DROP SCHEMA cell_1_set_aside"),
        ("pg_notify('refresher_wake', '')", "pg_notify('cell_1_wake', '')"),
        ("current_setting('refresher.carrying')", "current_setting('cell_1.carrying')"),
    ],
)
def test_the_schema_is_that_of_the_cell(sql, expected):
    """Tables, functions, the schema itself, its channels and its settings."""
    assert named(sql, "cell_1") == expected


@pytest.mark.parametrize(
    "sql",
    [
        "RAISE LOG 'refresher: new accounts were not told'",
        "'run refresher migrate'",
        "CREATE TRIGGER refresher_clips_inserted",
        "SELECT FROM my_refresher.videos",
        "SELECT FROM refresher2.videos",
        "$refresher$",
    ],
)
def test_the_word_in_other_places_stays(sql):
    """Texts, names of applications' own."""
    assert named(sql, "cell_1") == sql


def test_a_connection_to_the_usual_schema_is_the_drivers_own():
    """It costs nothing where there is one cell."""
    assert connection_class("refresher") is Connection
