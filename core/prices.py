"""What tokens cost: a dated table of list prices, which an installation's config overrides, and exact sums in micro-USD."""

import re
from collections.abc import Iterable
from typing import Final

from schemas.messages import Price

_DATE: Final = "2025-06-01"
"""When the built-in prices were written down, from the providers' public price pages. Prices change: override them."""


def _usd(model: str, input_: str, output: str) -> Price:
    """A price given in USD per million tokens."""
    return Price(model=model, input=_microusd(input_), output=_microusd(output), date=_DATE)


def _microusd(usd: str) -> int:
    whole, _, part = usd.partition(".")
    return int(whole) * 1_000_000 + int(part.ljust(6, "0"))


PRICES: Final = (
    # OpenAI and Azure OpenAI: https://openai.com/api/pricing
    _usd("gpt-4.1", "2", "8"),
    _usd("gpt-4.1-mini", "0.4", "1.6"),
    _usd("gpt-4.1-nano", "0.1", "0.4"),
    _usd("gpt-4o", "2.5", "10"),
    _usd("gpt-4o-mini", "0.15", "0.6"),
    _usd("gpt-4-turbo", "10", "30"),
    _usd("gpt-4", "30", "60"),
    _usd("gpt-3.5-turbo", "0.5", "1.5"),
    _usd("gpt-35-turbo", "0.5", "1.5"),
    _usd("o1", "15", "60"),
    _usd("o1-mini", "1.1", "4.4"),
    _usd("o3-mini", "1.1", "4.4"),
    _usd("o4-mini", "1.1", "4.4"),
    # Anthropic: https://www.anthropic.com/pricing
    _usd("claude-opus-4", "15", "75"),
    _usd("claude-sonnet-4", "3", "15"),
    _usd("claude-3-7-sonnet", "3", "15"),
    _usd("claude-3-5-sonnet", "3", "15"),
    _usd("claude-3-5-haiku", "0.8", "4"),
    _usd("claude-3-opus", "15", "75"),
    _usd("claude-3-sonnet", "3", "15"),
    _usd("claude-3-haiku", "0.25", "1.25"),
    # Google, prompts up to 200,000 tokens: https://ai.google.dev/pricing
    _usd("gemini-2.0-flash", "0.1", "0.4"),
    _usd("gemini-2.0-flash-lite", "0.075", "0.3"),
    _usd("gemini-1.5-pro", "1.25", "5"),
    _usd("gemini-1.5-flash", "0.075", "0.3"),
    _usd("gemini-1.5-flash-8b", "0.0375", "0.15"),
    # Mistral: https://mistral.ai/pricing
    _usd("mistral-large", "2", "6"),
    _usd("mistral-medium", "0.4", "2"),
    _usd("mistral-small", "0.1", "0.3"),
    _usd("codestral", "0.3", "0.9"),
    _usd("ministral-8b", "0.1", "0.1"),
    _usd("ministral-3b", "0.04", "0.04"),
    _usd("open-mistral-nemo", "0.15", "0.15"),
)
"""Without discounts for cached or batched tokens, and without what a region or a contract adds."""

_LONGEST: Final = 256
_MOST: Final = 10**12
_RELEASE: Final = re.compile(r"(?:[-@](?:\d{4}-\d{2}-\d{2}|\d{8}|\d{3,4}|latest|v\d+)|:\d+)*")
"""What may follow a model's name without making it another model: dates, release numbers, `latest`."""
_VENDOR: Final = re.compile(r"(?:.*/)?(?:(?:us|eu|apac|global)\.)?(?:(?:anthropic|mistral|openai)\.)?", re.DOTALL)


def price_of(model: str, own: Iterable[Price] = ()) -> Price | None:
    """The price of a model, the installation's own before the built-in ones; None for a model that nobody priced.

    >>> price_of("openai/gpt-4o-mini-2024-07-18").model
    'gpt-4o-mini'
    >>> price_of("gpt-4o-something-new") is None
    True
    """
    if len(model) > _LONGEST:
        return None
    whole = model.lower()
    found = _VENDOR.match(whole)
    name = whole[found.end() :] if found else whole
    for prices in (own, PRICES):
        for price in prices:
            if any(given.startswith(price.model) and _RELEASE.fullmatch(given, len(price.model)) for given in (whole, name)):
                return price
    return None


def cost(price: Price, input_tokens: int, output_tokens: int) -> int:
    """Micro-USD, rounded to the nearest, halves up.

    >>> cost(price_of("gpt-4o"), 1_000, 100)
    3500
    """
    return (input_tokens * price.input + output_tokens * price.output + 500_000) // 1_000_000


def check_prices(own: Iterable[Price]) -> None:
    """Raises ValueError for prices that name no model, or are negative."""
    for price in own:
        if not price.model or price.model != price.model.lower():
            raise ValueError(f"prices: {price.model!r} is no beginning of a model's name in lower case")
        if not 0 <= min(price.input, price.output) <= max(price.input, price.output) <= _MOST:
            raise ValueError(f"prices: {price.model} must cost between 0 and {_MOST} micro-USD per million tokens")
