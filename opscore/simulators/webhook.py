"""AgentKit's registration webhook: signed, sent once, never again."""

import json
import logging
import time
from collections.abc import Mapping
from typing import Any

import httpx

from opscore.signature import sign

WEBHOOK_TIMEOUT = 10.0

logger = logging.getLogger(__name__)


async def send_webhook(
    client: httpx.AsyncClient, url: str, secret: str, body: Mapping[str, Any]
) -> None:
    content = json.dumps(body).encode()
    timestamp = str(int(time.time()))
    headers = {
        "Content-Type": "application/json",
        "X-AgentKit-Timestamp": timestamp,
        "X-AgentKit-Signature": sign(secret, timestamp, content),
    }
    try:
        response = await client.post(url, content=content, headers=headers, timeout=WEBHOOK_TIMEOUT)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        logger.error("the webhook to %s failed: %r", url, error)
        return
    if not response.is_success:
        logger.error("the webhook to %s failed: answered %d", url, response.status_code)
