"""A pool of connections, shared by threads: each is made with a live lease, and left before that ends."""

import sys
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy

import guestkey
from guestkey import postgres


def main(dataset: str = "health-visits") -> None:
    """Ask the same of several connections at once."""
    with guestkey.Client() as client:
        credentials = client.credentials(dataset, kind="postgres")
        engine = postgres.engine(client, dataset)
        question = sqlalchemy.text(f"SELECT current_user, count(*) FROM {postgres.relation(credentials)}")

        def ask(_number: int) -> tuple[str, int]:
            with engine.connect() as connection:
                user, rows = connection.execute(question).one()
                return user, rows

        with ThreadPoolExecutor(3) as threads:
            answers = set(threads.map(ask, range(6)))
        engine.dispose()
        for user, rows in answers:
            print(f"{rows} rows, as {user}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except guestkey.Error as error:
        sys.exit(f"{error}\nNext: {error.next_step}")
