"""The TOML file of a process, as people's editors save it."""

from pathlib import Path

import click

from services.runtime.settings_file import read_settings


@click.command()
@click.option("--name")
def command(name: str) -> None:
    """A command with one option."""


def test_k15_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_bytes(b'\xef\xbb\xbfname = "pi"\r\n')
    assert read_settings(click.Context(command), path) == {"name": "pi"}
