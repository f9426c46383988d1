"""One scorer at a time."""

import pytest

from core.redaction import Redacted
from core.scoring.answer import repeated
from core.scoring.cut import words
from core.scoring.languages import language
from core.scoring.latency import micros
from core.scoring.thumbs import is_down
from core.scoring.words import WordSums
from schemas.messages import FIXED_ONE, Feedback
from tests.unit.embedding_twin import embedding_twin
from tests.unit.test_scoring import chat, score


@pytest.mark.parametrize(
    "text", ["the same line again and again\n" * 20, "no no no " * 20, "abcabc" * 30, "哈" * 100, "# # # # " * 30]
)
def test_repeated_output_fires_with_a_reason(text: str) -> None:
    result = repeated(Redacted(text))
    assert result.value > FIXED_ONE // 2
    assert result.reasons


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ok",
        "-" * 40,
        " ".join(f"word{number}" for number in range(300)),
        "A list of steps: open the file, read the file, close the file. Then open the next one, read it, and close it as well, please.",
        "北京是中华人民共和国的首都，也是全国的政治、文化、国际交往和科技创新中心，有三千多年的建城史和八百多年的建都史，是一座历史悠久的古城。",
    ],
)
def test_ordinary_output_is_not_repeated(text: str) -> None:
    assert (repeated(Redacted(text)).value, repeated(Redacted(text)).reasons) == (0, [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How do I read a file in Python?", "en"),
        ("Wie kann ich das Passwort ändern?", "de"),
        ("Comment puis-je changer mon mot de passe ?", "fr"),
        ("¿Cómo puedo cambiar mi contraseña?", "es"),
        ("Como posso mudar a minha senha? Não sei o que fazer.", "pt"),
        ("Come posso cambiare la mia password? Non so cosa fare.", "it"),
        ("Hoe kan ik mijn wachtwoord wijzigen?", "nl"),
        ("Jak mogę zmienić moje hasło? Nie wiem co zrobić.", "pl"),
        ("Hur kan jag ändra mitt lösenord? Det är inte bra.", "sv"),
        ("Şifremi nasıl değiştirebilirim? Bu çok önemli bir şey.", "tr"),
        ("Как мне изменить пароль?", "ru"),
        ("Як мені змінити пароль? Це її профіль.", "uk"),
        ("如何更改我的密码？", "zh"),
        ("パスワードを変更するにはどうすればいいですか", "ja"),
        ("비밀번호를 어떻게 바꾸나요?", "ko"),
        ("كيف أغير كلمة المرور؟", "ar"),
        ("چگونه گذرواژه را تغییر دهم؟", "fa"),
        ("איך אני משנה את הסיסמה?", "he"),
        ("मैं पासवर्ड कैसे बदलूं?", "hi"),
        ("Πώς αλλάζω τον κωδικό;", "el"),
        ("12345 !!! 😀", "und"),
        ("x = foo[bar] + baz", "und"),
    ],
)
def test_a_language_is_named(text: str, expected: str) -> None:
    assert language(WordSums(embedding_twin()).sums([text]).evidence[0]) == expected
    assert score(chat(text)).scores["prompt.language"].label == expected


def test_words_are_the_same_whether_or_not_a_text_is_ascii() -> None:
    text = "Read_csv(path, sep=';') " + "x" * 70
    assert words(text) == words(text + " …")


@pytest.mark.parametrize(
    ("ms", "us"),
    [(None, None), (0.0, 0), (12.3456, 12_346), (-1.0, None), (1e300, None), (float("inf"), None), (float("nan"), None)],
)
def test_latency_is_whole_microseconds(ms: float | None, us: int | None) -> None:
    assert micros(ms) == us


@pytest.mark.parametrize(
    ("fields", "down"),
    [
        ({"name": "thumbs", "score": 0.0}, True),
        ({"name": "thumbs", "score": 1.0}, False),
        ({"name": "Thumbs-Up-Down", "label": "DOWN"}, True),
        ({"name": "thumbs", "label": "up", "score": 0.0}, False),
        ({"name": "thumbs_down"}, True),
        ({"name": "like"}, False),
        ({"name": "rating", "label": "👎"}, True),
        ({"name": "user_feedback", "label": "-1"}, True),
        ({"name": "thumbs"}, None),
        ({"name": "copied", "score": 0.0}, None),
        ({"name": "thumbs", "score": 0.0, "kind": "evaluator"}, None),
    ],
)
def test_a_thumb_is_down_up_or_neither(fields: dict[str, object], down: bool | None) -> None:
    assert is_down(Feedback(id="f", interaction_id="i", **fields)) is down  # type: ignore[arg-type]


def test_the_topic_is_the_nearest_cell_and_its_name() -> None:
    table = embedding_twin()
    found = score(chat("how do i read a file")).scores
    vector = WordSums(table).sums(["how do i read a file"]).vectors[0].astype(int)
    fit = [sum(int(a) * int(b) for a, b in zip(vector, centroid, strict=True)) for centroid in table.centroids]
    assert found["topic"].value == fit.index(max(fit))
    assert found["topic"].label == table.cells[found["topic"].value]
    assert 0 <= found["novelty"].value <= FIXED_ONE
