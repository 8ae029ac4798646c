"""Every error that Gangline shows to a user; knows nothing of where it is shown.

GanglineError
├── UsageError             400  exit 2   the request or the command line is wrong
│   ├── UnsupportedParameter            a known parameter that this build does not implement
│   └── ContextTooLong                  prompt and answer do not fit into the context
├── NotFound               404  exit 1   no such model, node or path
├── Conflict               409  exit 1   a port in use, a model already loading
├── CheckpointError        422  exit 1   a file that cannot be read as a model
├── DoesNotFit             507  exit 1   the machines have too little memory
├── Unavailable            503  exit 1   nothing that could answer now; try again
│   └── WorkerLost                      a worker or node died while it was answering
└── ProtocolError          502  exit 1   a peer sent what the protocol does not allow
"""

from __future__ import annotations

import msgspec


class ErrorBody(msgspec.Struct, frozen=True):
    """An error as it travels between processes; `code` is stable, people script against it."""

    code: str
    message: str
    hint: str = ""
    http_status: int = 500
    param: str | None = None


class GanglineError(Exception):
    """What went wrong and with which value; `hint` says what to do about it."""

    code = "internal_error"
    http_status = 500
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.param = param

    def body(self) -> ErrorBody:
        """The error as a message for another process."""
        return ErrorBody(self.code, self.message, self.hint, self.http_status, self.param)


class UsageError(GanglineError):
    code = "invalid_request"
    http_status = 400
    exit_code = 2


class UnsupportedParameter(UsageError):
    code = "unsupported_parameter"


class ContextTooLong(UsageError):
    code = "context_length_exceeded"


class NotFound(GanglineError):
    code = "not_found"
    http_status = 404


class Conflict(GanglineError):
    code = "conflict"
    http_status = 409


class CheckpointError(GanglineError):
    code = "checkpoint_unreadable"
    http_status = 422


class DoesNotFit(GanglineError):
    code = "does_not_fit"
    http_status = 507


class Unavailable(GanglineError):
    code = "unavailable"
    http_status = 503


class WorkerLost(Unavailable):
    code = "worker_lost"


class ProtocolError(GanglineError):
    code = "protocol_error"
    http_status = 502


_BY_CODE: dict[str, type[GanglineError]] = {
    kind.code: kind
    for kind in (
        GanglineError, UsageError, UnsupportedParameter, ContextTooLong, NotFound, Conflict,
        CheckpointError, DoesNotFit, Unavailable, WorkerLost, ProtocolError,
    )
}  # fmt: skip


def error_from_body(body: ErrorBody) -> GanglineError:
    """The exception that another process described; an unknown code keeps its HTTP status."""
    error = _BY_CODE.get(body.code, GanglineError)(body.message, hint=body.hint, param=body.param)
    error.code = body.code
    error.http_status = body.http_status
    return error
