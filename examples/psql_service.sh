#!/bin/sh
# Any program that speaks libpq, by a service and a password file: nothing secret in an argument or in its settings.
set -eu
dataset=${1:-health-visits}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

guestkey get "$dataset" --kind postgres --for 5m --format pg-service --out "$folder/pg" 2>"$folder/said" ||
  { cat "$folder/said" >&2; exit 1; }

export PGSERVICEFILE="$folder/pg/pg_service.conf"
relation=$(sed -n 's/^It can read: //p' "$folder/said")
psql -XAt "service=$dataset" -c 'SELECT current_user' -c "SELECT count(*) || ' rows in $relation' FROM $relation"

# The command itself said how to end it sooner than in five minutes.
lease=$(sed -n 's/^To end it earlier: guestkey lease revoke //p' "$folder/said")
guestkey lease revoke "$lease"
