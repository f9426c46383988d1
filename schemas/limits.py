"""What names, ids and numbers may look like: one set of limits for the collector and for every reader of the raw topics."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from schemas.codec import InvalidMessage
from schemas.messages import ChatMessage, Feedback, Interaction, Scalar

MAX_NAME: Final = 128
"""Characters of an app, environment, version, model, provider, prompt, role, attribute or feedback name."""
MAX_ID: Final = 256
"""Characters of an id: interaction, conversation, trace, span, user, actor."""
MAX_ENTRIES: Final = 256
"""Attributes of a message."""
MAX_ITEM_BYTES: Final = 900_000
"""Encoded bytes of one raw message; below MAX_RAW_BYTES with room for key, headers and the frame of a batch."""
MAX_NUMBER: Final = 1e12
"""Upper end of tokens, milliseconds and cost."""
MAX_SCHEMA: Final = 65_536
"""Characters of the JSON Schema that an answer must match."""
INT64: Final = 2**63

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_INTERACTION_REQUIRED: Final = frozenset({"id", "app", "environment", "version"})
_FEEDBACK_REQUIRED: Final = frozenset({"id", "interaction_id", "name", "app", "environment", "version"})


def validate_interaction(interaction: Interaction) -> None:
    """Raise InvalidMessage (`invalid`, `too_long`, `too_many`, with the field) for names, ids or numbers out of bounds."""
    i = interaction
    _check_strings(
        (
            ("id", i.id, MAX_ID),
            ("app", i.app, MAX_NAME),
            ("environment", i.environment, MAX_NAME),
            ("version", i.version, MAX_NAME),
            ("provider", i.provider, MAX_NAME),
            ("request_model", i.request_model, MAX_NAME),
            ("response_model", i.response_model, MAX_NAME),
            ("prompt_name", i.prompt_name, MAX_NAME),
            ("prompt_version", i.prompt_version, MAX_NAME),
            ("arm", i.arm, MAX_NAME),
            ("error_type", i.error_type, MAX_NAME),
            ("conversation", i.conversation, MAX_ID),
            ("trace_id", i.trace_id, MAX_ID),
            ("span_id", i.span_id, MAX_ID),
            ("parent_id", i.parent_id, MAX_ID),
            ("traceparent", i.traceparent, MAX_ID),
            ("user", i.user, MAX_ID),
            ("producer_instance", i.producer_instance, MAX_ID),
        ),
        _INTERACTION_REQUIRED,
    )
    _check_numbers(
        (
            ("latency_ms", i.latency_ms),
            ("time_to_first_chunk_ms", i.time_to_first_chunk_ms),
            ("cost_usd", i.cost_usd),
            ("input_tokens", i.input_tokens),
            ("output_tokens", i.output_tokens),
            ("turn", i.turn),
            ("route_epoch", i.route_epoch),
            ("producer_sequence", i.producer_sequence),
        )
    )
    _check_messages("input", i.input)
    _check_messages("output", i.output)
    if i.finish_reasons:
        _check_strings((("finish_reasons", reason, MAX_NAME) for reason in i.finish_reasons), frozenset())
    if i.tool_calls:
        _check_strings((("tool_calls", call.name, MAX_NAME) for call in i.tool_calls), frozenset())
    if i.response_format is not None:
        asked = i.response_format
        _check_strings((("response_format", asked.type, MAX_NAME),), frozenset({"response_format"}))
        if asked.schema is not None and len(asked.schema) > MAX_SCHEMA:
            raise InvalidMessage("too_long", f"longer than {MAX_SCHEMA} characters", "response_format")
    if i.attributes:
        _check_attributes(i.attributes)


def validate_feedback(feedback: Feedback) -> None:
    """Raise InvalidMessage (`invalid`, `too_long`, `too_many`, with the field) for names, ids or a score out of bounds."""
    f = feedback
    _check_strings(
        (
            ("id", f.id, MAX_ID),
            ("interaction_id", f.interaction_id, MAX_ID),
            ("name", f.name, MAX_NAME),
            ("app", f.app, MAX_NAME),
            ("environment", f.environment, MAX_NAME),
            ("version", f.version, MAX_NAME),
            ("label", f.label, MAX_NAME),
            ("actor", f.actor, MAX_ID),
            ("traceparent", f.traceparent, MAX_ID),
            ("producer_instance", f.producer_instance, MAX_ID),
        ),
        _FEEDBACK_REQUIRED,
    )
    if f.score is not None and not 0 <= f.score <= 1:
        raise InvalidMessage("invalid", "must be between 0 and 1", "score")
    _check_numbers((("producer_sequence", f.producer_sequence),))
    if f.attributes:
        _check_attributes(f.attributes)


def _check_strings(fields: Iterable[tuple[str, str | None, int]], required: frozenset[str]) -> None:
    for field, value, limit in fields:
        if value is None:
            continue
        if len(value) > limit:
            raise InvalidMessage("too_long", f"longer than {limit} characters", field)
        if not value and field in required:
            raise InvalidMessage("invalid", "must not be empty", field)
        if not value.isprintable() and _CONTROL.search(value):
            raise InvalidMessage("invalid", "control characters are not allowed", field)


def _check_numbers(fields: Iterable[tuple[str, float | None]]) -> None:
    for field, value in fields:
        if value is not None and not 0 <= value <= MAX_NUMBER:
            raise InvalidMessage("invalid", f"must be between 0 and {MAX_NUMBER:g}", field)


def _check_messages(field: str, messages: list[ChatMessage]) -> None:
    for message in messages:
        if len(message.role) > MAX_NAME or (message.name is not None and len(message.name) > MAX_NAME):
            raise InvalidMessage("too_long", f"a role or name is longer than {MAX_NAME} characters", field)
        if not isinstance(message.content, str):
            for part in message.content:
                if len(part.type) > MAX_NAME or (part.size is not None and not 0 <= part.size <= MAX_NUMBER):
                    raise InvalidMessage("invalid", "a content part's type or size is out of bounds", field)


def _check_attributes(attributes: Mapping[str, Scalar]) -> None:
    if len(attributes) > MAX_ENTRIES:
        raise InvalidMessage("too_many", f"more than {MAX_ENTRIES} attributes", "attributes")
    _check_strings((("attributes", name, MAX_NAME) for name in attributes), frozenset())
    if not all(-INT64 <= value < INT64 for value in attributes.values() if type(value) is int):
        raise InvalidMessage("invalid", "an integer does not fit in 64 bits", "attributes")
