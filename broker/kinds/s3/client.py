"""How guests use a session of an object store: AWS's command line and variables, and `credential_process`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from broker.base.faults import Code, Fault
from broker.kinds.client import Credential, Files, Format, KindClient, Program


def _credential_process(credential: Credential, _folder: Path) -> Files:
    document = {
        "Version": 1,
        "AccessKeyId": credential.value("access_key_id"),
        "SecretAccessKey": credential.value("secret_access_key"),
        "SessionToken": credential.value("session_token"),
        "Expiration": credential.ends().isoformat(timespec="seconds"),
    }
    return {"credential.json": json.dumps(document) + "\n"}


class S3Client(KindClient):
    """See `Client`."""

    program = Program("aws", "AWS's command line")
    formats = (
        Format(
            "credential-process",
            "for credential_process in ~/.aws/config: never prompts, one line on failure",
            _credential_process,
            repeated=True,
        ),
    )
    variables: ClassVar[Mapping[str, str]] = {
        "AWS_ACCESS_KEY_ID": "access_key_id",
        "AWS_SECRET_ACCESS_KEY": "secret_access_key",
        "AWS_SESSION_TOKEN": "session_token",
        "AWS_REGION": "region",
        "AWS_DEFAULT_REGION": "region",
        "AWS_ENDPOINT_URL_S3": "endpoint_url",
        "AWS_CA_BUNDLE": "ca_file",
    }
    foreign = "AWS_"
    kept = frozenset({"AWS_CA_BUNDLE", "AWS_DEFAULT_OUTPUT", "AWS_MAX_ATTEMPTS", "AWS_PAGER", "AWS_RETRY_MODE"})

    def fixed_variables(self, values: Mapping[str, Any]) -> dict[str, str]:
        """See `Client.fixed_variables`: what a profile says of another store must not get a session of AWS itself."""
        return {} if values.get("endpoint_url") else {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}

    def check_opening(self, dataset: str, action: str) -> None:
        """See `Client.check_opening`."""
        if action != "read":
            raise Fault(
                Code.USAGE,
                "connect lists, and who only writes sees nothing that could be listed.",
                next_step=f"guestkey run {dataset} --kind s3 --action {action} -- YOUR-TOOL",
            )

    def opening(self, program: str, credential: Credential, files: Mapping[str, str]) -> tuple[list[str], list[str]]:
        """See `Client.opening`: it lists the prefix."""
        values, lease = credential.values, credential.lease
        place = f"s3://{values.get('bucket')}/{values.get('prefix')}"
        endpoint = str(values.get("endpoint_url") or "")
        # Said in the command, too: releases before 2.13 read no AWS_ENDPOINT_URL_S3, and would ask AWS itself.
        at = ["--endpoint-url", endpoint] if endpoint else []
        copying = shlex.join(["aws", *at, "s3", "cp", f"{place}NAME", "."])
        slice_ = f"--slice {shlex.quote(str(lease['slice']))} " if lease.get("slice") else ""
        more = f"Copy from it: guestkey run {credential.dataset} {slice_}--kind s3 -- {copying}"
        return [program, *at, "s3", "ls", "--", place], [f"You can reach {place}. This lists it.", more]


CLIENT = S3Client()
