"""Made-up patients in the database `data`, and pictures in a bucket: what the slices of the tests are cut from."""

from __future__ import annotations

from typing import Any

import psycopg

ROWS = 200
BERLIN = ROWS // 2


def make_clinic(admin_url: str) -> None:
    """Make `clinic.patients`: every second row in Berlin, names only in the full slice."""
    with psycopg.connect(admin_url) as connection:
        connection.execute("CREATE SCHEMA clinic")
        connection.execute("CREATE TABLE clinic.patients (id int, site text, age int, name text, email text)")
        connection.execute(
            "INSERT INTO clinic.patients SELECT n, CASE WHEN n %% 2 = 0 THEN 'berlin' ELSE 'paris' END, 20 + n %% 60,"
            " 'Patient ' || n, 'p' || n || '@example.org' FROM generate_series(1, %s) n",
            (ROWS,),
        )
        connection.execute("GRANT USAGE ON SCHEMA clinic TO guestkey_registrar")
        connection.execute("GRANT SELECT ON clinic.patients TO guestkey_registrar")


BUCKET = "clinic"
PICTURES = 5


def make_pictures(s3: Any) -> None:
    """Make the bucket `clinic`: five objects under `trials/`, and what nobody may see beside them."""
    s3.create_bucket(Bucket=BUCKET)
    s3.create_bucket(Bucket="others")
    for number in range(PICTURES):
        s3.put_object(Bucket=BUCKET, Key=f"trials/{number}.json", Body=b'{"label": "cat"}')
    for bucket, key in ((BUCKET, "trials2/0.json"), (BUCKET, "secret.json"), ("others", "trials/0.json")):
        s3.put_object(Bucket=bucket, Key=key, Body=b'{"secret": true}')
