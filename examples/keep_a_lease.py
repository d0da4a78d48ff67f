"""Work with one lease for as long as it takes: it is renewed before it ends, and given back after the block."""

import sys

import psycopg
from psycopg import sql

import guestkey


def main(dataset: str = "health-visits") -> None:
    """Count the rows that may be read."""
    with guestkey.Client() as client, client.lease(dataset, kind="postgres", lifetime=300) as lease:
        values = lease.values
        print(f"You are {values['username']} until {lease.expires_at:%H:%M:%S} UTC, unless renewed.")
        question = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(*values["relation"].split(".")))
        with psycopg.connect(
            host=values["host"],
            port=int(values["port"]),
            dbname=values["dbname"],
            user=values["username"],
            password=values["password"],
            sslmode=values.get("sslmode", "verify-full"),
        ) as connection:
            row = connection.execute(question).fetchone()
        print(f"{row[0] if row else 0} rows in {values['relation']}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except guestkey.Error as error:
        sys.exit(f"{error}\nNext: {error.next_step}")
