"""How well redaction does on the documents that we wrote, kind by kind."""

import pytest
import re2

from core.pii_rules import KINDS, RULES, Rule
from core.redaction import Redactor
from tests.pii_documents import PARTS, documents
from tests.pii_documents.evaluation import evaluated

ALL = [document for part in PARTS for document in documents(part)]


def bytewise(pattern: str) -> "re2._Regexp":
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    return re2.compile(pattern.encode(), options)


COUNTS = evaluated(ALL, Redactor(1 << 20))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_enough_documents_and_as_many_look_alikes(kind: str) -> None:
    about = [document for document in ALL if document.kind == kind]
    positive = sum(any(value.kind == kind for value in document.values) for document in about)
    look_alikes = sum(not document.values for document in about)
    assert positive >= 75
    assert look_alikes >= 100


@pytest.mark.parametrize("part", ["blind", "second", "third"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_later_parts_have_values_and_look_alikes_enough(kind: str, part: str) -> None:
    found = documents(part)
    assert sum(value.kind == kind for document in found for value in document.values) >= 25
    assert sum(document.kind == kind and not document.values for document in found) >= 25


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.sign is not None], ids=lambda rule: rule.name)
def test_the_sign_of_a_rule_hits_wherever_its_pattern_does(rule: Rule) -> None:
    pattern, sign = (bytewise(text) for text in (rule.pattern, rule.sign or ""))
    texts = [document.text.encode() for document in ALL]
    hit = [text for text in texts if pattern.search(text)]
    assert hit
    assert [text for text in hit if not sign.search(text)] == []


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
