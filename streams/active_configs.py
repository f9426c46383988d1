"""From llm.config to what a block is scored with: the config that holds for its window, its scorers, its keys, the poison."""

from collections.abc import Callable

from core.blocks import ActiveConfig, TextScorer
from core.configs import ConfigLog
from core.receipts import public_keys
from schemas.messages import Config

MakeScoring = Callable[[Config], TextScorer]


class ActiveConfigs:
    """`for_window` first brings the config log up to date by `refresh`, then answers from it; scorers are made once per digest."""

    def __init__(self, log: ConfigLog, make_scoring: MakeScoring, refresh: Callable[[], None] | None = None) -> None:
        self._log, self._make_scoring, self._refresh = log, make_scoring, refresh
        self._made: dict[str, ActiveConfig] = {}

    def for_window(self, window: int) -> ActiveConfig:
        """What scores the block of a window. Raises core.configs.UnknownConfig."""
        if self._refresh is not None:
            self._refresh()
        digest = self._log.config_for(window)
        made = self._made.get(digest)
        if made is None or made.poison != self._log.poison:
            config = self._log.config(digest)
            scoring = made.scoring if made is not None else self._make_scoring(config)
            made = ActiveConfig(digest, config, scoring, public_keys(config.receipt_keys), self._log.poison)
            self._made[digest] = made
        return made
