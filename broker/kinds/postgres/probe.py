"""The proof that a connected database works: one user is made, logs in, is ended, and PostgreSQL confirms it gone."""

from __future__ import annotations

from broker.base.errors import BackendDown, Conflict
from broker.keystore.operator import OperatorStore
from broker.keystore.vault import Vault
from broker.kinds.postgres import kind as postgres
from broker.kinds.postgres import slices
from broker.kinds.postgres.address import Address, open_session
from broker.kinds.postgres.connection_errors import LoginRefused
from broker.kinds.postgres.user_statements import role_definition


def probe(store: OperatorStore, setup: Vault, ender: Vault, place: Address) -> str:
    """Walk the whole way of a lease, with a group and a user that can see nothing. Returns the name it had.

    What a probe that died half-way left behind ends by itself within a minute, and is taken away first.

    Raises:
        Conflict: some step does not work.
        BackendDown: OpenBao or the database does not answer.
    """
    role = f"gk-probe-{place.name}"
    with slices.probe_group(setup, place.name) as group:
        setup.write_database_role(role, role_definition(place.name, group))
        try:
            postgres.drop_user(ender, place.name, _PROBE_USER)
            made = store.credential(role)
            _log_in(place, made.username, made.password)
            ender.revoke_lease(made.lease_id)
            left = postgres.drop_user(ender, place.name, made.username)
        finally:
            setup.delete_database_role(role)
    if left:
        raise Conflict(f"The probe's user was ended and is still there: {left}.", advice="Run it again.")
    return made.username


# OpenBao names users after the display name of the token that asks; the operator's is its way of logging in.
_PROBE_USER = "gk_approle"


def _log_in(place: Address, user: str, password: str) -> None:
    try:
        open_session(place, user, password).close()
    except LoginRefused as error:
        raise Conflict(
            "OpenBao made a user, and the database does not let it in.",
            advice="Its pg_hba.conf must let users gk_* in, over TLS, from where guests and this machine are.",
        ) from error
    except BackendDown as error:
        raise Conflict(error.detail, advice=error.advice) from error
