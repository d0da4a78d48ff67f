-- A database of its own for the identity provider. {keycloak} is a quoted password.
CREATE ROLE keycloak LOGIN PASSWORD {keycloak};
CREATE DATABASE keycloak OWNER keycloak;
REVOKE ALL ON DATABASE keycloak FROM PUBLIC;
