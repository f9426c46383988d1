"""What a command must say to be carried out."""

import pytest

from core.commands import checked
from schemas.codec import InvalidMessage
from schemas.messages import Command, Scalar


def release(app: str | None = "desk", **arguments: Scalar) -> Command:
    return Command(id="c", kind="release", actor="ann", app=app, arguments=arguments)


def test_a_release_names_its_app_and_version() -> None:
    assert checked(release(version="v2", gate=False)) == release(version="v2", gate=False)


@pytest.mark.parametrize(
    ("command", "field"),
    [
        (release(app=None, version="v2"), "app"),
        (release(), "arguments.version"),
        (release(version=""), "arguments.version"),
        (release(version=2), "arguments.version"),
    ],
)
def test_a_release_that_does_not_is_refused(command: Command, field: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        checked(command)
    assert caught.value.field == field
