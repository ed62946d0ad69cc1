"""What a benchmark cannot be run with is refused before it starts, in one line."""

from argparse import ArgumentTypeError

import pytest

from benchmarks.arguments import folder, parser_of, settings


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_is_no_file(tmp_path, capfd, place):
    """Nor below one: exit 2, the option and the value named, no traceback."""
    (tmp_path / "file").touch()
    parser = parser_of("python -m benchmarks.flat", None)
    parser.add_argument("--keep", type=folder)
    with pytest.raises(SystemExit) as exit_:
        parser.parse_args(["--keep", str(tmp_path / place)])
    assert exit_.value.code == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert "--keep: expected a folder" in last
    assert place in last


def test_a_folder_is_made(tmp_path):
    """With those above it; one that is there will do."""
    assert folder(str(tmp_path / "some" / "where")).is_dir()
    assert folder(str(tmp_path / "some")).is_dir()


def test_settings_are_names_with_values():
    given = "wal_compression=off,checkpoint_timeout=5min"
    assert settings(given) == {"wal_compression": "off", "checkpoint_timeout": "5min"}


@pytest.mark.parametrize("text", ["", "off", "=off", "wal_compression=", "a=1,", "a='; DROP"])
def test_what_is_no_setting_is_refused(text):
    with pytest.raises(ArgumentTypeError, match="expected NAME=VALUE"):
        settings(text)
