"""The commands in README, docs/ and ops/, as a reader would type them."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = {
    str(page.relative_to(ROOT)): page.read_text()
    for page in (ROOT / "README.md", ROOT / "ops/README.md", *sorted(ROOT.glob("docs/**/*.md")))
}
#: The steps of this page are run as one, on a Docker engine: tests/compose/test_first_hour.py.
FIRST_HOUR = "docs/getting-started.md"
STEPS, _heading, _after = PAGES[FIRST_HOUR].partition("\n## Without tables of your own\n")
PAGES[FIRST_HOUR] = _heading + _after
FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`]+)`")
#: How a line of a crontab begins: five fields of time.
TIMES = re.compile(r"([\d*/,-]+ ){5}")
#: In a sentence, code that begins with one of these is a command.
PROGRAM = re.compile(
    r"(\$ )?(refresher|docker|make|python3?|pip|chmod|kill|psql|jq|curl|openssl|lnav|promtool|pg_\w+) \S"
)


def blocks(page: str) -> Iterator[tuple[str, list[str]]]:
    """The language of each block, and its commands: without prompts, output and comments."""
    for indent, language, text in FENCED.findall(PAGES[page]):
        lines = [line.removeprefix(indent) for line in text.replace("\\\n", "").splitlines()]
        if language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        lines = [re.sub(r"\s+# .*", "", TIMES.sub("", line)) for line in lines]
        yield language, list(filter(None, lines))


def scripts(page: str) -> list[list[str]]:
    """The blocks of a page that are commands."""
    return [lines for language, lines in blocks(page) if language in {"sh", "console", "crontab"}]


def in_sentences(page: str) -> Iterator[str]:
    """The commands of a page that stand in a sentence or a table."""
    for code in CODE.findall(FENCED.sub("", PAGES[page])):
        if PROGRAM.match(command := " ".join(code.split())):
            yield command


def commands() -> set[str]:
    """Those of all pages."""
    return {line for page in PAGES for lines in scripts(page) for line in lines} | {
        line for page in PAGES for line in in_sentences(page)
    }


def block(language: str, beginning: str) -> str:
    """The one block of docs/attach.md that begins so."""
    found = (text for _, kind, text in FENCED.findall(PAGES["docs/attach.md"]) if kind == language)
    (text,) = (text for text in found if text.startswith(beginning))
    return str(text)


def framed(script: str) -> str:
    """The SQL of `attach --print-sql`, as docs/attach.md has it for a migration."""
    before, here, after = block("sql", "DO $attach$").partition("-- here the file\n")
    assert here
    return f"{before}{script}{after}"
