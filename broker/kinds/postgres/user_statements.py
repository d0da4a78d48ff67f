"""The SQL with which OpenBao makes, lengthens and ends guests' users in PostgreSQL.

OpenBao runs each list in one transaction of the minter's, on a connection it keeps: what is set there is set LOCAL.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from broker.kinds.tables.database_user import LIFETIMES

CONNECTION_LIMIT = 3
STATEMENT_TIMEOUT = "60s"
IDLE_TRANSACTION_TIMEOUT = "5min"
TEMP_FILES_MEGABYTES = 1024

# SET FALSE: a guest cannot SET ROLE to the slice's role and so outlive its own.
_CREATION = (
    "SET LOCAL lock_timeout = '2s';",
    """CREATE ROLE "{{{{name}}}}" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS """
    """CONNECTION LIMIT {limit} PASSWORD '{{{{password}}}}' VALID UNTIL '{{{{expiration}}}}';""",
    """GRANT {group} TO "{{{{name}}}}" WITH ADMIN FALSE, INHERIT TRUE, SET FALSE;""",
    """ALTER ROLE "{{{{name}}}}" SET statement_timeout = '{timeout}';""",
    # So that psql's \d, and whoever leaves out the schema, finds the view.
    """ALTER ROLE "{{{{name}}}}" SET search_path = slices;""",
    """ALTER ROLE "{{{{name}}}}" SET idle_in_transaction_session_timeout = '{idle}';""",
    # Only a superuser may let the minter set this one, and no guest can change it.
    """DO $$ BEGIN ALTER ROLE "{{{{name}}}}" SET temp_file_limit = '{temp}'; """
    """EXCEPTION WHEN insufficient_privilege THEN NULL; END $$;""",
    # Nor these: whatever a guest does, and however long its errors are, the server's log stays as it is. FATAL carries
    # texts of a guest's, too.
    """DO $$ BEGIN ALTER ROLE "{{{{name}}}}" SET log_min_messages = 'panic'; """
    """ALTER ROLE "{{{{name}}}}" SET log_min_error_statement = 'panic'; """
    """EXCEPTION WHEN insufficient_privilege THEN NULL; END $$;""",
)
_RENEWAL = ("SET LOCAL lock_timeout = '2s';", """ALTER ROLE "{{name}}" VALID UNTIL '{{expiration}}';""")
# First what no guest can lock, by itself: the slice, and with it the right to log in.
_REVOKE_RIGHTS = """DO $$ DECLARE held name; BEGIN
  PERFORM set_config('lock_timeout', '300ms', true);
  PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}';
  FOR held IN SELECT g.rolname FROM pg_auth_members m
                JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles r ON r.oid = m.member
               WHERE r.rolname = '{{name}}' AND starts_with(g.rolname, 'gks_')
  LOOP
    EXECUTE format('REVOKE %I FROM %I', held, '{{name}}');
  END LOOP;
EXCEPTION WHEN lock_not_available THEN
  NULL;
END $$;"""
# A guest may hold its own row locked, and lock it again in its next session: sessions end first, we wait a little in
# the queue for the row, and begin again. Whatever it is, nothing here waits long enough to hold up OpenBao.
_CLOSE_DOOR = """DO $$ BEGIN
  PERFORM set_config('lock_timeout', '300ms', true);
  FOR attempt IN 1..4 LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{{name}}') THEN RETURN; END IF;
    PERFORM pg_stat_clear_snapshot();
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}';
    BEGIN
      ALTER ROLE "{{name}}" NOLOGIN;
      RETURN;
    EXCEPTION WHEN lock_not_available OR internal_error THEN
      IF attempt = 4 THEN RAISE; END IF;
    END;
  END LOOP;
END $$;"""
# The COMMIT is the point: with NOLOGIN uncommitted, a holder that reconnects in a loop survives its own role.
_REVOCATION = (
    _REVOKE_RIGHTS,
    "COMMIT;",
    "BEGIN;",
    _CLOSE_DOOR,
    "COMMIT;",
    # Only where there is somebody to wait for: what the broker has ended by hand costs no pause.
    "SELECT pg_sleep(0.1) FROM pg_roles WHERE rolname = '{{name}}';",
    """SELECT pg_terminate_backend(pid, 500) FROM pg_stat_activity WHERE usename = '{{name}}';""",
    "BEGIN;",
    "SET LOCAL lock_timeout = '500ms';",
    """DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{{name}}') """
    """THEN DROP OWNED BY "{{name}}"; DROP ROLE "{{name}}"; END IF; END $$;""",
)


# Another version's are told by it: those of slices registered before are then replaced.
_VERSION = (_CREATION, _RENEWAL, _REVOCATION, CONNECTION_LIMIT, TEMP_FILES_MEGABYTES)
STATEMENTS = sha256(repr(_VERSION).encode()).hexdigest()[:12]


def role_definition(connection: str, group: str, temp_megabytes: int = TEMP_FILES_MEGABYTES) -> dict[str, Any]:
    """How OpenBao makes, lengthens and ends users that are members of a group.

    Args:
        temp_megabytes: how much of the server's disk the temporary files of one session may take, in MB.
    """
    values = {
        "group": group,
        "limit": CONNECTION_LIMIT,
        "timeout": STATEMENT_TIMEOUT,
        "idle": IDLE_TRANSACTION_TIMEOUT,
        "temp": f"{temp_megabytes}MB",
    }
    return {
        "db_name": connection,
        "creation_statements": [part.format(**values) for part in _CREATION],
        "renew_statements": list(_RENEWAL),
        "revocation_statements": list(_REVOCATION),
        "rollback_statements": list(_REVOCATION),
        **LIFETIMES,
    }
