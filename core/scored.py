"""From what was said and what the scorers found to the scored record: integers and redacted text only."""

from core.attribution import Attributed
from core.scoring import ScoredFeedbackText, ScoredText
from schemas.messages import FIXED_ONE, Coordinates, Feedback, Interaction, ScoredFeedback, ScoredInteraction


def _scaled(value: float | None, scale: int) -> int | None:
    """Fixed-point; what the limits let through fits in 64 bits."""
    return None if value is None else round(value * scale)


def scored_interaction(
    coordinates: Coordinates, append_time: int, config: str, said: Interaction, version: str, text: ScoredText
) -> ScoredInteraction:
    """The scored record of an interaction; `version` is the one that it is monitored under."""
    return ScoredInteraction(
        coordinates=coordinates,
        append_time=append_time,
        config=config,
        id=said.id,
        app=said.app,
        version=version,
        environment=said.environment,
        time=said.time,
        kind=said.kind,
        part=said.part,
        provider=said.provider,
        request_model=said.request_model,
        response_model=said.response_model,
        prompt_name=said.prompt_name,
        prompt_version=said.prompt_version,
        arm=said.arm,
        route_epoch=said.route_epoch,
        turn=said.turn,
        conversation=said.conversation,
        trace_id=said.trace_id,
        span_id=said.span_id,
        parent_id=said.parent_id,
        user=text.user,
        prompt=text.prompt,
        response=text.response,
        messages=text.messages,
        tool_calls=text.tool_calls,
        documents=text.documents,
        finish_reasons=text.finish_reasons,
        input_tokens=said.input_tokens,
        output_tokens=said.output_tokens,
        latency_us=_scaled(said.latency_ms, 1_000),
        first_chunk_us=_scaled(said.time_to_first_chunk_ms, 1_000),
        cost_microusd=_scaled(said.cost_usd, 1_000_000),
        error_type=text.error_type,
        attributes=text.attributes,
        parts_not_scored=text.parts_not_scored,
        text_truncated=text.text_truncated,
        scores=text.scores,
    )


def scored_feedback(
    coordinates: Coordinates, append_time: int, config: str, said: Feedback, to: Attributed, text: ScoredFeedbackText
) -> ScoredFeedback:
    """The scored record of a feedback act, attributed to whom its receipt or its sender names."""
    return ScoredFeedback(
        coordinates=coordinates,
        append_time=append_time,
        config=config,
        id=said.id,
        interaction_id=said.interaction_id,
        name=said.name,
        kind=said.kind,
        attribution=to.attribution,
        time=said.time,
        app=to.app,
        environment=to.environment,
        version=to.version,
        turn=to.turn,
        route_epoch=to.route_epoch,
        score=_scaled(said.score, FIXED_ONE),
        label=text.label,
        comment=text.comment,
        correction=text.correction,
        actor=text.actor,
        attributes=text.attributes,
        receipt_error=to.receipt_error,
        scores=text.scores,
    )
