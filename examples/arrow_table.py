"""Read JSON lines of a slice into an Arrow table, straight from `guestkey://DATASET/PATH`."""

import sys

import fsspec
import pyarrow.json
from pyarrow.fs import FSSpecHandler, PyFileSystem

import guestkey


def main(dataset: str = "shapes", slice_: str = "deidentified") -> None:
    """Show the table of the first file of JSON lines."""
    with guestkey.Client() as client:
        files = fsspec.filesystem("guestkey", client=client, slice=slice_)
        found = [name for name in files.find(dataset) if name.endswith((".jsonl", ".ndjson"))]
        if not found:
            sys.exit(f"No JSON lines in {dataset}.")
        arrow = PyFileSystem(FSSpecHandler(files))
        with arrow.open_input_stream(found[0]) as stream:
            table = pyarrow.json.read_json(stream)
        print(f"{found[0]}: {table.num_rows} rows of {', '.join(table.column_names)}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:3])
    except guestkey.Error as error:
        sys.exit(f"{error}\nNext: {error.next_step}")
