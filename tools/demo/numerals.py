"""Numbers in words: ``in_words(421, "de") == "vierhunderteinundzwanzig"``, ``ordinal(3) == ("third", "3rd")``."""

# Where a language counts on in single words: 0-19, in Spanish 0-29.
_ONES = {
    "en": "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen",
    "de": "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn "
    "siebzehn achtzehn neunzehn",
    "fr": "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize dix-sept "
    "dix-huit dix-neuf",
    "es": "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis "
    "diecisiete dieciocho diecinueve veinte veintiuno veintidós veintitrés veinticuatro veinticinco veintiséis "
    "veintisiete veintiocho veintinueve",
}
# For 0-9 in front of the ones; "-" is never reached.
_TENS = {
    "en": "- - twenty thirty forty fifty sixty seventy eighty ninety",
    "de": "- - zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig",
    "fr": "- - vingt trente quarante cinquante soixante soixante quatre-vingt quatre-vingt",
    "es": "- - - treinta cuarenta cincuenta sesenta setenta ochenta noventa",
}
_ES_HUNDREDS = (
    "- ciento doscientos trescientos cuatrocientos quinientos seiscientos setecientos ochocientos novecientos"
)

_EN_ORDINALS = "one first two second three third five fifth eight eighth nine ninth twelve twelfth"
_DE_ORDINALS = {1: "ers", 3: "drit", 7: "sieb", 8: "ach"}  # before "te" and "ten"

ONES = {language: words.split() for language, words in _ONES.items()}
TENS = {language: words.split() for language, words in _TENS.items()}
ES_HUNDREDS = _ES_HUNDREDS.split()
EN_ORDINALS = dict(zip(_EN_ORDINALS.split()[::2], _EN_ORDINALS.split()[1::2], strict=True))  # the irregular ones


def in_words(number: int, language: str, gender: str = "") -> str:
    """`number` (0-999) in words.  gender "m" or "f": it stands before a noun (only French and Spanish care)."""
    if not 0 <= number <= 999:
        raise ValueError(f"{number}: only 0-999 are spelled")
    return {"en": _english, "de": _german, "fr": _french, "es": _spanish}[language](number, gender)


def _english(number: int, _gender: str) -> str:
    hundreds, rest = divmod(number, 100)
    if hundreds:
        return f"{ONES['en'][hundreds]} hundred" + (f" and {_english(rest, '')}" if rest else "")
    tens, ones = divmod(number, 10)
    if number < 20:
        return ONES["en"][number]
    return TENS["en"][tens] + ("-" + ONES["en"][ones] if ones else "")


def _german(number: int, _gender: str) -> str:
    hundreds, rest = divmod(number, 100)
    if hundreds:
        return ("ein" if hundreds == 1 else ONES["de"][hundreds]) + "hundert" + (_german(rest, "") if rest else "")
    tens, ones = divmod(number, 10)
    if number < 20:
        return ONES["de"][number]
    return (("ein" if ones == 1 else ONES["de"][ones]) + "und" if ones else "") + TENS["de"][tens]


def _french(number: int, gender: str) -> str:
    hundreds, rest = divmod(number, 100)
    if hundreds:
        if not rest:  # deux cents, but deux cent un
            return "cent" if hundreds == 1 else ONES["fr"][hundreds] + " cents"
        return ("cent " if hundreds == 1 else ONES["fr"][hundreds] + " cent ") + _french(rest, gender)
    if number == 80:
        return "quatre-vingts"
    tens = number // 10
    if number < 20:
        words = ONES["fr"][number]
    else:
        ones = number - 10 * (tens - tens % 2 if tens >= 6 else tens)  # 70-79 and 90-99 count on from 60 and 80
        link = " et " if ones in (1, 11) and tens < 8 else "-"  # soixante et onze, but quatre-vingt-onze
        words = TENS["fr"][tens] + (link + ONES["fr"][ones] if ones else "")
    return words + "e" if gender == "f" and (words == "un" or words.endswith((" un", "-un"))) else words


def _spanish(number: int, gender: str) -> str:
    hundreds, rest = divmod(number, 100)
    if number == 100:
        return "cien"
    if hundreds:
        words = ES_HUNDREDS[hundreds]
        if gender == "f" and hundreds > 1:
            words = words[:-2] + "as"
        return words + (f" {_spanish(rest, gender)}" if rest else "")
    tens, ones = divmod(number, 10)
    words = ONES["es"][number] if number < 30 else TENS["es"][tens] + (" y " + ONES["es"][ones] if ones else "")
    if gender and words.endswith("uno"):  # veintiún minutos, veintiuna horas
        words = words[:-1] + "a" if gender == "f" else (words[:-3] + "ún" if number == 21 else words[:-1])
    return words


def ordinal(number: int, ending: str) -> tuple[str, str]:
    """The ordinal of `number` (1-31, the days of a month) in words and written.

    ending: "th" for English ("third", "3rd"), "te" or "ten" for German ("dritte", "3." or "dritten", "3.").
    """
    if not 1 <= number <= 31:
        raise ValueError(f"{number}: only 1-31 have ordinals here")
    return _english_ordinal(number) if ending == "th" else (_german_ordinal(number) + ending, f"{number}.")


def _english_ordinal(number: int) -> tuple[str, str]:
    start, hyphen, last = in_words(number, "en").rpartition("-")
    last = EN_ORDINALS.get(last, last[:-1] + "ieth" if last.endswith("y") else last + "th")
    mark = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number // 10 != 1 else "th"
    return start + hyphen + last, f"{number}{mark}"


def _german_ordinal(number: int) -> str:
    return _DE_ORDINALS.get(number, in_words(number, "de") + ("s" if number >= 20 else ""))
