"""To whom a feedback act is attributed: to what its receipt proves, to what the client stated, or to nobody."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from core.identity import FIRST_TURN, Turns
from core.receipts import InvalidReceipt, verify
from schemas.messages import Feedback

DEFAULT_ENVIRONMENT = "production"


@dataclass(frozen=True)
class Attributed:
    """Whose answer the act is about. `pair` is (app, environment, version) where the act counts for detection."""

    attribution: Literal["receipt", "stated", "none"]
    app: str | None
    environment: str | None
    version: str | None
    turn: int | None = None
    route_epoch: int | None = None
    receipt_error: str | None = None
    sampled: bool = False

    @property
    def turns(self) -> Turns:
        """With which turns the act is counted; an act of which no receipt tells the turn is taken for one on a first turn."""
        if self.turn is None or self.turn <= FIRST_TURN:
            return "first"
        return "later" if self.sampled else "rest"

    @property
    def pair(self) -> tuple[str, str, str] | None:
        if self.attribution == "none" or self.app is None or self.version is None:
            return None
        return self.app, self.environment or DEFAULT_ENVIRONMENT, self.version


def attribute(said: Feedback, keys: Mapping[str, Ed25519PublicKey]) -> Attributed:
    """By the receipt where it verifies and names this interaction; else by app and version as stated; else to nobody.

    A receipt wins over what is stated; that the two differ is recorded.
    """
    error = None
    if said.receipt is not None:
        try:
            receipt = verify(said.receipt, keys)
        except InvalidReceipt as invalid:
            error = invalid.reason
        else:
            if receipt.interaction_id == said.interaction_id:
                version = receipt.version if receipt.version is not None else said.version
                proven = (receipt.app, receipt.environment, version)
                stated = (said.app, said.environment, said.version)
                agrees = all(claim in (None, fact) for claim, fact in zip(stated, proven, strict=True))
                error = None if agrees else "contradicts what is stated"
                return Attributed("receipt", *proven, receipt.turn, receipt.route_epoch, error, receipt.sampled)
            error = "names another interaction"
    if said.app is not None and said.version is not None:
        return Attributed("stated", said.app, said.environment or DEFAULT_ENVIRONMENT, said.version, receipt_error=error)
    return Attributed("none", said.app, said.environment, said.version, receipt_error=error)
