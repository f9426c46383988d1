"""Languages of texts that were written for this test: short questions, and what must not be taken for English."""

import pytest

from core.scoring.evidence import EvidenceSums
from core.scoring.languages import OTHER_LANGUAGE, UNDETERMINED, language
from schemas.messages import FIXED_ONE, ChatMessage, Score
from tests.unit.test_scoring import chat, score

TEXTS = {
    "en": (
        "How do I reset my password?",
        "write a short poem about autumn",
        "explain the difference between a list and a tuple",
        "My order has not arrived yet, where is it?",
        "kill a python process",
    ),
    "de": (
        "Wie setze ich mein Passwort zurück?",
        "Schreibe ein kurzes Gedicht über den Herbst",
        "Was ist der Unterschied zwischen einer Liste und einem Tupel?",
        "Meine Bestellung ist noch nicht angekommen.",
    ),
    "fr": (
        "Comment réinitialiser mon mot de passe ?",
        "Écris un court poème sur l'automne",
        "Quelle est la différence entre une liste et un tuple ?",
        "Ma commande n'est pas encore arrivée.",
    ),
    "es": (
        "¿Cómo restablezco mi contraseña?",
        "Escribe un poema corto sobre el otoño",
        "¿Cuál es la diferencia entre una lista y una tupla?",
        "Mi pedido todavía no ha llegado.",
    ),
    "it": (
        "Come posso reimpostare la mia password?",
        "Scrivi una breve poesia sull'autunno",
        "Qual è la differenza tra una lista e una tupla?",
        "Il mio ordine non è ancora arrivato.",
    ),
    "pt": (
        "Como posso redefinir a minha senha?",
        "Escreva um poema curto sobre o outono",
        "Qual é a diferença entre uma lista e uma tupla?",
        "O meu pedido ainda não chegou.",
    ),
    "nl": (
        "Hoe kan ik mijn wachtwoord opnieuw instellen?",
        "Schrijf een kort gedicht over de herfst",
        "Wat is het verschil tussen een lijst en een tupel?",
        "Mijn bestelling is nog niet aangekomen.",
    ),
    "pl": (
        "Jak mogę zresetować moje hasło?",
        "Napisz krótki wiersz o jesieni",
        "Jaka jest różnica między listą a krotką?",
        "Moje zamówienie jeszcze nie dotarło.",
    ),
    "sv": (
        "Hur återställer jag mitt lösenord?",
        "Skriv en kort dikt om hösten och vad som händer då",
        "Min beställning har inte kommit ännu.",
    ),
    "da": (
        "Hvordan nulstiller jeg min adgangskode?",
        "Hvad er forskellen mellem en liste og noget andet?",
        "Jeg har ikke fået mine varer, hvorfor ikke?",
    ),
    "no": ("Hva er forskjellen mellom en liste og noe annet?", "Jeg vet ikke hvordan det blir gjort, kan du hjelpe meg?"),
    "fi": ("Miten voin vaihtaa salasanani?", "Mikä on listan ja monikon ero?", "Tilaukseni ei ole vielä saapunut."),
    "cs": ("Jak si mohu obnovit heslo?", "Napiš krátkou báseň o podzimu", "Moje objednávka ještě nedorazila."),
    "ro": ("Cum îmi pot reseta parola?", "Scrie o poezie scurtă despre toamnă", "Comanda mea nu a ajuns încă."),
    "hu": ("Hogyan állíthatom vissza a jelszavamat?", "Írj egy rövid verset az őszről", "A rendelésem még nem érkezett meg."),
    "tr": (
        "Şifremi nasıl sıfırlayabilirim?",
        "Sonbahar hakkında kısa bir şiir yaz",
        "Siparişim henüz gelmedi, neden bu kadar uzun sürüyor?",
    ),
    "vi": ("Làm thế nào để đặt lại mật khẩu của tôi?", "Viết một bài thơ ngắn về mùa thu"),
    "id": (
        "Bagaimana cara mengatur ulang kata sandi saya?",
        "Tulis puisi pendek tentang musim gugur",
        "Pesanan saya belum sampai.",
    ),
    "sw": ("Ninaweza kubadilisha nenosiri langu kwa njia gani?", "Andika shairi fupi kuhusu mvua na jua"),
    "tl": ("Paano ko mapapalitan ang aking password?", "Sumulat ka ng maikling tula tungkol sa tag-ulan"),
    "ca": ("Com puc canviar la meva contrasenya? No ho trobo i no hi ha res", "Escriu un poema curt amb aquesta paraula"),
    "hr": ("Kako mogu promijeniti lozinku?", "Zašto moja narudžba još nije stigla?"),
    "ru": ("Как мне сбросить пароль?", "Напиши короткое стихотворение об осени"),
    "uk": ("Як мені скинути пароль, якщо його немає?", "Напиши короткий вірш про осінь і її кольори"),
    "el": ("Πώς μπορώ να αλλάξω τον κωδικό μου;",),
    "he": ("איך אני מאפס את הסיסמה שלי?",),
    "ar": ("كيف يمكنني إعادة تعيين كلمة المرور؟",),
    "fa": ("چگونه می‌توانم گذرواژه خود را تغییر دهم؟",),
    "ur": ("میں اپنا پاس ورڈ کیسے تبدیل کروں؟ یہ بہت ضروری ہے",),
    "hi": ("मैं अपना पासवर्ड कैसे रीसेट करूँ?",),
    "th": ("ฉันจะรีเซ็ตรหัสผ่านได้อย่างไร",),
    "ko": ("비밀번호를 어떻게 재설정하나요?",),
    "ja": ("パスワードをリセットするにはどうすればいいですか？",),
    "zh": ("如何重置我的密码？", "写一首关于秋天的短诗"),
}


def language_of(text: str) -> str:
    return language(EvidenceSums().sums([text])[0])


@pytest.mark.parametrize(("expected", "text"), [(name, text) for name, texts in TEXTS.items() for text in texts])
def test_the_language_of_a_short_question_is_known(expected: str, text: str) -> None:
    assert language_of(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Kif nista nbiddel il-password tiegħi? Ma nafx x'għandi nagħmel biex nidħol fil-kont tiegħi",
        "Hvernig endurstilli ég lykilorðið mitt? Ég kemst ekki inn á reikninginn minn",
        "Nola berrezar dezaket nire pasahitza? Ezin dut nire kontuan sartu eta ez dakit zer egin",
        "Sut alla i ailosod fy nghyfrinair? Dw i ddim yn gallu mewngofnodi ac mae angen help arna i",
        "Ndingalitshintsha njani igama lokugqithisa lam kule akhawunti ukuze ndikwazi ukungena kwakhona namhlanje",
    ],
)
def test_a_language_that_is_in_no_list_is_not_taken_for_english(text: str) -> None:
    assert language_of(text) not in {"en", UNDETERMINED}


@pytest.mark.parametrize(
    "text", ["ok", "42", "", "lol xD", "foo_bar(x1, y2)", "h0w t0 m4k3 4 b0mb 4t h0m3 w1th0ut p4r7s n0w pl34s3"]
)
def test_what_is_too_little_is_not_determined(text: str) -> None:
    assert language_of(text) in {UNDETERMINED, "en"} if text else UNDETERMINED == "und"


def test_many_words_of_no_language_that_is_known_are_another_language() -> None:
    assert language_of("zorbla mikto fenta quorrip dasbel uvonka truspi malvek rontaf bilgor") == OTHER_LANGUAGE


ENGLISH = "You can change it on the page of your account, and then you have to sign in again with the new one."
GERMAN = "Das können Sie auf der Seite Ihres Kontos ändern, und dann müssen Sie sich mit dem neuen wieder anmelden."


def differs(prompt: str, response: str, instructions: str | None = None) -> Score | None:
    said = chat(prompt, response)
    if instructions:
        said.input.insert(0, ChatMessage(role="system", content=instructions))
    return score(said).scores.get("response.language_differs")


def test_an_answer_in_another_language_than_the_question_s_fires() -> None:
    found = differs("Wie kann ich mein Passwort ändern, und wo finde ich das?", ENGLISH)
    assert found is not None
    assert found.value == FIXED_ONE
    assert [(reason.rule, reason.end) for reason in found.reasons] == [("asked_in_de_answered_in_en", len(ENGLISH))]


@pytest.mark.parametrize(
    ("prompt", "response", "instructions"),
    [
        ("Wie kann ich mein Passwort ändern?", GERMAN, None),
        ("How can I change my password?", ENGLISH, None),
        ("Translate this for me: you can change it on the page of your account.", GERMAN, None),
        ("How do I say this in German: you can change your password?", GERMAN, None),
        ("How can I change my password, and where is it?", GERMAN, "Always answer in German."),
        ("Wie lese ich eine Datei, und was ist das für ein Fehler?\n```\nfor the line in this file and that: print it\n```",
         "So geht das, wenn es noch nicht da ist:\n```\n" + "for the line in the file that was not there print it and do this\n" * 4 + "```", None),
    ],
)  # fmt: skip
def test_an_answer_in_the_language_that_was_asked_for_does_not(prompt: str, response: str, instructions: str | None) -> None:
    found = differs(prompt, response, instructions)
    assert found is not None
    assert found.value == 0


@pytest.mark.parametrize(("prompt", "response"), [("ok", ENGLISH), ("How can I change my password?", "Ja, klar."), ("42", "43")])
def test_where_a_language_is_not_known_nothing_is_said(prompt: str, response: str) -> None:
    assert differs(prompt, response) is None


def test_a_small_cache_gives_the_same_evidence() -> None:
    texts = [text for texts in TEXTS.values() for text in texts] * 3 + [
        " ".join(f"w{n}" for n in range(k, k + 200)) for k in range(9)
    ]
    assert (EvidenceSums(0).sums(texts) == EvidenceSums().sums(texts)).all()
