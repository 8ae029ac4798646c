"""What starting costs, and what an idle node costs; a POSIX system, the last part Linux.

    python -m benchmarks.start [--idle-seconds 60] [--json]

Clones the committed state of this repository into a temporary folder, runs `make run` there until
the first answered token (everything is installed and built on the way), and again when all is
built. Then one `gangline up` with nothing loaded: resident memory, and the share of a core that it
takes. Limits: 180 s, 5 s, 100 MB, 1 %.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
ANSWERED = "to the first token"  # what the demo says after its first answer
READY = "answers at"  # what a node says when it serves
SETTLE_S = 10.0  # scouting and the first measurements are over by then


def main() -> int:
    options = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="gangline-start-") as folder:
        clone, home = Path(folder, "clone"), Path(folder, "home")
        subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(clone)], check=True)
        environment = os.environ | {"GANGLINE_HOME": str(home)}
        first_s = seconds_to_answer(clone, environment)
        again_s = seconds_to_answer(clone, environment)
        gangline = clone / ".venv" / "bin" / "gangline"
        idle_bytes, idle_share = idle(gangline, environment, options.idle_seconds)
    report = {
        "version": 1,
        "first_answer_s": round(first_s, 1),
        "again_s": round(again_s, 2),
        "idle_resident_mb": round(idle_bytes / 1e6, 1),
        "idle_core_percent": round(100 * idle_share, 2),
    }
    if options.json:
        print(json.dumps(report))
    else:
        rows = [
            ("clean clone to the first answer, build included", f"{first_s:.1f}", "s of 180"),
            ("the same when it is built", f"{again_s:.2f}", "s of 5"),
            ("a node with nothing loaded, resident", f"{idle_bytes / 1e6:.1f}", "MB of 100"),
            ("a node with nothing loaded, share of a core", f"{100 * idle_share:.2f}", "% of 1"),
        ]
        for what, value, unit in rows:
            print(f"{what:<50}{value:>8} {unit}")
    good = first_s <= 180 and again_s <= 5 and idle_bytes <= 100e6 and idle_share <= 0.01
    return 0 if good else 1


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure a start, and an idle node")
    parser.add_argument("--idle-seconds", type=float, default=60.0, help="default: 60")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


@contextmanager
def running(
    command: list[str], environment: dict[str, str], folder: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A command in a process group of its own, that is ended afterwards."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)


def wait_for(mark: str, process: subprocess.Popen[str]) -> None:
    """Read what a command prints until a line holds `mark`."""
    assert process.stdout is not None
    shown: list[str] = []
    for line in process.stdout:
        shown.append(line)
        if mark in line:
            return
    sys.exit(f"it ended without {mark!r}:\n{''.join(shown[-20:])}")


def seconds_to_answer(clone: Path, environment: dict[str, str]) -> float:
    """From typing `make run` to the line that tells of the first answer."""
    started = time.monotonic()
    with running(["make", "run"], environment, clone) as process:
        wait_for(ANSWERED, process)
        return time.monotonic() - started


def idle(gangline: Path, environment: dict[str, str], seconds: float) -> tuple[int, float]:
    """Resident bytes, and the share of one core over `seconds`."""
    with running([str(gangline), "up", "--port", "0"], environment) as process:
        wait_for(READY, process)
        time.sleep(SETTLE_S)
        before = processor_s(process.pid)
        time.sleep(seconds)
        share = (processor_s(process.pid) - before) / seconds
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), share


def processor_s(pid: int) -> float:
    """Seconds of processor time of a process so far, in user and system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
