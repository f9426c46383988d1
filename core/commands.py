"""What the arguments of a command must be, so that no command can stop the fold."""

from typing import Final

from schemas.codec import InvalidMessage
from schemas.messages import Command, Scalar
from schemas.topics import RAW_TOPICS

MAX_SILENCE_S: Final = 366 * 86_400


def check_command(command: Command) -> None:
    """Raises InvalidMessage for arguments that the command's kind cannot be carried out with."""
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
        case _:
            pass


def _is_number(value: Scalar | None) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
