-- Prepares the broker's own database: owner and application are separate roles, and nobody else may connect.
-- {owner} and {app} are quoted passwords.

REVOKE ALL ON DATABASE guestkey FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
CREATE ROLE guestkey_owner LOGIN NOSUPERUSER PASSWORD {owner};
CREATE ROLE guestkey_app LOGIN NOSUPERUSER PASSWORD {app};
GRANT CONNECT ON DATABASE guestkey TO guestkey_owner;
GRANT CONNECT ON DATABASE guestkey TO guestkey_app;
CREATE SCHEMA guestkey AUTHORIZATION guestkey_owner;
GRANT USAGE ON SCHEMA guestkey TO guestkey_app;
