"""The commands as processes: their whole output, their exit codes, against a real node."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from pathlib import Path

import msgspec
import pytest

import gangline
from gangline.cli.main import COMMANDS
from gangline.facts import ClusterState
from tests.cli.conftest import Run
from tests.cli.conftest import gangline as command_line
from tests.cluster import Cluster

SUM = "What is 17 + 25?"


def test_version(run: Run) -> None:
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        f"gangline {gangline.__version__}\n",
        "",
    )


def test_without_a_command_there_is_help(run: Run) -> None:
    asked, nothing = run("--help"), run()
    assert (asked.returncode, nothing.returncode) == (0, 2)
    assert asked.stdout == nothing.stderr
    for command in COMMANDS:
        assert f"  {command.name}" in asked.stdout


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_help(run: Run, command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: gangline {command}")
    assert done.stdout.rstrip().splitlines()[-1].startswith(f"  gangline {command}")


@pytest.mark.parametrize(
    ("arguments", "stderr"),
    [
        (["lod"], "error: there is no command `lod`\n\nhint: did you mean `gangline load`?\n"),
        (["zzz"], "error: there is no command `zzz`\n\nhint: `gangline --help` lists them\n"),
        (
            ["load"],
            "error: the following arguments are required: MODEL\n\n"
            "hint: `gangline load --help` shows what it takes\n",
        ),
        (
            ["up", "--port", "x"],
            "error: argument --port: `x` is outside 0..65534\n\n"
            "hint: `gangline up --help` shows what it takes\n",
        ),
        (
            ["up", "--threads", "5000"],
            "error: argument --threads: `5000` is outside 1..1024\n\n"
            "hint: `gangline up --help` shows what it takes\n",
        ),
        (
            ["demo", "--nodes", "99"],
            "error: --nodes 99 is more than one machine should run\n\nhint: use at most 16\n",
        ),
        (["up", "--config", "none"], "error: cannot read `none`: No such file or directory\n"),
    ],
)
def test_wrong_usage(run: Run, arguments: list[str], stderr: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", stderr)


def test_a_wrong_log_level(run: Run) -> None:
    done = run("up", "--port", "0", GANGLINE_LOG="loud")
    assert done.returncode == 2
    assert done.stderr == (
        "error: GANGLINE_LOG is `loud`\n\nhint: use debug, info, warning, error\n"
    )


def test_no_node_answers(run: Run) -> None:
    text = (
        "error: no node answers at http://127.0.0.1:1\n\n"
        "hint: `gangline up` starts one here; `--url` or GANGLINE_URL names another address\n"
    )
    status = run("status", "--url", "127.0.0.1:1")
    assert (status.returncode, status.stdout, status.stderr) == (3, "", text)
    for arguments in (["chat"], ["models"], ["load", "demo"], ["unload", "demo"]):
        done = run(*arguments, GANGLINE_URL="http://127.0.0.1:1")
        assert (done.returncode, done.stdout, done.stderr) == (1, "", text)


def test_what_answers_is_no_node(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"127.0.0.1:{server.getsockname()[1]}"
        process = subprocess.Popen(
            command_line("models", "--url", url), stderr=subprocess.PIPE, text=True
        )
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert stderr.startswith(f"error: the answer of http://{url} broke off, or is no HTTP\n")


@pytest.mark.cluster
def test_status(run: Run, cluster: Cluster) -> None:
    done = run("status", "--url", cluster.urls[0])
    assert (done.returncode, done.stderr) == (0, "")
    shape = re.compile(
        r"demo: ready, 8 layers on 1 node, 2 lanes of \d+ tokens\n"
        r"one answer: [\d.]+ tok/s ± [\d.]+ % predicted(, [\d.]+ tok/s measured)?\n\n"
        r"NODE  DEVICE +FREE +LAYERS  BACKEND  LINK  STATE\n"
        r"one\*  .+ GiB  \[0, 8\)  cpu      -     (ready|serving, [\d.]+ tok/s)\n\n"
        r"`gangline chat demo` talks with it\n"
    )
    assert shape.fullmatch(done.stdout), done.stdout


@pytest.mark.cluster
def test_status_as_json_is_the_state(run: Run, cluster: Cluster) -> None:
    done = run("status", "--json", GANGLINE_URL=cluster.urls[0])
    assert (done.returncode, done.stderr) == (0, "")
    state = msgspec.json.decode(done.stdout, type=ClusterState)
    assert state.nodes[0].pid == cluster.pids[0]
    assert [model.id for model in state.models] == ["demo"]


@pytest.mark.cluster
def test_status_into_a_pipe_that_closes(cluster: Cluster) -> None:
    process = subprocess.Popen(
        command_line("status", "--watch", "--json", "--url", cluster.urls[0]),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["cluster"]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert process.stderr.read() == b""


@pytest.mark.cluster
def test_models_load_unload(run: Run, cluster: Cluster) -> None:
    url = ["--url", cluster.urls[0]]
    done = run("models", *url)
    shape = re.compile(
        r"MODEL  FAMILY  LAYERS  SIZE +STORED ON  STATE\n"
        r"demo   llama   8       [\d.]+ MiB +one        ready\n\n"
        r"`gangline chat demo` talks with it\n"
    )
    assert shape.fullmatch(done.stdout), done.stdout
    assert run("unload", "demo", *url).stderr == "unloaded demo\n"
    assert run("chat", "demo", *url).stderr == (
        "error: no model is running\n\n"
        "hint: `gangline models` lists what `gangline load` can start\n"
    )
    assert run("status", *url).stdout.endswith("\n`gangline load demo` loads a model\n")
    loaded = run("load", "demo", "--lanes", "2", *url)
    assert loaded.returncode == 0
    assert loaded.stdout.startswith("NODE  ROLE  LAYERS  WHY\none   head  [0, 8)  8 of 8 layers, ")
    again = run("load", "demo", *url)
    assert again.returncode == 1
    assert again.stderr.startswith("error: ")
    missing = run("load", "none", *url)
    assert missing.returncode == 1
    assert "none" in missing.stderr


@pytest.mark.cluster
def test_chat_once(run: Run, cluster: Cluster) -> None:
    url = ["--url", cluster.urls[0], "--temperature", "0"]
    done = run("chat", "demo", SUM, *url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()
    assert run("chat", SUM, *url).stdout == done.stdout
    assert run("chat", "demo", "-", *url, stdin=SUM).stdout == done.stdout
    body = json.loads(run("chat", "--json", "demo", SUM, *url).stdout)
    assert body["choices"][0]["message"]["content"] == done.stdout.rstrip("\n")
    short = json.loads(run("chat", "--json", "demo", SUM, "--max-tokens", "2", *url).stdout)
    assert short["usage"]["completion_tokens"] == 2


@pytest.mark.cluster
def test_chat_with_history(run: Run, cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    lines = [
        "/system Be brief.", SUM, "/nonsense", "/model", f"/save {file}", "/clear", "Hello",
        "/help", "/quit", "never asked",
    ]  # fmt: skip
    orders = "\n".join(line for line in lines if line != "/nonsense")
    done = run(
        "chat", "--url", cluster.urls[0], "--temperature", "0", "--max-tokens", "12", stdin=orders
    )
    assert (done.returncode, done.stderr) == (0, "")
    saved = json.loads(file.read_text())
    assert [line["role"] for line in saved] == ["system", "user", "assistant"]
    assert saved[0]["content"] == "Be brief."
    answer = saved[2]["content"]
    assert done.stdout.startswith(f"{answer}\ndemo*\n")
    assert done.stdout.endswith("/quit   End; so does Ctrl-D\n")
    wrong = run("chat", "--url", cluster.urls[0], stdin="\n".join(lines[2:3]))
    assert wrong.returncode == 2
    assert wrong.stderr == "error: there is no /nonsense\n\nhint: /help lists what there is\n"


@pytest.mark.cluster
def test_chat_errors_are_the_nodes_words(run: Run, cluster: Cluster) -> None:
    done = run("chat", "none", SUM, "--url", cluster.urls[0])
    assert done.returncode == 1
    assert done.stderr == "error: model `none` is not running\n\nhint: these are: demo\n"
    done = run("chat", "demo", SUM, "--temperature", "3", "--url", cluster.urls[0])
    assert done.returncode == 2
    assert done.stderr == "error: `temperature` is wrong: expected `float` <= 2.0\n"


@pytest.mark.cluster
def test_a_port_in_use_by_a_node(run: Run, cluster: Cluster) -> None:
    port = cluster.urls[0].rpartition(":")[2]
    done = run("up", "--port", port)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: port {port} is in use by the Gangline node `one` (process {cluster.pids[0]})\n\n"
        f"hint: `gangline status --url http://127.0.0.1:{port}` shows it; "
        "another one needs a --port of its own\n"
    )


def test_a_port_in_use_by_something_else(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as server:
        server.listen(0)
        port = server.getsockname()[1]
        done = run("demo", "--port", str(port))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: port {port} ")
    assert "in use" in done.stderr
