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
CREATE OR REPLACE FUNCTION guestkey_ops.close_door(who name) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  BEGIN
    IF who LIKE 'gk\_%' AND EXISTS (SELECT FROM pg_roles WHERE rolname = who) THEN
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
ALTER FUNCTION guestkey_ops.close_door(name) OWNER TO guestkey_minter;
ALTER FUNCTION guestkey_ops.drop_user(name) OWNER TO guestkey_minter;
REVOKE CREATE ON SCHEMA guestkey_ops FROM guestkey_reaper, guestkey_minter;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA guestkey_ops FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA guestkey_ops TO guestkey_watch;
