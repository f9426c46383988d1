"""Thumbs down among the feedback acts of people."""

from typing import Final

from core.scoring.batch import ActScorer, Scores, unfired
from schemas.messages import FIXED_ONE, Feedback, Score


def _set(names: str) -> frozenset[str]:
    return frozenset(names.split())


NAMES: Final = _set(
    "thumbs thumb thumbs_up_down thumbs_up thumbs_down like dislike vote upvote downvote rating feedback user_feedback "
    "user_score user_rating reaction helpful"
)
_DOWN_NAMES: Final = _set("thumbs_down dislike downvote")
_UP_NAMES: Final = _set("thumbs_up like upvote")
_DOWN: Final = _set("down thumbs_down bad negative dislike dislikes no false unhelpful not_helpful downvote poor wrong 👎 -1 0")
_UP: Final = _set("up thumbs_up good positive like likes yes true helpful upvote great correct 👍 +1 1")
_BY: Final = "thumbs@1"
_UNFIRED: Final = unfired("thumbs", 1)
_FIRED: Final = Score(scorer=_BY, value=FIXED_ONE)


def is_down(act: Feedback) -> bool | None:
    """Whether an act says no; None where it says neither. A label decides before a score, a score before the name."""
    name = _plain(act.name)
    if act.kind == "evaluator" or name not in NAMES:
        return None
    label = _plain(act.label or "")
    if label in _DOWN:
        return True
    if label in _UP:
        return False
    if act.score is not None:
        return act.score < 0.5
    if name in _DOWN_NAMES:
        return True
    return False if name in _UP_NAMES else None


def score(act: Feedback) -> Scores:
    """Fires for a thumb down."""
    down = is_down(act)
    if down is None:
        return {}
    return {"thumbs.down": _FIRED if down else _UNFIRED}


def _plain(text: str) -> str:
    return text[:64].strip().lower().replace("-", "_").replace(" ", "_") if text not in ("-1", "+1") else text


SCORER: Final = ActScorer("thumbs", 1, {"thumbs.down": "act"}, score)
