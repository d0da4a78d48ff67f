"""Giving the organisation-wide roles `admin` and `auditor`, once two admins agreed. Taking them is one admin's act."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select

from broker.base.database import Transaction
from broker.base.errors import Conflict, Invalid, NotFound
from broker.base.ids import new_id
from broker.log import audit
from broker.models import Person, RoleHeld
from broker.registry.people import TWO_PERSON_ROLES


def give_role(tx: Transaction, details: Mapping[str, Any], proposer_id: str, approver_id: str, now: datetime) -> None:
    """The performer of the two-person act `give_role`; details hold `person_id` and `role`.

    Raises:
        Conflict: what was so at the proposal is so no longer: not active, not the organisation's, or holds it.
    """
    person_id, role = details["person_id"], details["role"]
    if role not in TWO_PERSON_ROLES:
        raise Invalid("There is no such role of the organisation.", field="/role")
    person = tx.scalars(select(Person).where(Person.id == person_id).with_for_update()).one_or_none()
    if person is None:
        raise NotFound("There is no such person here.")
    if person.status != "active" or person.vendor_id is not None:
        raise Conflict("Only active people of the organisation can have this role.")
    _end_lapsed(tx, person_id, role, now)
    tx.add(RoleHeld(id=new_id("rh"), person_id=person_id, role=role, given_by=approver_id, given_at=now))
    tx.flush()
    audit.record(
        tx,
        "role.given",
        actor=f"person:{approver_id}",
        subject=person_id,
        now=now,
        details={"role": role, "proposed_by": proposer_id},
    )


def _end_lapsed(tx: Transaction, person_id: str, role: str, now: datetime) -> None:
    """Close a role held for a time only, whether that is over or not: what two admins give holds without end."""
    held = tx.scalars(
        select(RoleHeld).where(RoleHeld.person_id == person_id, RoleHeld.role == role, RoleHeld.ended_at.is_(None))
    ).one_or_none()
    if held is not None and held.until is None:
        raise Conflict(f"This person already has the role {role}.")
    if held is not None:
        held.ended_at = now
        tx.flush()
