"""What is plain about a call: how long until its first chunk, how many tokens came, whether a tool failed."""

from typing import Final

from core.scoring.batch import Batch, Scorer, Scores, unfired
from core.scoring.latency import micros
from schemas.messages import FIXED_ONE, Reason, Score, ToolCall

BY: Final = "call@1"
UNFIRED: Final = unfired("call", 1)
_MAX_REASONS: Final = 8


def score(batch: Batch) -> list[Scores]:
    """`first_chunk` in microseconds, `tokens.output`, `tool.error`; each only where the record has it."""
    results: list[Scores] = []
    for reading in batch.readings:
        scores: Scores = {}
        if reading.has("call"):
            said = reading.interaction
            first = micros(said.time_to_first_chunk_ms)
            if first is not None:
                scores["first_chunk"] = Score(scorer=BY, value=first)
            if said.output_tokens is not None:
                scores["tokens.output"] = Score(scorer=BY, value=said.output_tokens)
            if said.tool_calls:
                scores["tool.error"] = _tools(said.tool_calls)
        results.append(scores)
    return results


def _tools(calls: list[ToolCall]) -> Score:
    failed = [number for number, call in enumerate(calls) if call.error]
    if not failed:
        return UNFIRED
    return Score(
        scorer=BY, value=FIXED_ONE, reasons=[Reason(rule=f"tool_call_{number}_error") for number in failed[:_MAX_REASONS]]
    )


SCORER: Final = Scorer("call", 1, {"first_chunk": "call", "tokens.output": "call", "tool.error": "call"}, score)
