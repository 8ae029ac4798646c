"""Says once of each peer that was named whether it answers; zenoh itself retries without a word.

A probe is a TCP connection that is closed at once. Ends with the last peer reached.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable

from gangline.node.config import peer_endpoint
from gangline.stage.handshake import split_address

log = logging.getLogger(__name__)

PROBE_WITHIN_S = 3.0
PROBE_EVERY_S = 2.0


async def watch_peers(peers: Iterable[str]) -> None:
    """Warn of each peer that cannot be reached, and say when it is; returns when all were."""
    await asyncio.gather(*(_watch(peer) for peer in dict.fromkeys(peers)))


async def _watch(peer: str) -> None:
    address = peer_endpoint(peer).removeprefix("tcp/")
    warned = False
    while why := await _unreachable(address):
        if not warned:
            log.warning("peer %s does not answer at %s (%s); trying on", peer, address, why)
            warned = True
        await asyncio.sleep(PROBE_EVERY_S)
    if warned:  # as loud as the warning that it takes back
        log.warning("peer %s answers now at %s", peer, address)


async def _unreachable(address: str) -> str:
    """Why nothing answers there; "" if something does."""
    host, port = split_address(address)
    try:
        async with asyncio.timeout(PROBE_WITHIN_S):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return f"no answer within {PROBE_WITHIN_S:g} s"
    except OSError as error:
        return reason_of(error)
    writer.close()
    return ""


def reason_of(error: OSError) -> str:
    """A failed connection in the system's words; asyncio puts the address into its own."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if error.errno is None or "Connect call failed" not in str(error):
        return error.strerror or str(error)
    return os.strerror(error.errno)
