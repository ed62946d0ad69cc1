"""`tokens rotate`."""

import typer

from refresher.domain.spans import counted

tokens = typer.Typer(help="The tokens in the database.")


@tokens.command()
def rotate() -> None:
    """Encrypt every stored token with the first key of REFRESHER_TOKEN_KEYS; may be repeated.

    Example: refresher tokens rotate
    """
    from refresher.cli.database import sealer_of, with_database
    from refresher.postgres.sealing import rotate_all
    from refresher.settings import SettingsError, read_settings

    settings = read_settings()
    sealer = sealer_of(settings)
    if not sealer.seals:
        raise SettingsError("REFRESHER_TOKEN_KEYS is not set: expected the key to encrypt with")
    rotated = with_database(settings, lambda pool: rotate_all(pool, sealer))
    print(f"{counted(rotated, 'account')} encrypted with the first key")
