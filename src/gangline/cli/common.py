"""Requests that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Generator
from contextlib import closing
from urllib.parse import quote

import msgspec

from gangline.cli.client import Client, default_url
from gangline.errors import GanglineError, ProtocolError
from gangline.facts import ClusterState, ModelFacts

UNLOAD_S = 60.0


def client_of(options: argparse.Namespace) -> Client:
    """The client for `--url`."""
    return Client(options.url or default_url())


def watch_states(client: Client) -> Generator[ClusterState, None, None]:
    """The cluster's state, now and after each change."""
    with closing(client.events("GET", "/cluster/events")) as events:
        for event in events:
            if event.kind == "state":
                yield msgspec.json.decode(event.data, type=ClusterState)


def wait_ready(
    client: Client, wanted: ModelFacts, report: Callable[[ModelFacts], None]
) -> ModelFacts:
    """Wait until a model answers; raises what made it fail."""
    with closing(watch_states(client)) as states:
        for state in states:
            for model in state.models:
                if model.id != wanted.id or model.epoch < wanted.epoch:
                    continue
                report(model)
                if model.state == "ready":
                    return model
                if model.state == "failed":
                    raise GanglineError(
                        f"model `{model.id}` failed: {model.reason}",
                        hint="`gangline status` shows the nodes",
                    )
    raise ProtocolError(f"the node at {client.url} closed the connection")


def unload(client: Client, model: str) -> None:
    """Unload a model, and wait until its memory is free."""
    client.request("DELETE", f"/cluster/models/{quote(model, safe='')}", timeout_s=UNLOAD_S)
    with closing(watch_states(client)) as states:
        for state in states:
            if all(one.id != model for one in state.models):
                return
