"""How well redaction does on the documents that we wrote, kind by kind."""

import pytest

from core.pii_rules import KINDS
from core.redaction import Redactor
from tests.pii_documents import PARTS, documents
from tests.pii_documents.evaluation import evaluated

ALL = [document for part in PARTS for document in documents(part)]
COUNTS = evaluated(ALL, Redactor(1 << 20))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_enough_documents_and_as_many_look_alikes(kind: str) -> None:
    about = [document for document in ALL if document.kind == kind]
    positive = sum(any(value.kind == kind for value in document.values) for document in about)
    look_alikes = sum(not document.values for document in about)
    assert positive >= 25
    assert look_alikes >= 25


@pytest.mark.parametrize("kind", KINDS)
def test_recall_and_precision_are_what_is_promised(kind: str) -> None:
    counts = COUNTS[kind]
    assert counts.found / counts.values >= 0.97, counts.missed
    assert counts.found / counts.fired >= 0.95, counts.false


def test_no_found_value_is_left_in_the_redacted_document() -> None:
    redactor = Redactor(1 << 20)
    for document in ALL:
        text = redactor.redact(document.text).text
        for one in redactor.find(document.text):
            value = document.text[one.start : one.end]
            assert text.count(value) < document.text.count(value), document.text
