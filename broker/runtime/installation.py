"""The first rows of an installation: its tag, which every handle carries, and the shipped rules as revision 1."""

from __future__ import annotations

import secrets
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from broker.base.database import Transaction
from broker.base.errors import Invalid
from broker.log import audit
from broker.models import Installation, PolicyInForce
from broker.runtime import rulebook

_TAG_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"


def install(tx: Transaction, now: datetime) -> str:
    """Make sure the installation has a tag and a policy in force; twice is fine. Returns the tag."""
    tag = "".join(secrets.choice(_TAG_ALPHABET) for _ in range(6))
    made = tx.execute(
        insert(Installation).values(singleton=1, tag=tag).on_conflict_do_nothing().returning(Installation.tag)
    ).scalar_one_or_none()
    if made is not None:
        audit.record(tx, "installation.made", actor=audit.SYSTEM, subject=f"installation:{made}", now=now)
    if tx.execute(select(PolicyInForce.revision)).first() is None:
        _, rules, networks = rulebook.shipped()
        rulebook.put_in_force(tx, rules=rules, networks=networks, proposed_by=None, approved_by=None, now=now)
    return installation_tag(tx)


def installation_tag(tx: Transaction) -> str:
    """The tag of this installation.

    Raises:
        Invalid: there is none yet.
    """
    tag = tx.execute(select(Installation.tag)).scalar_one_or_none()
    if tag is None:
        raise Invalid("This installation has not been set up.", advice="Run `guestkey bootstrap` on the server.")
    return tag
