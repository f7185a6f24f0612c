"""The demonstration model's sentences: numbers in words and in digits, what is kept from training."""

import re
from random import Random

import pytest

from tools.demo.numerals import in_words, ordinal
from tools.demo.sentences import LANGUAGES, Grammar, Text, without_punctuation

TIME_EN, TIME_DE = "{1..12}[ |:]{13..59}", "{2..23}[ Uhr |:]{02..59}[| Uhr]"
PRICE_EN, PRICE_DE = "[|$]{2..20}[ dollars and |.]{10..95/5}[ cents|]", "{2..99}[ Euro |,]{10..99}[| €]"
PRICE_FR, PRICE_ES = "{2..99m}[ euros |,]{10..99}[| €]", "{2..99m}[ euros con |,]{10..99}[| €]"
TELEPHONE_FR = "[zéro |0]{1..9}[,|] {paire}[,|] {paire}[,|] {paire}[,|] {paire}"

# By hand. A line of the grammar, what is drawn for its slots from left to right, and how that is spoken and written.
PAIRS = {
    "en": [
        ("{0..999}.", [421], "Four hundred and twenty-one.", "421."),
        ("{0..9}.", [7], "Seven.", "7."),
        ("My phone number is {0..9x7}.", [5, 5, 5, 0, 1, 2, 3], "My phone number is five five five zero one two three.",
         "My phone number is 5550123."),
        ("My number is {0..9x3}[, |-]{0..9x4}.", [5, 5, 5, 0, 1, 2, 3],
         "My number is five five five, zero one two three.", "My number is 555-0123."),
        ("The code is {1..9}[ oh |0]{1..9x2}.", [4, 7, 2], "The code is four oh seven two.", "The code is 4072."),
        ("Room {1..9}[ oh |0]{1..9}.", [4, 5], "Room four oh five.", "Room 405."),
        ("Testing, [one|1], [two|2], [three|3].", [], "Testing, one, two, three.", "Testing, 1, 2, 3."),
        ("Wake me up at {time}.", [TIME_EN, 7, 30], "Wake me up at seven thirty.", "Wake me up at 7:30."),
        ("It is {time}.", ["half past {1..12}", 7], "It is half past seven.", "It is half past 7."),
        ("It is {time}.", ["{1..12} o'clock", 12], "It is twelve o'clock.", "It is 12 o'clock."),
        ("Wake me up at {time}.", ["{1..12}[ oh |:0]{1..9}", 7, 5], "Wake me up at seven oh five.",
         "Wake me up at 7:05."),
        ("It is {1..5} o'clock in the afternoon.", [3], "It is three o'clock in the afternoon.",
         "It is 3 o'clock in the afternoon."),
        ("Today is {date}.", ["the {1..31th} of {month}", 3, "May"], "Today is the third of May.",
         "Today is the 3rd of May."),
        ("The meeting is on {date}.", ["{month} {1..31th}", "May", 22], "The meeting is on May twenty-second.",
         "The meeting is on May 22nd."),
        ("That costs {price}.", ["[|$]{2..99}[ dollars|]", 5], "That costs five dollars.", "That costs $5."),
        ("{price}.", [PRICE_EN, 5, 50], "Five dollars and fifty cents.", "$5.50."),
        ("Dim the {room} light to {5..95/5}[ percent|%].", ["hall", 20], "Dim the hall light to twenty percent.",
         "Dim the hall light to 20%."),
        ("Set the heating to {15..26} degrees.", [21], "Set the heating to twenty-one degrees.",
         "Set the heating to 21 degrees."),
        ("Set a timer for {length}.", ["[one|1] hour"], "Set a timer for one hour.", "Set a timer for 1 hour."),
        ("Start a timer for {2..59} minutes and {2..59} seconds.", [2, 30],
         "Start a timer for two minutes and thirty seconds.", "Start a timer for 2 minutes and 30 seconds."),
        ("Set a timer for {length}.", ["half an hour"], "Set a timer for half an hour.",
         "Set a timer for half an hour."),
    ],
    "de": [
        ("{0..999}.", [421], "Vierhunderteinundzwanzig.", "421."),
        ("Der Code ist {0..9x4}.", [1, 0, 2, 7], "Der Code ist eins null zwei sieben.", "Der Code ist 1027."),
        ("Meine Nummer ist {0..9x3}[,|] {0..9x4}.", [5, 5, 5, 0, 1, 2, 3],
         "Meine Nummer ist fünf fünf fünf, null eins zwei drei.", "Meine Nummer ist 555 0123."),
        ("[eins|1], [zwei|2], [drei|3].", [], "Eins, zwei, drei.", "1, 2, 3."),
        ("Wecke mich um {zeit}.", [TIME_DE, 7, 30], "Wecke mich um sieben Uhr dreißig.", "Wecke mich um 7:30 Uhr."),
        ("Wecke mich um {zeit}.", [TIME_DE, 7, 5], "Wecke mich um sieben Uhr fünf.", "Wecke mich um 7:05 Uhr."),
        ("Wecke mich um {zeit}.", ["[ein Uhr |1:]{02..59}[| Uhr]", 5], "Wecke mich um ein Uhr fünf.",
         "Wecke mich um 1:05 Uhr."),
        ("Stelle den Wecker für {tag} auf {zeit}.", ["Montag", "{5..10/5} vor halb {1..12}", 5, 8],
         "Stelle den Wecker für Montag auf fünf vor halb acht.", "Stelle den Wecker für Montag auf 5 vor halb 8."),
        ("Es ist halb {5..10} am Morgen.", [8], "Es ist halb acht am Morgen.", "Es ist halb 8 am Morgen."),
        ("Es ist {zeit}.", ["halb {1..12}", 8], "Es ist halb acht.", "Es ist halb 8."),
        ("Es ist {zeit}.", ["[ein|1] Uhr"], "Es ist ein Uhr.", "Es ist 1 Uhr."),
        ("Heute ist der {1..31te} {monat}.", [3, "Mai"], "Heute ist der dritte Mai.", "Heute ist der 3. Mai."),
        ("Die Besprechung ist am {1..31ten} {monat}.", [31, "Juli"], "Die Besprechung ist am einunddreißigsten Juli.",
         "Die Besprechung ist am 31. Juli."),
        ("Das kostet {preis}.", ["{2..99}[ Euro| €]", 5], "Das kostet fünf Euro.", "Das kostet 5 €."),
        ("{preis}.", [PRICE_DE, 21, 99], "Einundzwanzig Euro neunundneunzig.", "21,99 €."),
        ("{2..100}[ Prozent| %].", [20], "Zwanzig Prozent.", "20 %."),
        ("Stelle die Heizung auf {15..26} Grad.", [21], "Stelle die Heizung auf einundzwanzig Grad.",
         "Stelle die Heizung auf 21 Grad."),
        ("Erinnere mich in {indauer}.", ["[einer|1] Stunde"], "Erinnere mich in einer Stunde.",
         "Erinnere mich in 1 Stunde."),
    ],
    "fr": [
        ("{0..999}.", [421], "Quatre cent vingt et un.", "421."),
        ("Appelle le {0..9x3}.", [1, 1, 2], "Appelle le un un deux.", "Appelle le 112."),
        ("Mon numéro est le {telephone}.", [TELEPHONE_FR, 6, "{10..99}", 21, "{10..99}", 80, "[zéro |0]{1..9}", 5,
         "{10..99}", 72], "Mon numéro est le zéro six, vingt et un, quatre-vingts, zéro cinq, soixante-douze.",
         "Mon numéro est le 06 21 80 05 72."),
        ("[un|1], [deux|2], [trois|3].", [], "Un, deux, trois.", "1, 2, 3."),
        ("Il est {horaire}.", ["{h}{02..59f}", "{2..11f}[ heures |h]", 7, 30], "Il est sept heures trente.",
         "Il est 7h30."),
        ("Il est {horaire}.", ["{h}{02..59f}", "[une heure |1h]", 5], "Il est une heure cinq.", "Il est 1h05."),
        ("Il est {horaire}.", ["{h}{02..59f}", "{2..11f}[ heures |h]", 8, 21], "Il est huit heures vingt et une.",
         "Il est 8h21."),
        ("Il est {horaire}.", ["{2..23f} heures", 21], "Il est vingt et une heures.", "Il est 21 heures."),
        ("Il est {2..5f} heures de l'après-midi.", [3], "Il est trois heures de l'après-midi.",
         "Il est 3 heures de l'après-midi."),
        ("Il est {horaire}.", ["{heure} et demie", "{2..11f} heures", 7], "Il est sept heures et demie.",
         "Il est 7 heures et demie."),
        ("Aujourd'hui, c'est {date}.", ["le [premier|1er] {mois}", "mai"], "Aujourd'hui, c'est le premier mai.",
         "Aujourd'hui, c'est le 1er mai."),
        ("Mon anniversaire est {date}.", ["le {2..31} {mois}", 3, "mai"], "Mon anniversaire est le trois mai.",
         "Mon anniversaire est le 3 mai."),
        ("Ça coûte {prix}.", ["{2..99m}[ euros| €]", 21], "Ça coûte vingt et un euros.", "Ça coûte 21 €."),
        ("{prix}.", [PRICE_FR, 5, 50], "Cinq euros cinquante.", "5,50 €."),
        ("Règle le volume sur {2..100}[ pour cent| %].", [20], "Règle le volume sur vingt pour cent.",
         "Règle le volume sur 20 %."),
        ("Mets un minuteur de {2..59f} minutes.", [21], "Mets un minuteur de vingt et une minutes.",
         "Mets un minuteur de 21 minutes."),
        ("Il fait {2..39} degrés dehors.", [20], "Il fait vingt degrés dehors.", "Il fait 20 degrés dehors."),
    ],
    "es": [
        ("{0..999}.", [421], "Cuatrocientos veintiuno.", "421."),
        ("El código es {0..9x4}.", [1, 0, 2, 7], "El código es uno cero dos siete.", "El código es 1027."),
        ("Mi número es el {0..9x3}[,|] {0..9x3}[,|] {0..9x3}.", [6, 1, 2, 0, 4, 5, 6, 7, 8],
         "Mi número es el seis uno dos, cero cuatro cinco, seis siete ocho.", "Mi número es el 612 045 678."),
        ("Probando, [uno|1], [dos|2], [tres|3].", [], "Probando, uno, dos, tres.", "Probando, 1, 2, 3."),
        ("Son las {2..12}[ y |:]{02..59}.", [7, 5], "Son las siete y cinco.", "Son las 7:05."),
        ("Son las {2..8} de la tarde.", [5], "Son las cinco de la tarde.", "Son las 5 de la tarde."),
        ("Despiértame a {hora}.", ["{las}[ y |:]{02..59}", "la [una|1]", 21], "Despiértame a la una y veintiuno.",
         "Despiértame a la 1:21."),
        ("Despiértame a {hora}.", ["{las} y media", "las {2..12}", 7], "Despiértame a las siete y media.",
         "Despiértame a las 7 y media."),
        ("¿Qué pasa {fecha}?", ["el {1..31} de {mes}", 3, "mayo"], "¿Qué pasa el tres de mayo?",
         "¿Qué pasa el 3 de mayo?"),
        ("La reunión es {fecha}.", ["el {dia} {1..31} de {mes}", "lunes", 21, "mayo"],
         "La reunión es el lunes veintiuno de mayo.", "La reunión es el lunes 21 de mayo."),
        ("{1..31} de {mes}.", [1, "mayo"], "Uno de mayo.", "1 de mayo."),
        ("Cuesta {precio}.", ["{2..99m}[ euros| €]", 21], "Cuesta veintiún euros.", "Cuesta 21 €."),
        ("{precio}.", [PRICE_ES, 5, 50], "Cinco euros con cincuenta.", "5,50 €."),
        ("{2..100}[ por ciento| %].", [20], "Veinte por ciento.", "20 %."),
        ("Pon la calefacción a {15..26m} grados.", [21], "Pon la calefacción a veintiún grados.",
         "Pon la calefacción a 21 grados."),
        ("Pon un temporizador de {tiempo}.", ["[un|1] minuto"], "Pon un temporizador de un minuto.",
         "Pon un temporizador de 1 minuto."),
    ],
}  # fmt: skip


class Drawn(Random):
    """Draws what the test says, and nothing that could not have been drawn."""

    def __new__(cls, values: list) -> "Drawn":
        return super().__new__(cls)  # without the values: up to Python 3.10, what comes here is the seed

    def __init__(self, values: list) -> None:
        self.values = iter(values)

    def choice(self, seq):
        value = next(self.values)
        assert value in seq
        return value

    def randrange(self, start, stop=None, step=1):
        value = next(self.values)
        assert value in range(start, stop, step)
        return value


@pytest.mark.parametrize(
    ("language", "line", "drawn", "spoken", "written"),
    [(language, *pair) for language, pairs in PAIRS.items() for pair in pairs],
)
def test_spoken_and_written(language: str, line: str, drawn: list, spoken: str, written: str) -> None:
    grammar, rng = Grammar(language), Drawn(drawn)
    assert line in grammar.lines + grammar.short_lines
    assert grammar.fill(line, rng) == Text(spoken, written)
    assert not [*rng.values]


def test_a_value_comes_once() -> None:
    """By hand: what is in the line already is not drawn again, but "rice" is, though "{price}" has it in its name."""
    line, grammar = "Add {item} and {item} to the shopping list.", Grammar("en")
    with pytest.raises(AssertionError):
        grammar.fill(line, Drawn(["rice", "rice"]))
    assert grammar.fill("{item} for {price}.", Drawn(["rice", "{2..99} cents", 5])).written == "Rice for 5 cents."


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_line_can_be_filled(language: str) -> None:
    """By construction: no notation of the grammar is left in a sentence, and it begins and ends as one."""
    grammar = Grammar(language)
    used = set()
    for line in [
        *grammar.lines,
        *grammar.short_lines,
        *(value for values in grammar.slots.values() for value in values),
    ]:
        used |= {slot for slot in re.findall(r"{([^{}]+)}", line) if not slot[0].isdigit()}
    assert used == set(grammar.slots)
    for line in dict.fromkeys(grammar.lines + grammar.short_lines):
        for seed in range(20):
            text = grammar.fill(line, Random(seed))
            for way in (text.spoken, text.written):
                assert re.fullmatch(r"[¿¡]?[A-ZÀ-Þ0-9$€£][\w ,.:?!'’¿¡$€£%-]*[.?!]", way), line
                assert "  " not in way, line
            assert not re.search(r"[\d$€£%]", text.spoken), line


SIGNS = {  # what is spoken and not written as a word, "" included
    "en": ("", "percent", "dollar", "dollars", "dollars and", "cents", "euros", "pounds", "oh"),
    "de": ("", "prozent", "euro", "uhr"),
    "fr": ("", "pour cent", "euro", "euros", "heure", "heures"),
    "es": ("", "por ciento", "euro", "euros", "euros con", "y"),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_written_is_what_is_spoken(language: str) -> None:
    """By construction, for 20 fillings of every line: the numbers and words written are those spoken, in their order,
    and nothing else is spoken but what became a sign."""
    grammar = Grammar(language)
    for line in dict.fromkeys(grammar.lines + grammar.short_lines):
        for seed in range(20):
            text = grammar.fill(line, Random(seed))
            spoken = words_of(text.spoken)
            for part in words_of(text.written):
                ways = readings(part, language) if part[0].isdigit() else [[part]]
                found = [(spoken[i : i + len(way)] == way, i, way) for way in ways for i in range(len(spoken))]
                places = [(i, -len(way)) for same, i, way in found if same]
                if places:
                    start, length = min(places)  # the first, and of "one" and "one hundred" the longer
                    assert " ".join(spoken[:start]) in SIGNS[language], (part, text)
                    del spoken[: start - length]
                else:
                    assert part in ("h", "uhr"), (part, text)
            assert " ".join(spoken) in SIGNS[language], text


def words_of(text: str) -> list[str]:
    """Words and numbers, these with what makes ordinals of them."""
    return re.findall(r"\d+(?:st|nd|rd|th|er|\.(?= \w))?|[^\W\d](?:[^\W\d]|['-])*", text.lower())


def readings(number: str, language: str) -> list[list[str]]:
    """How the digits of a number, or an ordinal, may be spoken."""
    digits = re.sub(r"\D", "", number)
    if number != digits:
        endings = {"en": ["th"], "de": ["te", "ten"], "fr": []}[language]
        return [[ordinal(int(digits), ending)[0]] for ending in endings] or [["premier"]]
    one_by_one = [in_words(int(digit), language) for digit in digits]
    with_oh = ["oh" if word == "zero" else word for word in one_by_one]
    whole = [in_words(int(digits), language, gender).split() for gender in ("", "m", "f")] if len(digits) <= 3 else []
    articles = [["ein"], ["eine"], ["einer"], ["einen"]] if (language, digits) == ("de", "1") else []
    return [one_by_one, with_oh, *whole, *articles]


@pytest.mark.reference
def test_numerals_by_num2words() -> None:
    num2words = pytest.importorskip("num2words").num2words
    for language in LANGUAGES:
        for number in range(1000):
            assert in_words(number, language) == num2words(number, lang=language)
    for number in range(1, 32):
        assert ordinal(number, "th") == (num2words(number, to="ordinal"), num2words(number, to="ordinal_num"))
        assert ordinal(number, "te") == (num2words(number, to="ordinal", lang="de"), f"{number}.")
        assert ordinal(number, "ten") == (num2words(number, to="ordinal", lang="de") + "n", f"{number}.")


def test_numerals_before_nouns() -> None:
    """By hand: only one, and Spanish hundreds, have a gender."""
    assert [in_words(n, "fr", "f") for n in (1, 21, 71, 81, 101)] == [
        *("une", "vingt et une", "soixante et onze", "quatre-vingt-une", "cent une")
    ]
    assert [in_words(n, "es", "f") for n in (1, 21, 31, 200, 501)] == [
        *("una", "veintiuna", "treinta y una", "doscientas", "quinientas una")
    ]
    assert [in_words(n, "es", "m") for n in (1, 21, 31, 101)] == ["un", "veintiún", "treinta y un", "ciento un"]


def test_numbers_out_of_range() -> None:
    with pytest.raises(ValueError, match="1000: only 0-999"):
        in_words(1000, "en")
    with pytest.raises(ValueError, match="32: only 1-31"):
        ordinal(32, "th")


# By record: held out ever since there is a held-out set, sample.wav's sentence among them.
ALWAYS_HELD_OUT = {
    "en": ["Turn on the light in the living room.", "The code is eight one nine five.", "Wake me up at half past two."],
    "de": ["Es ist zu kalt in der Garage.", "Schließe die Rollläden um vierzehn Uhr einundvierzig."],
    "fr": ["Ferme les volets à trois heures moins le quart.", "Le train pour Toulouse part à deux heures vingt-cinq."],
    "es": ["Abre la ventana del despacho.", "Necesitamos veinte botellas de agua y mantequilla."],
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_held_out(language: str) -> None:
    """By construction: no training sentence is held out, nor is a short one; all held-out ones are different."""
    grammar = Grammar(language)
    assert all(grammar.held_out(spoken) for spoken in ALWAYS_HELD_OUT[language])
    assert not any(grammar.held_out(text.spoken) for text in grammar.training(3000, Random(1)))
    assert not any(grammar.held_out(text.spoken) for text in grammar.short(1000, Random(1)))
    texts = grammar.held_out_texts(300, Random(1))
    assert all(grammar.held_out(text.spoken) for text in texts)
    assert len(set(texts)) == 300
    assert texts == grammar.held_out_texts(300, Random(1))


@pytest.mark.parametrize("language", LANGUAGES)
def test_never_held_out(language: str) -> None:
    """By the rule: sentences without slots, and those of one or two words."""
    grammar = Grammar(language)
    for line in grammar.lines + grammar.short_lines:
        text = grammar.fill(line, Random(1))
        if "{" not in line or len(text.spoken.split()) < 3:
            assert not grammar.held_out(text.spoken), line


def test_a_tenth_is_held_out() -> None:
    """By the hash: of different sentences with a slot, one in ten, give or take three standard deviations."""
    grammar, rng = Grammar("en"), Random(1)
    spoken = {grammar.fill("Remind me to {task} at {time}.", rng).spoken for _ in range(3000)}
    share = sum(map(grammar.held_out, spoken)) / len(spoken)
    assert abs(share - 0.1) < 3 * (0.1 * 0.9 / len(spoken)) ** 0.5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Turn on the kitchen light.", "turn on the kitchen light"),
        ("¿Cuánto es 3 más 4?", "cuánto es 3 más 4"),
        ("Quelle heure est-il ?", "quelle heure est-il"),
        ("Wake me up at 7:30.", "wake me up at 7:30"),
        ("That costs $5.50.", "that costs $5.50"),
        ("5,50 €, bitte.", "5,50 € bitte"),
        ("9, 7, 9.", "9 7 9"),
        ("Heute ist der 3. Mai.", "heute ist der 3 mai"),
    ],
)
def test_without_punctuation(text: str, expected: str) -> None:
    assert without_punctuation(text) == expected
