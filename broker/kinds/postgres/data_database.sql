-- Prepares a database that holds datasets. Run once as its owner or a superuser; deploy/ and `guestkey
-- connect-backend` use this very file. Placeholders: {registrar}, {minter}, {watch} are quoted passwords.
-- A line "-- [part]" begins a part that connect-backend checks, and prints where something of it is missing.

-- [database]
REVOKE ALL ON DATABASE data FROM PUBLIC;
-- [other-databases]
REVOKE ALL ON DATABASE postgres FROM PUBLIC;
REVOKE ALL ON DATABASE template1 FROM PUBLIC;
-- [public-schema]
REVOKE ALL ON SCHEMA public FROM PUBLIC;
-- [large-objects]
-- Large objects are things a guest could own, and what it owns blocks the end of its user.
REVOKE EXECUTE ON FUNCTION pg_catalog.lo_create(oid), pg_catalog.lo_creat(integer),
  pg_catalog.lo_from_bytea(oid, bytea), pg_catalog.lo_put(oid, bigint, bytea), pg_catalog.lo_open(oid, integer),
  pg_catalog.lowrite(integer, bytea), pg_catalog.lo_unlink(oid) FROM PUBLIC;
-- [guest-functions]
-- Everybody may by default fill the lock table, write WAL, queue notifications and use up transaction ids with these.
-- Roles that exist now keep them; ones you make later need them granted by name.
DO $$
  DECLARE
    own text := (SELECT string_agg(quote_ident(rolname), ', ') FROM pg_roles
                  WHERE rolname !~ '^(pg_|gks?_|guestkey_)' AND NOT rolsuper);
    f regprocedure;
  BEGIN
    FOR f IN SELECT p.oid FROM pg_proc p
              WHERE p.pronamespace = 'pg_catalog'::regnamespace
                AND (p.proname LIKE 'pg%advisory%lock%' OR p.proname IN ('pg_logical_emit_message', 'pg_notify',
                  'pg_export_snapshot', 'pg_current_xact_id', 'txid_current'))
                AND has_function_privilege('public', p.oid, 'EXECUTE')
    LOOP
      IF own IS NOT NULL THEN
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', f, own);
      END IF;
      EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
  END $$;
-- [prepared-transactions]
-- A prepared transaction holds its locks without a session that could be ended. In postgresql.conf, then restart:
--   max_prepared_transactions = 0
-- [server-settings]
-- Guests must not use up all connections, nor the disk. In postgresql.conf, then restart (numbers are yours to choose):
--   reserved_connections = 10
--   temp_file_limit = '1GB'
--   max_notify_queue_pages = 8192

-- [registrar]
-- The registrar makes slices: it owns their views and roles, and reads what it was granted.
CREATE ROLE guestkey_registrar LOGIN CREATEROLE NOINHERIT CONNECTION LIMIT 5 PASSWORD {registrar};
-- [registrar-rights]
GRANT CONNECT ON DATABASE data TO guestkey_registrar WITH GRANT OPTION;
-- [slices]
CREATE SCHEMA slices AUTHORIZATION guestkey_registrar;
-- [slices-private]
-- What stands behind slices that hide rows: literals of their filters, and the functions that read the rows.
CREATE SCHEMA slices_private AUTHORIZATION guestkey_registrar;

-- [minter]
-- The minter is OpenBao's own login: it makes guests' users and lends them slice roles it cannot use itself.
CREATE ROLE guestkey_minter LOGIN CREATEROLE NOINHERIT PASSWORD {minter};
-- [minter-rights]
ALTER ROLE guestkey_minter SET createrole_self_grant = 'inherit';
-- What a guest has locked must not hold up OpenBao, which would then make no users either.
ALTER ROLE guestkey_minter SET lock_timeout = '2s';
GRANT CONNECT ON DATABASE data TO guestkey_minter;

-- [watch]
-- The watch asks whether users and sessions are gone, and ends what is left through three narrow functions.
CREATE ROLE guestkey_watch LOGIN CONNECTION LIMIT 20 PASSWORD {watch};
-- [watch-rights]
GRANT CONNECT ON DATABASE data TO guestkey_watch;
-- [reaper]
CREATE ROLE guestkey_reaper NOLOGIN;
-- [reaper-rights]
GRANT pg_signal_backend TO guestkey_reaper;
-- [operations]
CREATE SCHEMA guestkey_ops;
-- [operations-rights]
GRANT USAGE ON SCHEMA guestkey_ops TO guestkey_watch;

-- [functions]
CREATE OR REPLACE FUNCTION guestkey_ops.end_sessions(who name) RETURNS integer
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT count(*) FILTER (WHERE pg_terminate_backend(a.pid, 2000))::int FROM pg_stat_activity a
   WHERE a.usesysid IS NOT NULL
     AND ((a.usename = who AND who LIKE 'gk\_%') OR NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = a.usesysid)) $$;
-- Tells sessions to end without waiting for them: before the door is closed, since a guest can lock its own row.
CREATE OR REPLACE FUNCTION guestkey_ops.signal_sessions(who name[]) RETURNS integer
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT count(*) FILTER (WHERE pg_terminate_backend(a.pid))::int FROM pg_stat_activity a
   WHERE a.usesysid IS NOT NULL
     AND ((a.usename = ANY (who) AND a.usename LIKE 'gk\_%')
       OR NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = a.usesysid)) $$;
-- Ends guests' sessions for whose locks one of Guestkey's own logins waits.
CREATE OR REPLACE FUNCTION guestkey_ops.end_blockers() RETURNS integer
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT count(*) FILTER (WHERE pg_terminate_backend(g.pid))::int FROM pg_stat_activity g
   WHERE g.usename LIKE 'gk\_%' AND g.pid IN (
     SELECT unnest(pg_blocking_pids(w.pid)) FROM pg_stat_activity w
      WHERE w.usename IN ('guestkey_watch', 'guestkey_minter')) $$;
-- Ends guests' sessions that run or hold something longer than allowed, or hold too many locks: a user may switch off
-- the timeouts it was given. Once the server's table of locks is half full, a 64th of it is too many, so that several
-- sessions below the limit cannot fill it together. Returns whose.
CREATE OR REPLACE FUNCTION guestkey_ops.end_overlong(statement interval, transaction interval, locks integer)
  RETURNS SETOF name
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  WITH held AS MATERIALIZED (SELECT l.pid, count(*) AS n FROM pg_locks l WHERE NOT l.fastpath GROUP BY l.pid),
  room AS MATERIALIZED (
    SELECT current_setting('max_locks_per_transaction')::bigint * current_setting('max_connections')::bigint AS n),
  most AS MATERIALIZED (
    SELECT CASE WHEN (SELECT sum(h.n) FROM held h) * 2 > r.n THEN least(locks, r.n / 64) ELSE locks END AS n
      FROM room r),
  over AS MATERIALIZED (
    SELECT a.pid, a.usename FROM pg_stat_activity a
     WHERE a.usename LIKE 'gk\_%'
       AND ((a.state = 'active' AND a.query_start < clock_timestamp() - statement)
         OR a.xact_start < clock_timestamp() - transaction
         OR a.pid IN (SELECT h.pid FROM held h, most m WHERE h.n > m.n)))
  SELECT usename FROM over WHERE pg_terminate_backend(pid) $$;
-- Takes a guest's slice away, and with it the right to log in here. A guest cannot lock what this changes, so it also
-- works against one that holds its own row while it computes something that cannot be interrupted.
CREATE OR REPLACE FUNCTION guestkey_ops.revoke_rights(who name) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  DECLARE
    held name;
  BEGIN
    FOR held IN SELECT g.rolname FROM pg_auth_members m
                  JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles r ON r.oid = m.member
                 WHERE r.rolname = who AND who LIKE 'gk\_%' AND g.rolname LIKE 'gks\_%'
    LOOP
      EXECUTE format('REVOKE %I FROM %I', held, who);
    END LOOP;
  END $$;
-- Ends guests' sessions that keep others from logging in, or Guestkey from working. Whoever asks for a database itself,
-- as DROP DATABASE does before it looks who asks, has every log-in wait behind it: at once. Whoever has written something,
-- which a guest has no need to: after a while, and at once if one of Guestkey's logins waits for it. Returns whose.
CREATE OR REPLACE FUNCTION guestkey_ops.keep_door_open(written interval) RETURNS SETOF name
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  WITH locks AS MATERIALIZED (SELECT pid, locktype, classid, mode, granted FROM pg_locks),
  writing AS MATERIALIZED (SELECT DISTINCT pid FROM locks WHERE locktype = 'transactionid' AND granted),
  waited_for AS MATERIALIZED (
    SELECT unnest(pg_blocking_pids(w.pid)) AS pid FROM pg_stat_activity w
     WHERE w.usename IN ('guestkey_watch', 'guestkey_minter', 'guestkey_registrar')
       AND w.pid IN (SELECT pid FROM locks WHERE NOT granted) AND EXISTS (SELECT FROM writing)),
  over AS MATERIALIZED (
    SELECT a.pid, a.usename FROM pg_stat_activity a
     WHERE a.usename LIKE 'gk\_%'
       AND (a.pid IN (SELECT pid FROM locks WHERE locktype = 'object' AND classid = 'pg_catalog.pg_database'::regclass
                         AND mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock'))
         OR (a.pid IN (SELECT pid FROM writing)
             AND (a.xact_start < clock_timestamp() - written OR a.pid IN (SELECT pid FROM waited_for)))))
  SELECT usename FROM over WHERE pg_terminate_backend(pid) $$;
CREATE OR REPLACE FUNCTION guestkey_ops.close_door(who name) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  BEGIN
    IF who LIKE 'gk\_%' AND EXISTS (SELECT FROM pg_roles WHERE rolname = who) THEN
      -- A guest can hold its own row locked: its sessions end first, and no new one is as quick as the next statement.
      BEGIN
        PERFORM pg_stat_clear_snapshot();
        PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = who;
      EXCEPTION WHEN insufficient_privilege THEN
        NULL;
      END;
      EXECUTE format('ALTER ROLE %I NOLOGIN', who);
    END IF;
  END $$;
CREATE OR REPLACE FUNCTION guestkey_ops.drop_user(who name) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  BEGIN
    IF who LIKE 'gk\_%' AND EXISTS (SELECT FROM pg_roles WHERE rolname = who) THEN
      EXECUTE format('GRANT %I TO CURRENT_USER WITH INHERIT TRUE', who);
      EXECUTE format('DROP OWNED BY %I', who);
      EXECUTE format('DROP ROLE %I', who);
    END IF;
  END $$;
-- [functions-rights]
-- Whoever is no superuser may give away only what the new owner could have made itself.
GRANT CREATE ON SCHEMA guestkey_ops TO guestkey_reaper, guestkey_minter;
ALTER FUNCTION guestkey_ops.end_sessions(name) OWNER TO guestkey_reaper;
ALTER FUNCTION guestkey_ops.signal_sessions(name[]) OWNER TO guestkey_reaper;
ALTER FUNCTION guestkey_ops.end_blockers() OWNER TO guestkey_reaper;
-- The minter sees what the users it made are doing; the reaper does not.
ALTER FUNCTION guestkey_ops.keep_door_open(interval) OWNER TO guestkey_minter;
ALTER FUNCTION guestkey_ops.end_overlong(interval, interval, integer) OWNER TO guestkey_minter;
ALTER FUNCTION guestkey_ops.revoke_rights(name) OWNER TO guestkey_minter;
ALTER FUNCTION guestkey_ops.close_door(name) OWNER TO guestkey_minter;
ALTER FUNCTION guestkey_ops.drop_user(name) OWNER TO guestkey_minter;
REVOKE CREATE ON SCHEMA guestkey_ops FROM guestkey_reaper, guestkey_minter;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA guestkey_ops FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA guestkey_ops TO guestkey_watch;
-- [reserved-connections]
-- When guests hold all other connections, these two still get in.
GRANT pg_use_reserved_connections TO guestkey_watch, guestkey_minter WITH INHERIT TRUE;
-- [temp-files]
-- Lets OpenBao bound the temporary files of each user it makes.
GRANT SET ON PARAMETER temp_file_limit TO guestkey_minter;
-- [server-log]
-- Lets OpenBao keep guests from the server's log, which they could fill the disk with. Who logged in is logged before.
GRANT SET ON PARAMETER log_min_messages, log_min_error_statement TO guestkey_minter;
-- [guest-definitions]
-- A guest may by default define rights for what it would make, and so entangle another's user. Only a superuser can
-- forbid it.
CREATE OR REPLACE FUNCTION guestkey_ops.refuse_definitions() RETURNS event_trigger
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
  BEGIN
    IF session_user LIKE 'gk\_%' THEN
      RAISE insufficient_privilege USING MESSAGE = 'guests define nothing in this database';
    END IF;
  END $$;
DROP EVENT TRIGGER IF EXISTS guestkey_refuse_definitions;
CREATE EVENT TRIGGER guestkey_refuse_definitions ON ddl_command_start
  EXECUTE FUNCTION guestkey_ops.refuse_definitions();
