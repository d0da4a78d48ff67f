"""Guessing which columns are personal: from names, types and statistics, in several languages and spellings."""

from __future__ import annotations

import pytest

from broker.registry.personal_columns import HOW, guess


@pytest.mark.parametrize(
    ("name", "type_", "what"),
    [
        ("email", "text", "an e-mail address"),
        ("contact_email", "character varying(80)", "an e-mail address"),
        ("ip_address", "text", "an IP address"),
        ("seen_from", "inet", "an IP address"),
        ("dateOfBirth", "date", "a date or year of birth"),
        ("geburtsdatum2", "date", "a date or year of birth"),
        ("Prénom", "text", "a name"),
        ("last_name", "text", "a name"),
        ("nazwisko", "text", "a name"),
        ("straße", "text", "an address or place"),
        ("home_zip_code", "text", "an address or place"),
        ("mobile_phone", "text", "a phone number"),
        ("passport_no", "text", "a number that identifies one person"),
        ("steuer_id", "text", "a number that identifies one person"),
        ("mac", "macaddr", "a device"),
        ("user_agent", "text", "a device"),
        ("icd_10", "text", "specially protected"),
        ("bemerkung", "text", "free text"),
        ("raw", "jsonb", "a document"),
        ("visit_id", "bigint", "an identifier"),
    ],
)
def test_personal_column_is_guessed_from_name_or_type(name: str, type_: str, what: str) -> None:
    found = guess({"name": name, "type": type_, "distinct": None, "width": 8})
    assert found is not None and found.what.startswith(what) and found.why


@pytest.mark.parametrize("name", ["age", "site", "amount", "file_name", "product_name", "unemailed", "x", "", "数"])
def test_column_without_signs_is_not_called_personal(name: str) -> None:
    assert guess({"name": name, "type": "integer", "distinct": 0.01, "width": 4}) is None


def test_statistics_mark_unique_columns_as_identifiers() -> None:
    unique = guess({"name": "ref", "type": "text", "distinct": 0.99, "width": 12})
    assert unique is not None and "nearly every row" in unique.why
    long = guess({"name": "x1", "type": "text", "distinct": 0.2, "width": 400})
    assert long is not None and "400 characters" in long.why
    assert guess({"name": "score", "type": "double precision", "distinct": 1.0, "width": 8}) is None
    assert "Guestkey reads no values" in HOW
