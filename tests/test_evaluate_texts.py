"""Texts made comparable. Expected: by record of the leaderboard's own code at the revision that leaderboard.py names
(its EnglishTextNormalizer, its MultilingualNormalizer with num2words 0.5.14), unless a test says otherwise."""

import pytest

from cohere_lite.evaluate.leaderboard import _NAMES, LEADERBOARD_REVISION, leaderboard_english
from cohere_lite.evaluate.texts import WAYS, card_text, characters, leaderboard_text, scored

for package in "whisper_normalizer", "num2words", "kaldialign":
    pytest.importorskip(package)

ENGLISH = [
    ("He's John's dad, kinda.", "he is john s dad kinda"),
    ("It's what's been said; who's that, and whose?", "it is what has been said who is that and whose"),
    ("Dunno, sorta 'cause we gotta, wanna, gonna.", "dunno sorta cause we got to want to going to"),
    ("ah, well... uh-huh", "well ."),
    ("Um, hmm, mhm, I, uh, em... eh", "i ."),
    ("The B B C and wi-fi: a 5 G x-ray at 3 p.m.", "the bbc and wifi a5g xray at 3 pm"),
    ("I A and A B, A B C, i i", "i a and ababcii"),
    ("Et cetera, all right, how ever, O.K., e-mail", "etc alright however okay email"),
    ("Kathryn, Jon and Stephen MacDonald met Mohamad.", "catherine john and steven mcdonald met mohammed"),
    (
        "The colour of aluminium, cancelled travelogues, an archaeology flyer",
        "the color of aluminum canceled travelogs an archeology flier",
    ),
    ("He [noise] said (laughing) <unk> hello", "he said hello"),
    ("twenty-one thousand three hundred and five dollars and fifty cents", "$21305.50"),
    ("$20 million, 50 percent, one oh one, the 1960s, 32nd", "$20000000 50% 101 the 1960s 32nd"),
    ("two and a half, double seven, minus five", "2.577 -5"),
    ("Dr. Müller's café, naïve façade — Œuvre ß", "doctor muller s cafe naive facade oeuvre ss"),
    (
        "won't can't shan't I'd they've she'll we're y'all ain't",
        "will not can not sha not i would they have she will we are you all aint",
    ),
    ("Mr. and Mrs. Smith, St. John, Jr.", "mister and missus smith saint john junior"),
    ("1,000.50 and 3.14.", "1000.50 and 3.14"),
    ("ok, kay, etcetera", "okay okay etc"),
    ("", ""),
    ("...", "."),
    ("ignore time segment in scoring", "ignore time segment in scoring"),
]
OTHERS = [
    ("de", "x\u030cy", "x y"),
    (
        "de",
        "Die 21 Häuser, 1984 gebaut: 3,5 % [Lärm] (lacht) Straße",
        "die einundzwanzig häuser eintausendneunhundertvierundachtzig gebaut drei fünf straße",
    ),
    (
        "fr",
        "L’été, 10 000 œuvres et 1 000 000 d'idées; 71",
        "l été dix mille œuvres et mille zéro d idées soixante et onze",
    ),
    ("es", "¿Qué? ¡Señor! 16 años, 1.500", "qué señor dieciséis años mil quinientos"),
    ("it", "L'acqua è 28 gradi; perché (risata)?", "l acqua è ventotto gradi perché"),
    ("pt", "São 2 coisas, 22 não.", "são dois coisas vinte e dois não"),
    ("fr", "école, coeur ﬁn", "école coeur fin"),
]


@pytest.mark.parametrize(("text", "expected"), ENGLISH)
def test_english(text: str, expected: str) -> None:
    assert leaderboard_english(text) == leaderboard_text(text, "en") == expected


def test_names() -> None:
    """How many there are, and under how many names: by record."""
    assert (len(_NAMES), len({*_NAMES.values()})) == (152, 116)
    assert not {*_NAMES} & {*_NAMES.values()}  # or the order would matter


@pytest.mark.parametrize(("language", "text", "expected"), OTHERS)
def test_languages_of_the_leaderboard(language: str, text: str, expected: str) -> None:
    assert leaderboard_text(text, language) == expected


# By hand, where the leaderboard has no rules: its own would put a space in place of every mark.
@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("ar", "مُحَمَّدٌ، كتـاب!", "محمد كتاب"),  # harakat, and the stroke that stretches a word
        ("ja", "ｶﾞﾗｽが、か\u3099ラスー。", "ガラスが がラスー"),  # half-width kana; a voicing mark of its own
        ("ja", "ガラス、が", "ガラス が"),
        ("ko", "한국어, 말!", "한국어 말"),
        ("ko", "\u1112\u1161\u11ab", "한"),  # letters of a syllable, one by one
        ("zh", "你好，世界（笑）！ １２", "你好 世界 笑 12"),
        ("vi", "Tiê\u0301ng Việt!", "tiếng việt"),
        ("el", "Καλημέρα· τι;", "καλημέρα τι"),
        ("nl", "Eén 's avonds, 12", "eén s avonds twaalf"),
        ("pl", "Żółć — 2", "żółć dwa"),
        ("ru", "Ёлка, за\u0301мок", "ёлка за\u0301мок"),  # no letter of its own for the stress
        ("tr", "Çığ 3", "çığ üç"),
    ],
)
def test_other_languages(language: str, text: str, expected: str) -> None:
    assert leaderboard_text(text, language) == expected


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("zh", "你好 世界 12", "你好世界12"),
        ("zh", "ＡＢ　你", "AB你"),
        ("ja", "ｶﾞﾗｽ か\u3099", "ガラスが"),
        ("ko", "한국 어", "한국어"),
        ("ar", "مُحَمَّد  كتـاب", "محمد كتاب"),
        ("ar", "ﻻ", "لا"),  # a ligature of its own
        ("en", "the  cat", "the cat"),  # a space is a character, as it is for jiwer
        ("vi", "Tiê\u0301ng", "Tiếng"),
        ("de", "½ ﬁ", "½ ﬁ"),
    ],
)
def test_characters(language: str, text: str, expected: str) -> None:
    """By hand."""
    assert characters(text, language) == expected


def test_card_text() -> None:
    """In lower case, and nothing else; words are apart that jiwer, which knows U+0020 alone, would take for one."""
    assert card_text("The\u00a0Cat,\u3000(IT)  said:\t\n'NO.'") == "the cat, (it) said: 'no.'"


@pytest.mark.parametrize(
    ("reference", "hypothesis", "language", "way", "expected"),
    [
        # words, substitutions, deletions, insertions: by hand
        ("The cat sat.", "the cat sat", "en", "card", (3, 1, 0, 0)),
        ("The cat sat.", "the cat sat", "en", "leaderboard", (3, 0, 0, 0)),
        ("a b c d", "a x c d e", "en", "card", (4, 1, 0, 1)),
        ("one fish two fish", "fish two", "en", "card", (4, 0, 2, 0)),
        ("the white paper", "the whitepaper", "en", "card", (3, 1, 1, 0)),
        ("the white paper", "the whitepaper", "en", "leaderboard", (3, 0, 0, 0)),
        ("the whitepaper", "the white paper", "en", "leaderboard", (2, 0, 0, 0)),
        # brackets that the model writes are spoken words; those of a reference are remarks
        ("the cat (laughs) sat", "the (cat) sat", "en", "leaderboard", (3, 0, 0, 0)),
        ("the cat [noise] sat", "the cat sat", "en", "leaderboard", (3, 0, 0, 0)),
        ("the cat", "", "en", "leaderboard", (2, 0, 2, 0)),
        # two words and two that differ in spaces alone are one, in other languages than English
        ("ab cd fish", "abc d fish", "de", "leaderboard", (2, 0, 0, 0)),
        ("ab cd fish", "abc d fish", "en", "leaderboard", (3, 2, 0, 0)),
        ("donau dampf schiff", "donaudampfschiff", "de", "leaderboard", (1, 0, 0, 0)),
    ],
)
def test_scores(reference: str, hypothesis: str, language: str, way: str, expected: tuple[int, ...]) -> None:
    found = scored(reference, hypothesis, language, way)
    assert found
    assert found[3:] == expected


def test_words_side_by_side() -> None:
    found = scored("The white paper, um, is here.", "the whitepaper was", "en", "leaderboard")
    assert found
    assert found.reference == "the white paper is here"
    assert found.hypothesis == "the whitepaper was"
    assert found.pairs == [("the", "the"), ("white paper", "whitepaper"), ("is", "was"), ("here", "")]


@pytest.mark.parametrize(
    ("reference", "language", "dropped"),
    [
        ("", "en", ["card", "leaderboard"]),
        (" \n", "de", ["card", "leaderboard"]),
        ("Um, uh, [noise]", "en", ["leaderboard"]),
        ("Ignore time segment in scoring.", "en", ["leaderboard"]),
        ("ignore time segment in scoring", "de", ["leaderboard"]),
        ("Ignore time segment in scoring.", "de", []),  # others than English are looked at as they are
        ("[Lärm]", "de", []),
        ("the cat", "en", []),
    ],
)
def test_references_that_do_not_count(reference: str, language: str, dropped: list[str]) -> None:
    assert [way for way in WAYS if scored(reference, "a", language, way) is None] == dropped


def test_a_reference_of_nothing_but_a_remark() -> None:
    """It counts in German: no words, and what was recognised is too much."""
    found = scored("[Lärm]", "ein Wort", "de", "leaderboard")
    assert found
    assert found[3:] == (0, 0, 0, 2)


def test_the_revision_is_said() -> None:
    assert LEADERBOARD_REVISION[:8] in WAYS["leaderboard"]
