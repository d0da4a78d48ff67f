"""Webhooks: one signed POST for each delivery, as the Standard Webhooks specification has it.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import json
import secrets
from datetime import UTC, datetime

from standardwebhooks.webhooks import Webhook

from broker.base.settings import Settings
from broker.models import Delivery
from broker.outbound import http_client
from broker.outbound.smtp import NotSent

_GONE = 410


def new_secret() -> str:
    """A fresh signing secret of 32 bytes, as receivers take it."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def send(settings: Settings, url: str, secret: str, delivery: Delivery, now: datetime) -> None:
    """Post one delivery. Receivers know a repeat by `webhook-id`.

    Raises:
        NotSent: it was not taken.
    """
    body = json.dumps(
        {
            "type": delivery.kind,
            "timestamp": delivery.created_at.astimezone(UTC).isoformat(),
            "data": {
                "topic": delivery.topic,
                "title": delivery.title,
                "text": delivery.body,
                "link": str(settings.public_url).rstrip("/") + delivery.path,
            },
        },
        ensure_ascii=False,
    )
    at = now.astimezone(UTC)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "Guestkey",
        "webhook-id": delivery.id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(delivery.id, at, body),
    }
    status = http_client.post(settings, url, body.encode(), headers)
    if 300 <= status < 400:
        raise NotSent(f"The target redirects ({status}), which is not followed.")
    if not 200 <= status < 300:
        raise NotSent(f"The target answered {status}.", for_good=status == _GONE)
