"""English as the Open ASR Leaderboard compares it: the package whisper-normalizer, changed as the leaderboard does.

The changes, at LEADERBOARD_REVISION of huggingface/open_asr_leaderboard (normalizer/): more fillers; a few slang words
stay as they are; 's is "is" only after a pronoun, here, or a question word; a list of compounds and one of first names;
single letters in a row are one word; nineteen spellings.
"""

import re
from collections.abc import Callable
from functools import cache

LEADERBOARD_REVISION = "d1e99b25524814332d6868a5645e568670834cfb"  # of August 2026


def leaderboard_english(text: str) -> str:
    """The words that the leaderboard counts, a space between them. Raises ImportError without whisper-normalizer."""
    return " ".join(_normalizer()(text).split())


@cache
def _normalizer() -> Callable[[str], str]:
    from whisper_normalizer.english import EnglishTextNormalizer

    normalizer = EnglishTextNormalizer()
    normalizer.ignore_patterns = rf"\b({_FILLERS})\b"
    normalizer.replacers = dict(map(_replacer, normalizer.replacers.items()))
    for word in _KEPT:
        del normalizer.replacers[rf"\b{word}\b"]
    spellings = {**normalizer.standardize_spellings.mapping, **_SPELLINGS}
    numbers = normalizer.standardize_numbers
    # Between these steps of the package's, the leaderboard has steps of its own.
    normalizer.standardize_numbers = lambda text: numbers(_join_compounds(text))
    normalizer.standardize_spellings = lambda text: _join_letters(
        [_NAMES.get(word, word) for word in (spellings.get(word, word) for word in text.split())]
    )
    return normalizer


def _replacer(replacer: tuple[str, str]) -> tuple[str, str]:
    """A pattern and its replacement, as the leaderboard has them: "John's" is none of "John is"."""
    if replacer[0] == r"'s\b":
        return rf"\b({_BEFORE_IS})'s\b", r"\1 is"
    return replacer


def _join_compounds(text: str) -> str:
    """After punctuation is gone: "wi-fi" has become "wi fi"."""
    for parts, joined in _COMPOUNDS.items():
        text = re.sub(rf"\b{parts}\b", joined, text)
    return text


def _join_letters(words: list[str]) -> str:
    """ "b b c" is "bbc", and "5 g" "5g"; "a" and "i" may be words, and are joined in three or more."""
    joined: list[str] = []
    letters: list[str] = []
    for word in [*words, ""]:  # "" ends the last letters
        if len(word) == 1 and word.isalnum():
            letters.append(word)
            continue
        fewest = 3 if {"a", "i"} & {*letters} else 2
        joined += ["".join(letters)] if len(letters) >= fewest else letters
        joined.append(word)
        letters = []
    return " ".join(joined[:-1])


_FILLERS = "hmm|mm|mhm|mmm|uh|um|ah|aha|ahh|ahm|eh|ehehe|em|hm|huh|hum|mhum|uhm|umm|uhuh"
_KEPT = ["kinda", "sorta", "dunno", "cause"]
_BEFORE_IS = "it|he|she|what|that|who|here|there|how|when|where|why|this"
_COMPOUNDS = {
    r"et\s+cetera": "etc",
    r"al\s+right": "alright",
    r"all\s+right": "alright",
    r"how\s+ever": "however",
    r"wi\s+fi": "wifi",
    r"hi\s+fi": "hifi",
    r"lo\s+fi": "lofi",
    r"sci\s+fi": "scifi",
    r"e\s+mail": "email",
    r"e\s+book": "ebook",
    r"e\s+commerce": "ecommerce",
    r"x\s+ray": "xray",
    r"t\s+shirt": "tshirt",
    r"a\s+m": "am",
    r"p\s+m": "pm",
    r"o\s+k": "okay",
}
# Where the leaderboard's table of spellings differs from the package's.
_SPELLINGS = {
    "ok": "okay",
    "kay": "okay",
    "etcetera": "etc",
    "mm": "mm",
    "flyer": "flier",
    "travelogue": "travelog",
    "travelogues": "travelogs",
    "travelog": "travelog",
    "travelogs": "travelogs",
    "archaeology": "archeology",
    "archaeological": "archeological",
    "archeological": "archeological",
    "cancellation": "cancelation",
    "cancellations": "cancelations",
    "cancelation": "cancelation",
    "cancelations": "cancelations",
    "pummelled": "pummeled",
    "pummelling": "pummeling",
    "snowploughs": "snowplows",
}
# A name, and how else it is spelled.
_SPELLED_ALIKE = """
aaron aron, alfonso alphonso, alison allison alyson, allen alan allan, anne ann, anthony antony, arthur artur, brett
bret, brian bryan, bridget bridgette, caitlin kaitlin kaitlyn katelyn, carl karl, carol carole carrol carroll,
catherine catharine katherine kathryn, cathy kathy, charlie charley charly, chris kris, christina kristina,
christopher cristopher kristopher, colin collin, deborah devorah, dennis denis, dominic dominick, douglas douglass,
dylan dillon, eric erick erik, fatima fatimah, frederick frederik fredrick, gail gayle, gary garry, greg gregg, henry
henri, ivonne yvonne, jackie jacky, jamie jaime, jason jayson, jeff geoff, jeffrey geoffrey jeffery, joanne joane
joann, john jon, jonathan johnathan jonathon, joseph josef, karen caren caryn karin, kelly kelley kelli kellye, kevin
kevan, kristin kristen, laurie lori, lawrence laurence, lee leigh, leslie lesley, lily lilly, linda lynda, lindsay
lindsey linsey, louis lewis, lucas lukas, lynn lynne, mark marc, martin martyn, matthew mathew, mcarthur macarthur,
mccarthy macarthy maccarthy, mccartney macartney, mcdonald macdonald, mcgowan macgowan, mcintosh macintosh, mcintyre
macintyre, mckay mackay, mckenzie mackenzie, mclean maclean, mcleod macleod, mcmillan macmillan, mcnamara macnamara,
megan meghan, michael micheal, michelle michele, miriam myriam, mohammed mahomet mohamad mohamed mohammad mouhamad
mouhamed muhamad muhammad muhammed, molly mollie, natalie nathalie, neil neal, nicholas nicolas, nicole nikole,
patrick patrik, peter pieter, philip phillip, rachel rachael, rajiv rajeev, rebecca rebekah, rob robb, robin robyn,
roger rodger, ronda rhonda, russell russel, sally sallie, sarah sara, sean shaun shawn, shane shayne, sherry cheri
sheri sherrie, simon symon, stacy stacey stacie, steven stephen, stuart stewart, susanne suzanne, teresa theresa,
terry terri, thomas tomas, toby tobey, tony toni, tracy tracey tracie, veronica veronika, victor viktor, victoria
viktoria, walter walther, yousef yusef yusuf, zach zak, zachary zachery zackary
"""
_NAMES = {other: name for name, *others in map(str.split, _SPELLED_ALIKE.split(",")) for other in others}
