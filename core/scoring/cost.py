"""What a call cost: what the client says, else its tokens at the model's price; nothing where the price is not known."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from core.prices import cost, price_of
from core.scoring.batch import Batch, Scorer, Scores
from schemas.messages import Interaction, Price, Score

BY: Final = "cost@1"
STATED: Final = "stated"
_MOST: Final = 1 << 53


def score(batch: Batch) -> list[Scores]:
    """Value: micro-USD; label: `stated`, or the price's model and date."""
    results: list[Scores] = []
    for reading in batch.readings:
        found = cost_of(reading.interaction, batch.prices) if reading.has("call") else None
        results.append({} if found is None else {"cost": found})
    return results


def cost_of(said: Interaction, own: Sequence[Price]) -> Score | None:
    """A call's cost; None where it is not known."""
    if said.cost_usd is not None:
        micros = said.cost_usd * 1_000_000
        return Score(scorer=BY, value=round(micros), label=STATED) if 0 <= micros < _MOST else None
    if said.input_tokens is None or said.output_tokens is None:
        return None
    for model in (said.response_model, said.request_model):
        if model and (price := _price(model, tuple(own))):
            value = min(cost(price, said.input_tokens, said.output_tokens), _MOST)
            return Score(scorer=BY, value=value, label=_label(price))
    return None


@lru_cache(1_024)
def _price(model: str, own: tuple[Price, ...]) -> Price | None:
    return price_of(model, own)


@lru_cache(1_024)
def _label(price: Price) -> str:
    return f"{price.model} {price.date}".strip()


SCORER: Final = Scorer("cost", 1, {"cost": "call"}, score)
