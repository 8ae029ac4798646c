"""The node in its cluster: a zenoh session, who is alive, what all publish, and calls.

Keys, below `gangline/<cluster>/`: `alive/<node>/<session>` is a liveliness token; `report/<node>`
and `record/<model>` carry what `records.py` describes; `call/<node>` answers calls. Whoever sees a
new token asks that node for a snapshot, so late joiners and healed links need no history.

zenoh calls back on its own threads; everything here is handed to the asyncio loop first.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar

import msgspec
import zenoh

from gangline.errors import (
    ErrorBody,
    GanglineError,
    ProtocolError,
    Unavailable,
    error_from_body,
)
from gangline.facts import NodeId
from gangline.node.config import NodeConfig, advertised_address, endpoint
from gangline.node.records import Call, GetSnapshot, ModelRecord, NodeReport, Snapshot
from gangline.node.session import OpenSession

log = logging.getLogger(__name__)

CALL_TIMEOUT_S = 5.0
_SNAPSHOT_RETRY_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # a newcomer's queryable may lag its token

_T = TypeVar("_T")
_Declared = zenoh.Queryable[None] | zenoh.Subscriber[None] | zenoh.LivelinessToken
_CALLS: msgspec.msgpack.Decoder[Call] = msgspec.msgpack.Decoder(Call)
_REPORTS = msgspec.msgpack.Decoder(NodeReport)
_RECORDS = msgspec.msgpack.Decoder(ModelRecord)
_ERRORS = msgspec.msgpack.Decoder(ErrorBody)
_encode = msgspec.msgpack.Encoder().encode


class Handlers(msgspec.Struct, frozen=True):
    """What the node does with what arrives; all are called in its asyncio loop."""

    on_token: Callable[[NodeId, str, bool], None]  # node, session, present
    on_report: Callable[[NodeReport], None]
    on_record: Callable[[ModelRecord], None]
    on_call: Callable[[Call], Awaitable[msgspec.Struct]]


class Membership:
    """One session of one node. `open` once, `close` once or more."""

    def __init__(self, config: NodeConfig, me: NodeId, handlers: Handlers) -> None:
        self._config = config
        self._me = me
        self._handlers = handlers
        self._prefix = f"gangline/{config.cluster}"
        self._opened: OpenSession | None = None
        # Kept, since zenoh undeclares what is collected.
        self._declared: list[_Declared] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._present: set[str] = set()  # tokens, "<node>/<session>"
        self.control_endpoint = ""

    async def open(self) -> None:
        """Join: after this, peers that are there are found in the background."""
        self._loop = asyncio.get_running_loop()
        opened = self._opened = await OpenSession.open(self._config)
        self.control_endpoint = endpoint(advertised_address(self._config), opened.port)
        try:
            await asyncio.to_thread(self._declare, opened.session)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Leave at once. A session left open would hang the interpreter at its exit."""
        for task in self._tasks:
            task.cancel()
        opened, self._opened = self._opened, None
        self._loop = None
        self._declared.clear()
        if opened is not None:
            await opened.close()

    def publish_report(self, report: NodeReport) -> None:
        self._put(f"report/{report.facts.id}", report)

    def publish_record(self, record: ModelRecord) -> None:
        # An id may hold what a key may not.
        self._put(f"record/{hashlib.blake2s(record.id.encode()).hexdigest()}", record)

    async def call(
        self, node: NodeId, request: Call, reply: type[_T], timeout_s: float = CALL_TIMEOUT_S
    ) -> _T:
        """Ask one node; raises the GanglineError that it answers, Unavailable where none does."""
        opened, loop = self._opened, asyncio.get_running_loop()
        if opened is None:
            raise Unavailable("this node is not part of a cluster")
        answer: asyncio.Future[bytes] = loop.create_future()

        def settle(result: bytes | GanglineError) -> None:
            if not answer.done() and isinstance(result, GanglineError):
                answer.set_exception(result)
            elif not answer.done() and isinstance(result, bytes):
                answer.set_result(result)

        def on_reply(received: zenoh.Reply) -> None:
            if received.ok is not None:
                self._hand_over(settle, received.ok.payload.to_bytes())
            elif received.err is not None:
                self._hand_over(settle, _read_error(received.err.payload.to_bytes()))

        def on_end() -> None:
            self._hand_over(settle, Unavailable(f"node {node} did not answer"))

        handler = zenoh.handlers.Callback(on_reply, on_end, indirect=False)
        try:
            opened.session.get(
                f"{self._prefix}/call/{node}", handler, payload=_encode(request), timeout=timeout_s
            )
            async with asyncio.timeout(timeout_s + 1.0):
                data = await answer
        except TimeoutError as error:
            raise Unavailable(f"node {node} did not answer within {timeout_s:g} s") from error
        except zenoh.ZError as error:
            raise Unavailable(f"node {node} cannot be asked: {error}") from error
        try:
            return msgspec.msgpack.decode(data, type=reply)
        except msgspec.MsgspecError as error:
            raise ProtocolError(f"node {node} answered what cannot be read: {error}") from error

    # ---- on zenoh's threads, or before there is anything to hear

    def _declare(self, session: zenoh.Session) -> None:
        """Be ready to answer before the token tells others that we are here."""
        callback = zenoh.handlers.Callback
        self._declared = [
            session.declare_queryable(
                f"{self._prefix}/call/{self._me}", callback(self._on_query, indirect=False)
            ),
            session.declare_subscriber(
                f"{self._prefix}/report/*", callback(self._on_report, indirect=False)
            ),
            session.declare_subscriber(
                f"{self._prefix}/record/*", callback(self._on_record, indirect=False)
            ),
            session.liveliness().declare_subscriber(
                f"{self._prefix}/alive/*/*", callback(self._on_token, indirect=False), history=True
            ),
            session.liveliness().declare_token(
                f"{self._prefix}/alive/{self._me}/{secrets.token_hex(4)}"
            ),
        ]

    def _put(self, key: str, message: msgspec.Struct) -> None:
        if self._opened is None:
            return
        try:
            self._opened.session.put(
                f"{self._prefix}/{key}",
                _encode(message),
                congestion_control=zenoh.CongestionControl.BLOCK,
            )
        except zenoh.ZError as error:
            log.warning("could not publish %s: %s", key, error)

    def _hand_over(self, function: Callable[..., None], *arguments: object) -> None:
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop closed meanwhile: nobody listens
                loop.call_soon_threadsafe(function, *arguments)

    def _on_token(self, sample: zenoh.Sample) -> None:
        present = sample.kind == zenoh.SampleKind.PUT
        self._hand_over(self._take_token, str(sample.key_expr), present)

    def _on_report(self, sample: zenoh.Sample) -> None:
        self._hand_over(self._take, _REPORTS, sample.payload.to_bytes(), self._handlers.on_report)

    def _on_record(self, sample: zenoh.Sample) -> None:
        self._hand_over(self._take, _RECORDS, sample.payload.to_bytes(), self._handlers.on_record)

    def _on_query(self, query: zenoh.Query) -> None:
        data = query.payload.to_bytes() if query.payload is not None else b""
        self._hand_over(self._start, self._answer, query, data)

    # ---- in the loop

    def _start(
        self, function: Callable[..., Coroutine[None, None, None]], *arguments: object
    ) -> None:
        task = asyncio.create_task(function(*arguments))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take(
        self, decoder: msgspec.msgpack.Decoder[_T], data: bytes, handle: Callable[[_T], None]
    ) -> None:
        try:
            message = decoder.decode(data)
        except msgspec.MsgspecError as error:
            log.warning("a peer published what cannot be read: %s", error)
            return
        handle(message)

    def _take_token(self, key: str, present: bool) -> None:
        node, session = key.rsplit("/", 2)[1:]
        token = f"{node}/{session}"
        (self._present.add if present else self._present.discard)(token)
        self._handlers.on_token(NodeId(node), session, present)
        if present and node != self._me:
            self._start(self._fetch_snapshot, NodeId(node), token)

    async def _fetch_snapshot(self, node: NodeId, token: str) -> None:
        """Ask until the node answers or is gone."""
        for wait_s in (*_SNAPSHOT_RETRY_S, *[_SNAPSHOT_RETRY_S[-1]] * 10):
            try:
                snapshot = await self.call(node, GetSnapshot(), Snapshot)
            except GanglineError as error:
                log.debug("no snapshot of %s yet: %s", node, error.message)
            else:
                self._handlers.on_report(snapshot.report)
                for record in snapshot.records:
                    self._handlers.on_record(record)
                return
            await asyncio.sleep(wait_s)
            if token not in self._present:
                return
        log.warning("node %s is there but does not answer", node)

    async def _answer(self, query: zenoh.Query, data: bytes) -> None:
        try:
            reply, failure = await self._handlers.on_call(_CALLS.decode(data)), None
        except GanglineError as error:
            reply, failure = None, error.body()
        except msgspec.MsgspecError as error:
            reply, failure = None, ProtocolError(f"the call cannot be read: {error}").body()
        except Exception as error:  # the caller has to hear of it, whatever it is
            log.exception("a call failed")
            reply, failure = None, GanglineError(f"the call failed: {error!r}").body()
        with contextlib.suppress(zenoh.ZError), query:  # the asking node may be gone
            if reply is not None:
                query.reply(f"{self._prefix}/call/{self._me}", _encode(reply))
            else:
                query.reply_err(_encode(failure))


def _read_error(data: bytes) -> GanglineError:
    try:
        return error_from_body(_ERRORS.decode(data))
    except msgspec.MsgspecError:  # zenoh's own words: a timeout, nobody there
        return Unavailable(f"the call failed: {data.decode('utf-8', 'replace')}")
