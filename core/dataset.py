"""Feedback on answers → rows to fine-tune on, rows held out for the gate, and a manifest that says what was left out and why."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

import msgspec

from core.near_duplicates import Leaders, WordWeights, content_words, words
from core.redaction import Redacted
from core.redaction_policy import placeholders_in
from core.scoring.answer import repeated
from core.scoring.refusal import refusal
from schemas.messages import DatasetRules

SAME_PHRASING: Final = Fraction(4, 5)
"""Similarity from which two questions are the same phrasing: one row, one vote, on one side of the split."""
SAME_SUBJECT: Final = Fraction(2, 5)
"""Similarity from which two questions are about the same thing, for the cap per cluster."""
SAME_ANSWER: Final = Fraction(4, 5)
MIN_RATINGS: Final = 50
"""Well-rated answers that are taken at least; beyond these, no more than there are corrections: what the champion answers well
already teaches little, and would hide in the gate what a candidate has learnt."""
_encode = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One act of feedback with the interaction that it is about; all text redacted."""

    id: str
    interaction: str
    source: str
    """Coordinates of the act: topic id/partition/offset."""
    arrival: int
    """Append time, ms."""
    actor: str
    """Empty where nobody is named; all of those count as one actor."""
    name: str
    by_receipt: bool
    correction: str = ""
    thumbs_down: bool | None = None
    question: str
    context: tuple[tuple[str, str], ...] = ()
    """(role, text) of the conversation before the question, without system messages."""
    response: str
    flags: frozenset[str] = frozenset()
    """What fired on the response: `refusal`, `pii`, `empty`, `repeated`, `unsafe`, `error`, `truncated`, `tools`, `media`; on the
    question: `unsafe question`, `attack`."""

    @property
    def asked(self) -> str:
        return "\n".join([*(text for _, text in self.context), self.question])


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A question with the answer to be learnt, or to be compared with."""

    context: tuple[tuple[str, str], ...]
    question: str
    answer: str
    actor: str
    kind: str
    """`correction` or `rating`."""
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Dataset:
    """Rows, and the manifest as JSON-able values."""

    training: list[Row]
    held_out: list[Row]
    manifest: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)
    """`training.jsonl` (the provider's format), `held_out.jsonl`, `manifest.json`."""

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.files["manifest.json"]).hexdigest()[:32]


def build_dataset(
    acts: Iterable[Act],
    rules: DatasetRules,
    *,
    app: str,
    environment: str,
    config: str = "",
    system_prompt: str | None = None,
) -> Dataset:
    """The dataset of one app. Depends on the acts, not on their order.

    An actor's last word on an interaction counts. Questions of the same phrasing make one row, whose answer is the one that
    most actors stand for (thumbs down count against; no majority, no row). Caps bound what one actor, and one cluster of
    near-equal questions or near-equal answers, can put in. The split is by phrasing, so that none is on both sides.
    """
    left_out: Counter[str] = Counter()
    ordered = sorted(acts, key=lambda act: (act.arrival, act.source))
    usable = [act for act in _last_words(ordered, left_out) if _usable(act, left_out)]
    rows = _voted(usable, left_out)
    kept = _capped(rows, rules, left_out)
    training = [row for row in kept if not _is_held_out(row, rules)]
    held_out = [row for row in kept if _is_held_out(row, rules)]
    files = {
        "training.jsonl": b"".join(_encode(_training_line(row, system_prompt)) + b"\n" for row in training),
        "held_out.jsonl": b"".join(_encode(row) + b"\n" for row in held_out),
    }
    manifest = {
        "app": app,
        "environment": environment,
        "config": config,
        "rules": msgspec.to_builtins(rules),
        "acts": len(ordered),
        "first_arrival": ordered[0].arrival if ordered else None,
        "last_arrival": ordered[-1].arrival if ordered else None,
        "rows": {"training": len(training), "held_out": len(held_out)},
        "kinds": dict(sorted(Counter(row.kind for row in kept).items())),
        "left_out": dict(sorted(left_out.items())),
        "actors": len({row.actor for row in kept}),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "sources": sorted(source for row in kept for source in row.sources),
    }
    return Dataset(training, held_out, manifest, files | {"manifest.json": _encode(manifest)})


def read_held_out(data: bytes) -> list[Row]:
    """The rows of a `held_out.jsonl`. Raises msgspec.MsgspecError."""
    return [msgspec.json.decode(line, type=Row) for line in data.splitlines()]


def messages(row: Row, system_prompt: str | None) -> list[dict[str, str]]:
    """What a model is asked for a row, in the chat format."""
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return [
        *system,
        *({"role": role, "content": text} for role, text in row.context),
        {"role": "user", "content": row.question},
    ]


def _training_line(row: Row, system_prompt: str | None) -> dict[str, Any]:
    return {"messages": [*messages(row, system_prompt), {"role": "assistant", "content": row.answer}]}


def _last_words(ordered: Sequence[Act], left_out: Counter[str]) -> list[Act]:
    """Each actor's last act of a name on an interaction. Acts without an actor replace nothing."""
    last = {(act.interaction, act.name, act.actor or act.id): act for act in ordered}
    kept = sorted(last.values(), key=lambda act: (act.arrival, act.source))
    _count(left_out, "replaced by a later act", len(ordered) - len(kept))
    return kept


def _usable(act: Act, left_out: Counter[str]) -> bool:
    reason = _why_not(act)
    if reason:
        left_out[reason] += 1
    return reason is None


def _why_not(act: Act) -> str | None:
    """Why an act teaches nothing; None where it does."""
    if not words(act.question):
        return "question: no words"
    for flag in ("error", "truncated", "tools", "media", "unsafe question", "attack"):
        if flag in act.flags:
            return f"interaction: {flag}"
    if not act.correction:
        if act.thumbs_down is None:
            return "neither correction nor rating"
        if not act.by_receipt:
            return "rating without receipt"
        if act.thumbs_down:
            return None
        for flag in ("empty", "refusal", "pii", "repeated", "unsafe"):
            if flag in act.flags:
                return f"answer: {flag}"
    return _flaw(act.correction or act.response)


def _flaw(answer: str) -> str | None:
    """Why an answer must not be learnt; None for a good one."""
    if not words(answer):
        return "answer: empty"
    if refusal(answer):
        return "answer: refusal"
    if placeholders_in(answer):
        return "answer: pii"
    return "answer: repeated" if repeated(Redacted(answer)).value else None


def _voted(acts: Sequence[Act], left_out: Counter[str]) -> list[Row]:
    """One row per phrasing, in the order in which the phrasings first came."""
    questions = [content_words(act.asked) for act in acts]
    phrasings = Leaders(SAME_PHRASING, WordWeights(questions))
    groups: dict[int, list[Act]] = defaultdict(list)
    for act, question in zip(acts, questions, strict=True):
        groups[phrasings.place(question)].append(act)
    return [row for _, group in sorted(groups.items()) if (row := _winner(group, left_out)) is not None]


def _winner(group: Sequence[Act], left_out: Counter[str]) -> Row | None:
    answers = [frozenset(words(act.correction or act.response)) for act in group]
    same = Leaders(SAME_ANSWER, WordWeights(answers))
    stands: dict[int, list[Act]] = defaultdict(list)
    against: dict[int, set[str]] = defaultdict(set)
    for act, answer in zip(group, answers, strict=True):
        number = same.place(answer)
        if act.correction or not act.thumbs_down:
            stands[number].append(act)
        else:
            against[number].add(act.actor)
    votes = {number: len({act.actor for act in acts}) - len(against[number]) for number, acts in stands.items()}
    _count(left_out, "thumbs down", sum(1 for act in group if not act.correction and act.thumbs_down))
    for number in [number for number, net in votes.items() if net < 1]:
        _count(left_out, "more actors against than for", len(stands.pop(number)))
        del votes[number]
    if not votes:
        return None
    ranking = sorted(votes, key=lambda number: (votes[number], sum(1 for a in stands[number] if a.correction)), reverse=True)
    best = ranking[0]
    if len(ranking) > 1 and (votes[ranking[1]], _corrections(stands[ranking[1]])) == (votes[best], _corrections(stands[best])):
        _count(left_out, "contradicted, and no majority", sum(len(stands[number]) for number in ranking))
        return None
    _count(left_out, "contradicted by more actors", sum(len(stands[number]) for number in ranking[1:]))
    _count(left_out, "near-duplicate", len(stands[best]) - 1)
    first, chosen = group[0], stands[best][0]
    return Row(
        context=first.context,
        question=first.question,
        answer=chosen.correction or chosen.response,
        actor=chosen.actor,
        kind="correction" if chosen.correction else "rating",
        sources=tuple(act.source for act in stands[best]),
    )


def _corrections(acts: Sequence[Act]) -> int:
    return sum(1 for act in acts if act.correction)


def _capped(rows: Sequence[Row], rules: DatasetRules, left_out: Counter[str]) -> list[Row]:
    """The newest rows that the caps let in, oldest first."""
    questions = [content_words(row.question) for row in rows]
    answers = [frozenset(words(row.answer)) for row in rows]
    subjects, same = Leaders(SAME_SUBJECT, WordWeights(questions)), Leaders(SAME_ANSWER, WordWeights(answers))
    places = [(subjects.place(q), same.place(a)) for q, a in zip(questions, answers, strict=True)]
    by_actor, by_subject, by_answer = Counter[str](), Counter[int](), Counter[int]()
    ratings = max(sum(row.kind == "correction" for row in rows), MIN_RATINGS)
    kept: list[Row] = []
    for row, (subject, answer) in zip(reversed(rows), reversed(places), strict=True):
        if by_actor[row.actor] >= rules.per_actor:
            left_out["over the cap of an actor"] += 1
        elif by_subject[subject] >= rules.per_cluster or by_answer[answer] >= rules.per_cluster:
            left_out["over the cap of a cluster"] += 1
        elif row.kind == "rating" and ratings <= 0:
            left_out["more ratings than corrections"] += 1
        elif len(kept) >= rules.max_rows:
            left_out["over the cap of rows"] += 1
        else:
            by_actor[row.actor] += 1
            by_subject[subject] += 1
            by_answer[answer] += 1
            ratings -= row.kind == "rating"
            kept.append(row)
    return kept[::-1]


def _is_held_out(row: Row, rules: DatasetRules) -> bool:
    """By the phrasing's hash, so that a later dataset mostly splits as this one does."""
    asked = "\n".join([*(text for _, text in row.context), row.question])
    digest = hashlib.blake2b(" ".join(sorted(content_words(asked))).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < int(rules.held_out * 2**64)


def _count(left_out: Counter[str], reason: str, number: int) -> None:
    if number:
        left_out[reason] += number


def describe(manifest: Mapping[str, Any]) -> str:
    """A manifest in one sentence."""
    rows, left = manifest["rows"], manifest["left_out"]
    out = ", ".join(f"{count} {reason}" for reason, count in sorted(left.items(), key=lambda item: (-item[1], item[0])))
    return (
        f"{rows['training']} rows to train on and {rows['held_out']} held out, from {manifest['acts']} acts of feedback"
        f" by {manifest['actors']} actors; left out: {out or 'nothing'}"
    )
