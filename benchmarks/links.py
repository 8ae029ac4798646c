"""Links with a given bandwidth and round trip between network namespaces; Linux, as root.

Each namespace has a TUN device whose packets come to one process, which hands them on when a cable
of that speed would have. TCP, its acknowledgements and everything else in the namespaces meet the
link as they meet a real one: segments are those of an Ethernet, and windows open as they do there.
The kernel hands over up to 45 of them at a time, as to a network card that cuts them itself, so
that Python can move 10 Gbit/s' worth of them; nothing is ever dropped.

    python -m benchmarks.links TAG COUNT GBPS RTT_S    # until its stdin ends
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import itertools
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

NETWORK = "10.79.0"
HOST = 254  # this machine's own address: its way to each namespace is not throttled
MTU = 1500
CONTROL = "reno"  # of TCP: like the usual cubic where nothing is lost, whatever this system has
CONTROL_FILE = "/proc/sys/net/ipv4/tcp_congestion_control"
SPIN_S = 200e-6  # a sleep ends up to this late
# linux/if_tun.h; each packet has a header before it that says how the kernel would have cut it
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 1, 0x1000, 0x4000
_TUN_F_CSUM, _TUN_F_TSO4 = 1, 2
_CUT_BYTES = 10  # linux/virtio_net.h, struct virtio_net_hdr
_READ_BYTES = _CUT_BYTES + 65536
_PR_SET_TIMERSLACK = 29


def address(index: int) -> str:
    """The address of namespace `index`."""
    return f"{NETWORK}.{index + 1}"


def namespace(tag: str, index: int) -> str:
    return f"{tag}{index}"


@contextmanager
def linked(tag: str, count: int, gbps: float, rtt_s: float) -> Iterator[list[str]]:
    """The names of `count` namespaces of which each reaches each over such a link."""
    names = [namespace(tag, index) for index in range(count)]
    try:
        for name in names:
            ip("netns", "add", name)
            ip("netns", "exec", name, "sh", "-c", f"echo {CONTROL} > {CONTROL_FILE}")
        command = [sys.executable, "-m", "benchmarks.links", tag, str(count)]
        with subprocess.Popen(
            [*command, str(gbps), str(rtt_s)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as carrier:
            assert carrier.stdin is not None and carrier.stdout is not None
            if carrier.stdout.readline() != b"ready\n":
                sys.exit("the links could not be made")
            yield names
            carrier.stdin.close()
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)  # it may never have been


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def open_device(name: str) -> int:
    """A descriptor of a new TUN device, not blocking."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    request = struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR)
    fcntl.ioctl(descriptor, _TUNSETIFF, request)
    fcntl.ioctl(descriptor, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4)
    return descriptor


def carry(devices: dict[int, int], gbps: float, rtt_s: float) -> None:
    """Move packets between `devices`, descriptors by the last byte of their address."""
    ends = {descriptor: last for last, descriptor in devices.items()}
    watched = [sys.stdin.fileno(), *ends]
    free_s: dict[tuple[int, int], float] = {}  # when the link has sent what it was given
    waiting: list[tuple[float, int, int, bytes]] = []
    number = itertools.count()
    byte_s = 8 / (gbps * 1e9)
    while True:
        now_s = time.perf_counter()
        while waiting and waiting[0][0] <= now_s:
            _, _, end, packet = heapq.heappop(waiting)
            os.write(devices[end], packet)
            now_s = time.perf_counter()
        rest_s = waiting[0][0] - now_s if waiting else 1.0
        ready, _, _ = select.select(watched, [], [], max(0.0, rest_s - SPIN_S))
        for descriptor in ready:
            if descriptor not in ends:
                return
            start = ends[descriptor]
            packet = os.read(descriptor, _READ_BYTES)
            end = packet[_CUT_BYTES + 19]  # of the destination's IPv4 address
            if packet[_CUT_BYTES] >> 4 != 4 or end not in devices:
                continue
            now_s = time.perf_counter()
            if HOST in (start, end):
                due_s = now_s
            else:
                wire_s = (len(packet) - _CUT_BYTES) * byte_s
                sent_s = max(now_s, free_s.get((start, end), 0.0)) + wire_s
                free_s[start, end] = sent_s
                due_s = sent_s + rtt_s / 2
            heapq.heappush(waiting, (due_s, next(number), end, packet))


def main() -> None:
    tag, count, gbps, rtt_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    devices: dict[int, int] = {}
    for index in range(count):
        device, name = f"{tag}t{index}", namespace(tag, index)
        devices[index + 1] = open_device(device)
        ip("link", "set", device, "netns", name)
        set_up(["-n", name], device, address(index))
        ip("-n", name, "link", "set", "lo", "up")
    devices[HOST] = open_device(f"{tag}h")
    set_up([], f"{tag}h", f"{NETWORK}.{HOST}")
    print("ready", flush=True)
    carry(devices, gbps, rtt_s)


def set_up(where: list[str], device: str, host: str) -> None:
    ip(*where, "link", "set", device, "mtu", str(MTU))
    ip(*where, "addr", "add", f"{host}/24", "dev", device)
    ip(*where, "link", "set", device, "up")


if __name__ == "__main__":
    main()
