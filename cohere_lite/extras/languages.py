"""What people call a language -> its code."""

import re
from unicodedata import normalize

# ISO 639-1, then 639-2 and the names in English and in the language itself: of TRAINED_LANGUAGES (tokens.py).
_NAMES = {
    "ar": "ara arabic العربية",
    "de": "deu ger german deutsch",
    "el": "ell gre greek ελληνικά",
    "en": "eng english",
    "es": "spa spanish español castilian",
    "fr": "fra fre french français",
    "it": "ita italian italiano",
    "ja": "jpn japanese 日本語",
    "ko": "kor korean 한국어",
    "nl": "nld dut dutch nederlands flemish",
    "pl": "pol polish polski",
    "pt": "por portuguese português",
    "ru": "rus russian русский",
    "tr": "tur turkish türkçe",
    "vi": "vie vietnamese việt",
    "zh": "zho chi cmn chinese mandarin 中文",
}
_CODES = {name: code for code, names in _NAMES.items() for name in names.split()}


def language_name(code: str) -> str:
    """ "German" for "de"; a code that is not known as it is."""
    return next((name.capitalize() for name in _NAMES.get(code, "").split() if len(name) > 3), code)


def language_code(name: str) -> str:
    """ "de" for "DE", "de_DE.UTF-8", "de-AT", "deu", "German" and "Deutsch"; "de,fr" for "German, fr"; "auto" as it is;
    so is a name that is not known, for the model's vocabulary to say what it has."""
    if "," in name:
        return ",".join(map(language_code, name.split(",")))
    code = re.split("[-_.]", normalize("NFC", name).strip().lower())[0]
    return _CODES.get(code, code if re.fullmatch("[a-z]{2}|auto", code) else name)
