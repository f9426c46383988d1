"""The table of sub-commands."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from bellbuoy.cli.main import COMMANDS, app, load
from tests.conftest import ROOT


@pytest.mark.parametrize("name", COMMANDS)
def test_every_sub_command_of_the_table_exists_and_has_help(name: str) -> None:
    command = load(name)
    assert command.name == name
    assert command.help


def test_help_lists_every_sub_command() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    assert [name for name in COMMANDS if f" {name} " not in shown] == []


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom bellbuoy.cli.main import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'numpy', 'confluent_kafka', 'kafka', 'faust', 'chdb', 'clickhouse_connect'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_unknown_sub_command_is_an_error() -> None:
    result = CliRunner().invoke(app, ["nonsense"])
    assert result.exit_code == 2
    assert "No such command 'nonsense'" in result.output
