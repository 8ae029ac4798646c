"""The first three messages on every worker connection: both sides prove that they know the secret.

A model's secret is made anew for every epoch and travels only over the control plane, so a
connection that passes is one of this very load. Bytes in, bytes out, plus the two thin shells
(blocking and asyncio) that move them; what is said afterwards is not known here.

    acceptor → connector   challenge: magic, version, nonce a
    connector → acceptor   hello: magic, version, kind, epoch, stage, nonce b, HMAC(secret, …)
    acceptor → connector   verdict: status, HMAC(secret, …)
"""

from __future__ import annotations

import asyncio
import enum
import hmac
import os
import socket
import struct
from typing import NamedTuple

from gangline.errors import ProtocolError

MAGIC = b"GLNG"
VERSION = 1
TIMEOUT_S = 5.0

_NONCE_BYTES = 32
_CHALLENGE = struct.Struct(f"<4sH{_NONCE_BYTES}s")
_HELLO = struct.Struct(f"<4sHHQI{_NONCE_BYTES}s32s")
_VERDICT = struct.Struct("<H32s")


class Kind(enum.IntEnum):
    """What a connection is for."""

    HOP = 1  # from the previous stage
    FRONT = 2  # from an entry node, to a head


class Status(enum.IntEnum):
    """The acceptor's verdict."""

    WELCOME = 0
    WRONG_VERSION = 1
    WRONG_SECRET = 2
    WRONG_EPOCH = 3
    NOT_EXPECTED = 4


_REFUSALS = {
    Status.WRONG_VERSION: "it speaks another version of the protocol; update both machines",
    Status.WRONG_SECRET: "it does not accept this connection's secret",
    Status.WRONG_EPOCH: "it belongs to another epoch of the model",
    Status.NOT_EXPECTED: "it does not expect such a connection",
}


class Hello(NamedTuple):
    """Who connects; `stage` is the connecting stage's place in the ring, 0 for an entry node."""

    kind: int
    epoch: int
    stage: int


def make_challenge() -> bytes:
    """The acceptor's first message, with a nonce never used before."""
    return _CHALLENGE.pack(MAGIC, VERSION, os.urandom(_NONCE_BYTES))


def answer_challenge(challenge: bytes, secret: bytes, hello: Hello) -> bytes:
    """The connector's message; raises ProtocolError where the peer is no worker of ours."""
    magic, version, _ = _CHALLENGE.unpack(challenge)
    if magic != MAGIC:
        raise ProtocolError("the peer is not a Gangline worker")
    if version != VERSION:
        raise ProtocolError(f"the peer speaks protocol {version}, this build speaks {VERSION}")
    nonce = os.urandom(_NONCE_BYTES)
    mac = _connect_mac(secret, challenge, hello, nonce)
    return _HELLO.pack(MAGIC, VERSION, *hello, nonce, mac)


def judge_hello(
    challenge: bytes, message: bytes, secret: bytes, epoch: int
) -> tuple[Status, bytes, Hello]:
    """The acceptor's verdict, the bytes that tell it, and what the connector claims to be."""
    magic, version, kind, theirs, stage, nonce, mac = _HELLO.unpack(message)
    hello = Hello(kind, theirs, stage)
    if magic != MAGIC or version != VERSION:
        status = Status.WRONG_VERSION
    elif not hmac.compare_digest(mac, _connect_mac(secret, challenge, hello, nonce)):
        status = Status.WRONG_SECRET
    elif theirs != epoch:
        status = Status.WRONG_EPOCH
    else:
        status = Status.WELCOME
    return status, make_verdict(status, challenge, message, secret), hello


def make_verdict(status: Status, challenge: bytes, message: bytes, secret: bytes) -> bytes:
    """The acceptor's last message; only a welcome proves that the acceptor knows the secret."""
    mac = _accept_mac(secret, challenge, message) if status is Status.WELCOME else bytes(32)
    return _VERDICT.pack(status, mac)


def check_verdict(verdict: bytes, challenge: bytes, message: bytes, secret: bytes) -> None:
    """Raise ProtocolError unless the acceptor welcomed us and proved that it knows the secret."""
    code, mac = _VERDICT.unpack(verdict)
    if code != Status.WELCOME:
        known = code in Status.__members__.values()
        reason = _REFUSALS[Status(code)] if known else f"it answered with status {code}"
        raise ProtocolError(f"the worker refused the connection: {reason}")
    if not hmac.compare_digest(mac, _accept_mac(secret, challenge, message)):
        raise ProtocolError("the peer could not prove that it belongs to this model")


def accept(connection: socket.socket, secret: bytes, epoch: int, kinds: set[Kind]) -> Hello | None:
    """Run the acceptor's side on a blocking socket; None where the connector is refused."""
    connection.settimeout(TIMEOUT_S)
    challenge = make_challenge()
    connection.sendall(challenge)
    message = receive_exactly(connection, _HELLO.size)
    status, verdict, hello = judge_hello(challenge, message, secret, epoch)
    if status is Status.WELCOME and hello.kind not in {int(kind) for kind in kinds}:
        status = Status.NOT_EXPECTED
        verdict = make_verdict(status, challenge, message, secret)
    connection.sendall(verdict)
    if status is not Status.WELCOME:
        return None
    connection.settimeout(None)
    return hello


def connect_hop(address: str, secret: bytes, epoch: int, stage: int) -> socket.socket:
    """Open the hop from stage `stage` to the worker at `address` ("host:port")."""
    connection = socket.create_connection(split_address(address), timeout=TIMEOUT_S)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        challenge = receive_exactly(connection, _CHALLENGE.size)
        message = answer_challenge(challenge, secret, Hello(Kind.HOP, epoch, stage))
        connection.sendall(message)
        verdict = receive_exactly(connection, _VERDICT.size)
        check_verdict(verdict, challenge, message, secret)
    except BaseException:
        connection.close()
        raise
    connection.settimeout(None)
    return connection


async def connect_front(
    address: str, secret: bytes, epoch: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open an entry node's connection to the head at `address` ("host:port").

    Raises ProtocolError where either side refuses, OSError or TimeoutError where nobody answers.
    """
    host, port = split_address(address)
    async with asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            challenge = await reader.readexactly(_CHALLENGE.size)
            message = answer_challenge(challenge, secret, Hello(Kind.FRONT, epoch, 0))
            writer.write(message)
            verdict = await reader.readexactly(_VERDICT.size)
            check_verdict(verdict, challenge, message, secret)
        except BaseException as error:
            writer.close()
            if isinstance(error, asyncio.IncompleteReadError):
                raise ProtocolError("the worker closed the connection in its handshake") from error
            raise
    return reader, writer


def split_address(address: str) -> tuple[str, int]:
    """ "host:port" or "[v6]:port" as a pair; raises ProtocolError where it is neither."""
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()):
        raise ProtocolError(f"`{address}` is not an address of the form host:port")
    return host.strip("[]"), int(port)


def join_address(host: str, port: int) -> str:
    """The inverse of `split_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def receive_exactly(connection: socket.socket, n_bytes: int) -> bytes:
    """Read n_bytes; raises ProtocolError where the peer closes first."""
    parts: list[bytes] = []
    while n_bytes > 0:
        part = connection.recv(n_bytes)
        if not part:
            raise ProtocolError("the peer closed the connection in its handshake")
        parts.append(part)
        n_bytes -= len(part)
    return b"".join(parts)


def _connect_mac(secret: bytes, challenge: bytes, hello: Hello, nonce: bytes) -> bytes:
    claim = struct.pack("<HQI", *hello)
    return hmac.digest(secret, b"connect" + challenge + claim + nonce, "sha256")


def _accept_mac(secret: bytes, challenge: bytes, message: bytes) -> bytes:
    return hmac.digest(secret, b"accept" + challenge + message, "sha256")
