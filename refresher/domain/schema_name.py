"""Names of schemas, which are the names of cells."""

import re
from typing import Final

#: What our SQL and all documents call the schema.
USUAL_SCHEMA: Final = "refresher"
#: PostgreSQL's names have 63 characters at most. We append words to this one.
LONGEST_NAME: Final = 48
NAME: Final = re.compile(rf"[a-z_][a-z0-9_]{{0,{LONGEST_NAME - 1}}}")
EXPECTED_NAME: Final = (
    f"expected a name that SQL needs no quotes for: small letters, digits and underscores,"
    f" {LONGEST_NAME} at most, not a word of SQL's own"
)
#: Ours would not be alone there, or PostgreSQL would refuse us.
TAKEN: Final = frozenset({"public", "information_schema"})
#: Other names of a cell end so.
ENDINGS: Final = ("_wake", "_covers", "_set_aside")
#: Words that need quotes as a name: those of PostgreSQL 15 to 18 that `quote_ident` quotes. And the
#: two that mean rows in a trigger.
WORDS: Final = frozenset(
    """
    all analyse analyze and any array as asc asymmetric authorization between bigint binary bit
    boolean both case cast char character check coalesce collate collation column concurrently
    constraint create cross current_catalog current_date current_role current_schema
    current_time current_timestamp current_user dec decimal default deferrable desc distinct do
    else end except exists extract false fetch float for foreign freeze from full grant greatest
    group grouping having ilike in initially inner inout int integer intersect interval into is
    isnull join json json_array json_arrayagg json_exists json_object json_objectagg json_query
    json_scalar json_serialize json_table json_value lateral leading least left like limit
    localtime localtimestamp merge_action national natural nchar none normalize not notnull null
    nullif numeric offset on only or order out outer overlaps overlay placing position precision
    primary real references returning right row select session_user setof similar smallint some
    substring symmetric system_user table tablesample then time timestamp to trailing treat trim
    true union unique user using values varchar variadic verbose when where window with
    xmlattributes xmlconcat xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot
    xmlserialize xmltable new old
    """.split()  # noqa: SIM905 - a list would take a hundred lines
)


def is_schema_name(name: str) -> bool:
    """Whether it can name the schema of our tables, without quotes."""
    return (
        NAME.fullmatch(name) is not None
        and name not in WORDS
        and name not in TAKEN
        and not name.startswith("pg_")
        and not name.endswith(ENDINGS)
    )
