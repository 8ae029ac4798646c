"""Who uses a port: a Gangline node, or a process that the operating system names."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from gangline.cli.client import Client
from gangline.errors import Conflict, GanglineError
from gangline.facts import ClusterState

PROBE_S = 1.0  # who does not answer within this time is no node
_LISTENING = "0A"  # state of a socket in Linux's /proc/net/tcp


def explain_port(error: Conflict, listen: str, port: int) -> Conflict:
    """The same error, with the one who has the port if that can be found out."""
    name = node_at(listen, port)
    if name:
        return Conflict(
            f"port {port} is in use by {name}",
            hint=f"`gangline status --url {url_at(listen, port)}` shows it; "
            "another one needs a --port of its own",
        )
    owner = process_at(port)
    if owner:
        return Conflict(f"port {port} on {listen} is in use by {owner}", hint=error.hint)
    return error


def url_at(listen: str, port: int) -> str:
    """Where a node that listens there is reached from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen, listen)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def node_at(listen: str, port: int) -> str:
    """The node that answers there, in words; "" if none does."""
    try:
        body = Client(url_at(listen, port)).get("/cluster/state", ClusterState, PROBE_S)
    except GanglineError:
        return ""
    node = next((node for node in body.nodes if node.id == body.node), None)
    return f"the Gangline node `{node.name}` (process {node.pid})" if node else "a Gangline node"


def process_at(port: int, proc: Path = Path("/proc")) -> str:
    """The process that listens there, in words; "" where it cannot be known."""
    if sys.platform != "linux":
        return ""
    try:
        table = (proc / "net/tcp").read_text() + (proc / "net/tcp6").read_text()
    except OSError:
        return ""
    sockets = {f"socket:[{inode}]" for inode in listening_inodes(table, port)}
    for folder in proc.glob("[0-9]*") if sockets else ():
        try:
            held = {str(link.readlink()) for link in (folder / "fd").iterdir()}
            name = (folder / "comm").read_text().strip()
        except OSError:
            continue  # it has ended, or belongs to somebody else
        if held & sockets:
            return f"`{name}` (process {folder.name})"
    return ""


def listening_inodes(table: str, port: int) -> list[str]:
    """Inodes of the sockets that listen on a port, of the lines of /proc/net/tcp."""
    row = re.compile(rf"\d+: [0-9A-F]+:{port:04X} [0-9A-F:]+ {_LISTENING} (?:\S+ ){{5}}(\d+)")
    return row.findall(re.sub(r" +", " ", table))
