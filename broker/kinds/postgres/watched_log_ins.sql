-- Lets guests into this database only while a session of the worker's watches over it: without one a guest who comes back
-- first after a crash of the server could make every log-in wait for ever. PostgreSQL 17 or newer; a superuser, once, in
-- the database. Whoever runs the server gets in without it by PGOPTIONS='-c event_triggers=off'.
CREATE OR REPLACE FUNCTION guestkey_ops.refuse_unwatched() RETURNS event_trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  BEGIN
    IF session_user NOT LIKE 'gk\_%' THEN
      RETURN;
    END IF;
    -- A worker that was just started, or lost its session, has one again within a second or so.
    FOR attempt IN 1..30 LOOP
      PERFORM pg_stat_clear_snapshot();
      IF EXISTS (SELECT FROM pg_stat_activity WHERE usename = 'guestkey_watch' AND datname = current_database()
                    AND state IN ('active', 'idle in transaction')) THEN
        RETURN;
      END IF;
      PERFORM pg_sleep(0.1);
    END LOOP;
    RAISE insufficient_privilege
      USING MESSAGE = 'Guestkey does not watch over this database at the moment; try again in a few seconds';
  END $$;
REVOKE ALL ON FUNCTION guestkey_ops.refuse_unwatched() FROM PUBLIC;
DROP EVENT TRIGGER IF EXISTS guestkey_refuse_unwatched;
CREATE EVENT TRIGGER guestkey_refuse_unwatched ON login EXECUTE FUNCTION guestkey_ops.refuse_unwatched();
