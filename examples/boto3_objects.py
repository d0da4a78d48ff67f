"""List and read objects with boto3, for longer than any one credential lives: they are replaced on the way."""

import sys

import guestkey
from guestkey import s3


def main(dataset: str = "shapes", slice_: str = "deidentified") -> None:
    """Show what is there, and the beginning of the first object."""
    with guestkey.Client() as client:
        place = s3.open_slice(client, dataset, slice=slice_)
        pages = place.client.get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=place.prefix)
        objects = [item for page in pages for item in page.get("Contents", ())]
        for item in objects:
            print(f"{item['Size']:>8}  {item['Key'].removeprefix(place.prefix)}")
        if objects:
            body = place.client.get_object(Bucket=place.bucket, Key=objects[0]["Key"])["Body"]
            print(f"first bytes: {body.read(16)!r}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:3])
    except guestkey.Error as error:
        sys.exit(f"{error}\nNext: {error.next_step}")
