"""Recall and precision per kind of what redaction finds in documents, with every miss and every false firing."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from core.pii_rules import KINDS
from core.redaction import Redactor
from tests.pii_documents import Document


@dataclass
class Counts:
    """Of one kind: values found whole, values missed, and what fired beside any value of the kind."""

    found: int = 0
    missed: list[str] = field(default_factory=list)
    false: list[str] = field(default_factory=list)

    @property
    def values(self) -> int:
        return self.found + len(self.missed)

    @property
    def fired(self) -> int:
        return self.found + len(self.false)


def evaluated(documents: Sequence[Document], redactor: Redactor) -> dict[str, Counts]:
    """A value counts as found when a finding of its kind covers all of it; a finding is false when it touches no value of its kind."""
    counts = {kind: Counts() for kind in KINDS}
    for document in documents:
        found = redactor.find(document.text)
        for value in document.values:
            whole = any(one.rule.kind == value.kind and one.start <= value.start and value.end <= one.end for one in found)
            text = document.text[value.start : value.end]
            if whole:
                counts[value.kind].found += 1
            else:
                counts[value.kind].missed.append(f"{text!r} in {document.text!r}")
        for one in found:
            touched = any(
                one.rule.kind == value.kind and one.start < value.end and value.start < one.end for value in document.values
            )
            if not touched:
                text = document.text[one.start : one.end]
                counts[one.rule.kind].false.append(f"{one.rule.name} {text!r} in {document.text!r}")
    return counts
