"""What any AWS SDK or tool needs: one line of its config, here in a file of its own; boto3 knows nothing of Guestkey.

The line for `~/.aws/config` is the one that is printed. `--for 1h` where the rule allows it: AWS's tools ask anew a
quarter of an hour before the end.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import boto3


def main(dataset: str = "shapes", slice_: str = "deidentified") -> None:
    """List a slice with a profile that says where its credentials come from."""
    guestkey = shutil.which("guestkey") or str(Path(sys.executable).with_name("guestkey"))
    place = _place(guestkey, dataset, slice_)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config"
        line = f"credential_process = {guestkey} get {dataset} --slice {slice_} --kind s3 --format credential-process"
        config.write_text(f"[profile guest]\n{line}\n")
        os.environ["AWS_CONFIG_FILE"] = str(config)
        print(line)
        session = boto3.Session(profile_name="guest", region_name=place.get("AWS_REGION"))
        client = session.client("s3", endpoint_url=place.get("AWS_ENDPOINT_URL_S3"))
        listed = client.list_objects_v2(Bucket=place["GUESTKEY_BUCKET"], Prefix=place["GUESTKEY_PREFIX"])
        print(f"{listed['KeyCount']} objects below s3://{place['GUESTKEY_BUCKET']}/{place['GUESTKEY_PREFIX']}")


def _place(guestkey: str, dataset: str, slice_: str) -> dict[str, str]:
    """Where the slice is; who knows that already writes it into the profile, as `endpoint_url` and `region`."""
    command = [guestkey, "run", dataset, "--slice", slice_, "--kind", "s3", "--", "env"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    if told.returncode != 0:
        sys.exit(told.stderr.rstrip())
    return dict(line.split("=", 1) for line in told.stdout.splitlines() if "=" in line)


if __name__ == "__main__":
    main(*sys.argv[1:3])
