"""Which columns look personal. A guess from names, types and statistics; no value is ever looked at.

It says how it guesses, and it errs towards personal: whoever makes the slice decides. Names are compared word by word
(`date_of_birth`, `dateOfBirth` and `geburtsdatum2` alike) with words of several languages.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

HOW = (
    "Guessed from the column's name (in English, German, French, Spanish, Italian, Portuguese, Dutch and Polish), its"
    " type, and how many distinct values PostgreSQL's statistics show. Guestkey reads no values,"
    " so it may miss a column with an unusual name. Check the columns yourself."
)
# What a column may be, and the words for it.
_NAMES: Sequence[tuple[str, str]] = (
    ("an e-mail address", "email|mail|emailaddress|correo|courriel|eposta"),
    ("an IP address", "ip|ipaddr|ipaddress|ipv4|ipv6|remoteaddr|clientip"),
    (
        "a phone number",
        "phone|telephone|mobile|cell|fax|tel|telefon|telefono|telefone|handy|mobil|movil|msisdn|cellulare|telefoon",
    ),
    (
        "a date or year of birth",
        "dob|birth|birthday|birthdate|born|geburt|geburtstag|geburtsdatum|geboren|naissance|nacimiento|nascita|"
        "nascimento|geboorte|geboortedatum|urodzenia|yob",
    ),
    (
        "a number that identifies one person",
        "ssn|passport|iban|bic|nino|nif|nie|dni|cpf|cnpj|pesel|bsn|nir|siren|mrn|nhs|personnummer|steuernummer|steuerid|"
        "sozialversicherungsnummer|ausweis|reisepass|passeport|pasaporte|passaporto|taxid|nationalid|license|licence|"
        "fuehrerschein|creditcard|kontonummer|codicefiscale|kvnr|versichertennummer|insurance",
    ),
    (
        "a name",
        "name|firstname|lastname|surname|forename|givenname|familyname|middlename|fullname|maiden|vorname|nachname|"
        "familienname|geburtsname|nom|prenom|nombre|apellido|apellidos|nome|cognome|sobrenome|voornaam|achternaam|naam|"
        "imie|nazwisko|patient|customer|username|login|nickname|initials|doctor|physician|arzt",
    ),
    (
        "an address or place",
        "address|addr|street|zip|zipcode|postcode|postalcode|plz|strasse|hausnummer|anschrift|adresse|adres|wohnort|"
        "rue|direccion|calle|indirizzo|endereco|rua|cep|ulica|latitude|longitude|lat|lon|lng|gps|geo|geom|"
        "location|housenumber|straat|postal|city|town|stadt|ville|ciudad|citta",
    ),
    (
        "a device",
        "device|deviceid|imei|imsi|mac|macaddress|serial|serialnumber|useragent|fingerprint|cookie|idfa|gaid|"
        "advertisingid|geraet",
    ),
    (
        "specially protected data (health, belief, origin, sexuality)",
        "diagnosis|diagnose|icd|medication|religion|ethnicity|race|gender|sex|geschlecht|sexo|genre|disability|salary|"
        "gehalt|genome|hiv|pregnancy|nationality",
    ),
    (
        "free text, which may contain anything",
        "note|notes|comment|comments|remark|remarks|freetext|message|body|bemerkung|kommentar|notiz|"
        "commentaire|comentario|nota|observations|transcript|letter|narrative|feedback",
    ),
)
# `file_name` names a thing.
_THINGS = frozenset(
    {
        *("app", "brand", "category", "class", "column", "company", "device", "domain", "event", "field", "file"),
        *("group", "host", "item", "job", "key", "label", "model", "product", "project", "role", "schema", "site"),
        *("status", "table", "tag", "task", "team", "type", "vendor"),
    }
)
_WORDS = {word: what for what, words in _NAMES for word in words.split("|")}
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_PARTS = re.compile(r"[^a-z]+")
_TEXTS = ("text", "character varying", "character", "varchar", "citext")
_LONG_TEXT = 60
_OWN = 0.9


@dataclass(frozen=True, slots=True)
class Guess:
    """Why a column looks personal, as a phrase: `a name`, `its name says so`."""

    what: str
    why: str


def guess(column: Mapping[str, Any]) -> Guess | None:
    """What a column of a catalogue may hold of people; None if nothing speaks for it."""
    type_ = str(column["type"])
    words = _words(str(column["name"]))
    if type_ in ("inet", "cidr"):
        return Guess("an IP address", f"its type is {type_}")
    if type_ in ("macaddr", "macaddr8"):
        return Guess("a device", f"its type is {type_}")
    if named := _by_name(words):
        return Guess(*named)
    distinct = column.get("distinct")
    width = column.get("width")
    is_text = type_.partition("(")[0] in _TEXTS
    if is_text and width is not None and width >= _LONG_TEXT:
        return Guess("free text, which may contain anything", f"it is text of {width} characters on average")
    if type_ in ("json", "jsonb", "xml", "bytea"):
        return Guess("a document, which may contain anything", f"its type is {type_}")
    if words and words[-1] in ("id", "uuid", "guid", "no", "nr", "num", "number", "nummer", "key", "hash"):
        return Guess("an identifier that may identify a person elsewhere", f"its name ends in {words[-1]}")
    if (is_text or type_ == "uuid") and distinct is not None and distinct >= _OWN:
        return Guess("an identifier that may identify a person elsewhere", "nearly every row has a distinct value")
    return None


def _by_name(words: Sequence[str]) -> tuple[str, str] | None:
    whole = "".join(words)
    if whole in _WORDS:
        return _WORDS[whole], "its name says so"
    for first, second in pairwise(words):
        if first + second in _WORDS:
            return _WORDS[first + second], f"“{first} {second}” is in its name"
    for at, word in enumerate(words):
        if word in ("name", "nom", "nome", "naam") and at and words[at - 1] in _THINGS:
            continue
        if word in _WORDS:
            return _WORDS[word], f"“{word}” is in its name"
    return None


def _words(name: str) -> list[str]:
    """The words of a column's name in plain lower-case letters."""
    plain = unicodedata.normalize("NFKD", _CAMEL.sub("_", name))
    letters = "".join(character for character in plain if not unicodedata.combining(character))
    return [word for word in _PARTS.split(letters.casefold().replace("ß", "ss")) if word]
