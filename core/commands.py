"""What commands and steps of others must be, so that none of them can stop the fold."""

from typing import Final

import msgspec

from schemas.codec import InvalidMessage
from schemas.limits import MAX_NAME
from schemas.messages import Command, Scalar
from schemas.topics import RAW_TOPICS

MAX_SILENCE_S: Final = 366 * 86_400
MAX_ACTOR: Final = 200
MAX_REASON: Final = 2_000
MAX_STEP_BYTES: Final = 64 * 1024


def checked(command: Command) -> Command:
    """The command with its actor's name and reason cut to a length that every transition can carry.

    Raises InvalidMessage for what its kind cannot be carried out with.
    """
    named = {"app": command.app, "environment": command.environment}
    for field, value in (named | {f"arguments.{name}": value for name, value in command.arguments.items()}).items():
        if isinstance(value, str) and len(value) > MAX_NAME:
            raise InvalidMessage("invalid", f"more than {MAX_NAME} characters", field)
    _check_arguments(command)
    return msgspec.structs.replace(command, actor=command.actor[:MAX_ACTOR], reason=command.reason[:MAX_REASON])


def check_step(value: bytes | None) -> None:
    """Raises InvalidMessage for a step of an action that is too long to be remembered."""
    if len(value or b"") > MAX_STEP_BYTES:
        raise InvalidMessage("too_large", f"a step may have {MAX_STEP_BYTES} bytes")


def _check_arguments(command: Command) -> None:
    match command.kind:
        case "silence":
            seconds = command.arguments.get("seconds", 1)
            if not _is_number(seconds) or not 0 < float(seconds) <= MAX_SILENCE_S:
                raise InvalidMessage("invalid", f"seconds must be a number up to {MAX_SILENCE_S}", "arguments.seconds")
        case "exclude_partition" | "include_partition":
            if command.arguments.get("topic") not in RAW_TOPICS:
                raise InvalidMessage("invalid", f"topic must be one of {', '.join(RAW_TOPICS)}", "arguments.topic")
            partition = command.arguments.get("partition")
            if not _is_number(partition) or float(partition or 0) < 0 or float(partition or 0) % 1:
                raise InvalidMessage("invalid", "partition must be a whole number", "arguments.partition")
        case "roll_back":
            if not command.app:
                raise InvalidMessage("invalid", "app is missing", "app")
        case "release":
            version = command.arguments.get("version")
            if not command.app:
                raise InvalidMessage("invalid", "app is missing", "app")
            if not isinstance(version, str) or not version:
                raise InvalidMessage("invalid", "version is missing", "arguments.version")
        case _:
            pass


def _is_number(value: Scalar | None) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
