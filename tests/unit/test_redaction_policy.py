"""What becomes of a finding: mask, keyed hash or drop, per app, environment and kind."""

import re
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.pii_rules import KINDS
from core.redaction import Redacted, Redactor
from core.redaction_policy import DROPPED, check_redaction, placeholders_in
from schemas.messages import RedactionRule

KEYS = {"k1": b"first key of sixteen", "k2": b"second key of sixteen"}
HASH = RedactionRule(kind="email", action="hash", key="k1")


@cache
def redactor_with(rules: tuple[RedactionRule, ...]) -> Redactor:
    return Redactor(32_768, policy=rules, keys=KEYS)


def redact(text: str, *rules: RedactionRule, app: str = "desk", environment: str = "production") -> Redacted:
    return redactor_with(rules).of(app, environment).redact(text)


def test_without_a_rule_a_finding_is_masked() -> None:
    assert redact("a@b.example").text == "[EMAIL]"


def test_a_hash_stands_behind_its_kind_and_is_the_span() -> None:
    result = redact("write to a@b.example now", HASH)
    assert re.fullmatch(r"write to \[EMAIL:[a-p]{16}\] now", result.text)
    (span,) = result.spans
    assert result.text[span.start : span.end] == result.text[9:-4]


def test_equal_values_give_equal_hashes_whatever_their_form() -> None:
    rule = RedactionRule(action="hash", key="k1")
    one = redact("card 4111 1111 1111 1111", rule).text.split()[1]
    assert redact("card 4111-1111-1111-1111", rule).text.split()[1] == one
    assert redact("card 4111\u00a01111\u00a01111\u00a01111", rule).text.split()[1] == one
    assert redact("card 5500-0055-5555-5559", rule).text.split()[1] != one


@pytest.mark.parametrize(
    "other",
    [
        redact("a@b.example", HASH, app="shop"),
        redact("a@b.example", RedactionRule(kind="email", action="hash", key="k2")),
        redact("b@b.example", HASH),
    ],
)
def test_hashes_of_another_app_key_or_value_do_not_join(other: Redacted) -> None:
    assert redact("a@b.example", HASH).text != other.text


def test_a_hash_without_its_key_is_a_mask_and_is_said() -> None:
    redactor = Redactor(32_768, policy=[RedactionRule(action="hash", key="gone"), RedactionRule(action="hash")], keys=KEYS)
    assert redactor.of("desk", "production").redact("a@b.example").text == "[EMAIL]"
    assert redactor.missing_keys == {"gone", ""}


def test_an_empty_key_is_no_key() -> None:
    redactor = Redactor(32_768, policy=[HASH], keys={"k1": b""})
    assert redactor.of("desk", "production").redact("a@b.example").text == "[EMAIL]"
    assert redactor.missing_keys == {"k1"}


def test_drop_keeps_nothing_of_the_text_and_says_what_was_in_it() -> None:
    result = redact("my ssn is 219-09-9999, mail a@b.example", RedactionRule(kind="ssn", action="drop"))
    assert result.text == DROPPED
    assert [span.rule for span in result.spans] == ["ssn", "email"]
    assert result.dropped


def test_drop_of_a_kind_leaves_texts_without_it() -> None:
    assert redact("mail a@b.example", RedactionRule(kind="ssn", action="drop")).text == "mail [EMAIL]"


def test_the_first_rule_that_fits_counts() -> None:
    rules = (
        RedactionRule(app="desk", environment="staging", action="drop"),
        RedactionRule(app="desk", kind="email", action="mask"),
        HASH,
    )
    assert redact("a@b.example", *rules).text == "[EMAIL]"
    assert redact("a@b.example", *rules, environment="staging").text == DROPPED
    assert redact("a@b.example", *rules, app="shop").text.startswith("[EMAIL:")


def test_a_placeholder_is_no_context_for_what_follows() -> None:
    assert redact("[SSN] 000000001, [PHONE] 5550123456 and [SSN:aaaabbbbccccdddd] 000000001").spans == ()


def test_an_app_that_is_not_known_gets_no_hash_and_what_any_app_drops_is_dropped() -> None:
    redactor = Redactor(32_768, policy=[RedactionRule(app="desk", kind="ssn", action="drop"), HASH], keys=KEYS).of(
        None, "production"
    )
    assert redactor.redact("a@b.example").text == "[EMAIL]"
    assert redactor.redact("a@b.example 219-09-9999").text == DROPPED


def test_what_redaction_puts_into_a_text_is_recognised_in_any_form() -> None:
    assert placeholders_in(redact("a@b.example", HASH).text) == {"[EMAIL]"}
    assert placeholders_in(DROPPED) == {DROPPED}
    assert placeholders_in("[] is a list") == set()


@given(st.sampled_from(["mask", "hash", "drop"]), st.sampled_from(KINDS), st.text(max_size=20), st.text(max_size=20))
def test_redacting_twice_changes_nothing(action: str, kind: str, before: str, behind: str) -> None:
    text = f"{before} a@b.example, 219-09-9999, +49 30 1234567 {behind}"
    rule = RedactionRule(kind=kind, action=action, key="k1")  # type: ignore[arg-type]  # one of the three
    once = redact(text, rule).text
    assert redact(once, rule).text == once


@pytest.mark.parametrize(
    ("rule", "says"),
    [(RedactionRule(kind="e-mail", action="drop"), "no kind e-mail"), (RedactionRule(action="hash"), "without the id of a key")],
)
def test_a_rule_that_would_not_do_what_it_says_is_refused(rule: RedactionRule, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_redaction([HASH, rule])
