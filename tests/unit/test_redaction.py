"""Redaction: what it finds, what it leaves alone, and that nothing of an original is left."""

import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.pii_rules import is_secret_name
from core.redaction import Redactor
from schemas.messages import Config

REDACTOR = Redactor(Config(scorers={}, embedding="", partitions={}, shards=1).max_text_bytes)

FOUND = [
    ("write to anna.schmidt+news@mail.example.org today", "anna.schmidt+news@mail.example.org", "email"),
    ("GET /user?email=li.wei%40example.net&x=1", "li.wei%40example.net", "email"),
    ("Ihre Adresse: jürgen@straße-büro.de!", "jürgen@straße-büro.de", "email"),
    ("it is +49 30 1234567, thanks", "+49 30 1234567", "phone"),
    ("(212) 555-0187 is my number", "(212) 555-0187", "phone"),
    ("reach me at 415.555.2671", "415.555.2671", "phone"),
    ("my phone number is 07700900123", "07700900123", "phone"),
    ("card 4111 1111 1111 1111 exp 12/29", "4111 1111 1111 1111", "card"),
    ("ids 1234 5500-0055-5555-5559 end", "5500-0055-5555-5559", "card"),
    ("amex 378282246310005", "378282246310005", "card"),
    ("pay to DE89 3704 0044 0532 0130 00 please", "DE89 3704 0044 0532 0130 00", "iban"),
    ("iban gb29nwbk60161331926819.", "gb29nwbk60161331926819", "iban"),
    ("ES91 2100 0418 4502 0005 1332 IBAN", "ES91 2100 0418 4502 0005 1332", "iban"),
    ("SSN: 536 22 8726", "536 22 8726", "ssn"),
    ("his social is 219-09-9999 I think", "219-09-9999", "ssn"),
    ("logged in from 93.184.216.34 at noon", "93.184.216.34", "ip_address"),
    ("host 1.1.1.9 is down", "1.1.1.9", "ip_address"),
    ("addr 2001:db8:85a3:0:0:8a2e:370:7334 up", "2001:db8:85a3:0:0:8a2e:370:7334", "ip_address"),
    ("key sk-proj-abcdEFGH1234ijklMNOP5678qrst", "sk-proj-abcdEFGH1234ijklMNOP5678qrst", "api_key"),
    ("AKIAIOSFODNN7EXAMPLE is set", "AKIAIOSFODNN7EXAMPLE", "api_key"),
    ("ghp_16C7e42F292c6912E7710c838347Ae178B4a", "ghp_16C7e42F292c6912E7710c838347Ae178B4a", "api_key"),
    ("xoxb-2431-abcDEF123456", "xoxb-2431-abcDEF123456", "api_key"),
    ("Authorization: Bearer abcdef0123456789ABCDEF.xyz", "abcdef0123456789ABCDEF.xyz", "bearer"),
    ("t=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.c2lnbmF0dXJl;", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.c2lnbmF0dXJl", "jwt"),
    ("db postgres://app:hunter2@db.example:5432/x?y=1 ok", "postgres://app:hunter2@db.example:5432/x?y=1", "connection_string"),
    ('password = "Tr0ub4dor&3"', "Tr0ub4dor&3", "password"),
    ("DB_PASS=s3cr3t!value", "s3cr3t!value", "password"),
    ("CREATE USER u IDENTIFIED BY 'zebra7stripes'", "zebra7stripes", "password"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "secret", "rule"), FOUND)
def test_a_finding_is_replaced_and_its_placeholder_is_the_span(text: str, secret: str, rule: str) -> None:
    result = REDACTOR.redact(text)
    assert secret not in result.text
    assert [span.rule for span in result.spans] == [rule]
    (span,) = result.spans
    placeholder = result.text[span.start : span.end]
    assert placeholder.startswith("[")
    assert placeholder.endswith("]")
    assert result.text.replace(placeholder, secret) == text


@pytest.mark.parametrize(
    "text",
    [
        "version 1.2.3.4 and section 10.2.3.40",
        "numpy==2.4.6.1 on v10.20.30.40",
        "127.0.0.1, 0.0.0.0 and 255.255.255.0",
        "the meeting is at 12:30:45, not 12:45:10:99",
        "std::vector<int>::iterator aa:bb:cc:dd:ee:ff",
        "4111 1111 1111 1112 has a wrong check digit",
        "the order number 123-45-6789 has shipped",
        "2024-01-15 10:00:00 and 1732428000000 ms",
        "DE00 3704 0044 0532 0130 00 fails its check",
        "f(a)@g, @decorator, user@localhost",
        "password=None, token = os.environ['X'], secret: str",
        "http://example.com:8080/a/b and git@host",
        "we tell you that 1000000 rows hotel 12345678",
        "pi is 3.14159265358979 and e 2.718281828459045",
        "sk-learn is a nickname; the task-force-of-many-people-in-town met",
        "a -----BEGIN CERTIFICATE----- is public",
        "978-3-16-148410-0 is an ISBN",
    ],
)
def test_a_look_alike_stays(text: str) -> None:
    assert REDACTOR.redact(text) == (text, (), False)


def test_a_private_key_goes_to_its_end_marker_and_not_beyond() -> None:
    text = "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIBOgIBAAJBAKj34GkxFhD9\n-----END RSA PRIVATE KEY-----\nthanks for looking"
    assert REDACTOR.redact(text).text == "a\n[PRIVATE_KEY]\nthanks for looking"


def test_spans_count_characters_behind_text_of_any_script() -> None:
    result = REDACTOR.redact("😀 почта: a@b.example и ещё c@d.example 終わり")
    assert result.text == "😀 почта: [EMAIL] и ещё [EMAIL] 終わり"
    assert {result.text[span.start : span.end] for span in result.spans} == {"[EMAIL]"}


def test_what_overlaps_becomes_one_placeholder() -> None:
    result = REDACTOR.redact("postgres://app:sk-abcdEFGH1234ijklMNOP5678@10.20.30.40/x")
    assert result.text == "[CONNECTION_STRING]"


def test_every_one_of_many_neighbours_is_found() -> None:
    assert REDACTOR.redact("219-09-9999,536-22-8726;219-09-9998").text == "[SSN],[SSN];[SSN]"


def test_a_text_is_cut_at_a_character_border() -> None:
    result = Redactor(10).redact("é" * 20)
    assert result == ("é" * 5, (), True)


def test_a_secret_across_the_cap_leaves_no_part_of_itself() -> None:
    for shift in range(30):
        result = Redactor(40).redact("x" * shift + " write to anna.schmidt@example.org now " + "y" * 5_000)
        assert "anna" not in result.text
        assert result.truncated


def test_a_long_secret_across_the_cap_does_not_come_back_from_the_margin() -> None:
    key = "-----BEGIN PRIVATE KEY-----\n" + "MIIBOgIBAAJBAKj34GkxFhD9\n" * 200
    assert Redactor(100).redact("my key: " + key).text == "my key: [PRIVATE_KEY]"


@pytest.mark.parametrize(
    ("text", "rule", "left"),
    [
        ("card \uff14\uff11\uff11\uff11 \uff11\uff11\uff11\uff11 1111 1111 ok", "card", "card [CARD] ok"),
        ("call +\u0664\u0669 \u0663\u0660 \u0661\u0662\u0663\u0664\u0665\u0666\u0667 now", "phone", "call [PHONE] now"),
        ("ssn 219\u201109\u20119999.", "ssn", "ssn [SSN]."),
        ("a\u200bnna@exam\u2060ple.org!", "email", "[EMAIL]!"),
        ("4\u200d111\u200b111111111111", "card", "[CARD]"),
        ("DE89\u00a03704\u202f0044\u00a00532\u00a00130\u00a000", "iban", "[IBAN]"),
        ("jürgen: anna\uff20example\uff0eorg", "email", "jürgen: [EMAIL]"),
        ("password: \u201ccorrect Horse 7 battery\u201d", "password", "password: \u201c[PASSWORD]\u201d"),
    ],
)
def test_characters_that_stand_in_for_ascii_or_hide_in_a_value_do_not_hide_it(text: str, rule: str, left: str) -> None:
    result = REDACTOR.redact(text)
    assert (result.text, [span.rule for span in result.spans]) == (left, [rule])


def test_invisible_characters_beside_a_value_do_not_hide_it() -> None:
    assert "219-09-9999" not in REDACTOR.redact("x\u200b219-09-9999\u200by").text


def test_a_surrogate_without_its_partner_is_replaced_and_hides_nothing() -> None:
    assert REDACTOR.redact("\ud83d a@b.example").text == "\ufffd [EMAIL]"


VALUES = st.sampled_from([value for _, value, _ in FOUND])
ODD = st.text(st.sampled_from("ab1 .,-:@\u00a0\u200b\u0661\uff11é😀\u2013\n"), max_size=12)


@given(st.lists(st.tuples(ODD, VALUES), min_size=1, max_size=4), ODD)
def test_spans_are_the_placeholders_and_the_rest_is_the_original(pieces: list[tuple[str, str]], last: str) -> None:
    text = " ".join(f"{odd} {value}" for odd, value in pieces) + " " + last
    found = REDACTOR.find(text)
    result = REDACTOR.redact(text)
    assert len(found) == len(result.spans)
    original = redacted = 0
    for one, span in zip(found, result.spans, strict=True):
        assert text[original : one.start] == result.text[redacted : span.start]
        assert result.text[span.start : span.end] == one.rule.placeholder
        original, redacted = one.end, span.end
    assert text[original:] == result.text[redacted:]


@given(ODD, st.sampled_from([case for case in FOUND if case[2] in ("email", "iban", "api_key", "jwt", "connection_string")]), ODD)
def test_what_needs_no_context_is_found_in_any(before: str, case: tuple[str, str, str], behind: str) -> None:
    assert case[1] not in REDACTOR.redact(f"{before} \n{case[1]}\n {behind}").text


@given(st.text(st.sampled_from("0123456789-. +()@ab:/\u200b\uff11"), max_size=60))
def test_what_is_found_is_gone(text: str) -> None:
    found = REDACTOR.find(text)
    left = REDACTOR.redact(text).text
    for one in found:
        value = text[one.start : one.end]
        assert left.count(value) < text.count(value)


def test_redacting_twice_changes_nothing() -> None:
    for text, _, _ in FOUND:
        once = REDACTOR.redact(text).text
        assert REDACTOR.redact(once).text == once


def hostile_texts() -> dict[str, str]:
    draw = Random(5)
    return {
        "null bytes": "\0" * 20_000,
        "10 MB": "lorem ipsum " * 900_000,
        "one word": "a" * 32_768,
        "digits": "".join(draw.choice("0123456789 -.") for _ in range(30_000)),
        "colons": "1:" * 16_000,
        "at signs": "a@" * 16_000,
        "key markers": "-----BEGIN PRIVATE KEY-----" * 1_000,
        "unclosed passwords": "password=" * 3_600,
        "ibans": "GB29 " * 6_000,
        "right to left": "שלום עולם " * 2_000,
        "emoji": "😀👩‍👩‍👧" * 2_000,
        "near addresses": "10.20.30." * 3_600,
        "near cards": "4111 1111 1111 1112 " * 1_600,
        "near ids": "12345678A " * 3_200,
        "near keys": "sk-" + "a-" * 16_000,
        "near MACs": "3c:5a:b4:1f:90:" * 2_100,
        "nested placeholders": "[EMAIL:" * 4_600,
        "zero width": "4\u200b" * 8_000,
        "wide digits": "\uff11" * 10_900,
        "right-to-left overrides": "\u202e1\u202c" * 4_600,
        "combining": "e" + "\u0301" * 20_000,
        "printable noise": "".join(chr(draw.randrange(32, 0x2FF)) for _ in range(20_000)),
    }


@pytest.mark.parametrize("name", hostile_texts())
def test_hostile_text_is_normal_input(name: str) -> None:
    text = hostile_texts()[name]
    started = time.process_time()
    result = REDACTOR.redact(text)
    print(f"{name}: {(time.process_time() - started) * 1000:.1f} ms")
    assert len(result.text.encode()) <= 32_768
    assert result.truncated == (len(text.encode()) > 32_768)


@pytest.mark.parametrize("letter", ["é", "密", "\U0001f600"])
@pytest.mark.parametrize("form", ["password={}", "Passwort: {}", 'password="{}"'])
def test_a_long_secret_of_wide_characters_is_replaced_to_its_end(form: str, letter: str) -> None:
    redacted = Redactor(65_536).redact(f"{form.format('Ab1' + letter * 300)} end")
    assert letter not in redacted.text
    assert redacted.text.endswith(" end")


@settings(deadline=None)
@given(st.text(alphabet="aB1é密 ='\"", max_size=20), st.sampled_from("é密\U0001f600"), st.integers(240, 270))
def test_no_length_of_a_value_cuts_a_character_in_two(before: str, letter: str, count: int) -> None:
    assert isinstance(Redactor(65_536).redact(f"{before} password=Ab1{letter * count}").text, str)


@pytest.mark.parametrize("name", ["contraseña", "пароль", "密码", "hasło", "db.password"])
def test_a_secrets_name_is_known_in_other_languages(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "text",
    [
        "see -----BEGIN PRIVATE KEY----- and -----BEGIN PRIVATE",
        "-----BEGIN PRIVATE KEY-----\n-----BEGIN",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY----- is the header. In JavaScript you read it with a library",
    ],
)
def test_markers_of_a_key_without_one_are_left_alone(text: str) -> None:
    assert Redactor(32_768).redact(text).text == text


def test_what_stands_behind_a_key_that_is_cut_off_stays() -> None:
    text = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nand then my editor died"
    assert Redactor(32_768).redact(text).text == "[PRIVATE_KEY]\nand then my editor died"
