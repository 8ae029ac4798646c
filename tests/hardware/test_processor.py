"""Kinds of cores and vector units, read from samples of systems' own words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gangline.hardware.processor import (
    cpus_of_list,
    efficiency_from_sysctl,
    features_from_cpuinfo,
    features_from_sysctl,
    slow_cpus,
)

XEON = (
    "processor\t: 0\nflags\t\t: fpu sse2 avx avx2 avx512f avx512_vnni avx_vnni amx_int8 amx_tile\n"
    "\nprocessor\t: 1\nflags\t\t: fpu\n"
)
PI_5 = "processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm aes crc32 asimddp\n"
M4_PRO = """hw.ncpu: 14
hw.nperflevels: 2
hw.perflevel0.logicalcpu: 10
hw.perflevel1.logicalcpu: 4
hw.perflevel1.name: Efficiency
"""
M4_OPTIONAL = """hw.optional.AdvSIMD: 1
hw.optional.floatingpoint: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_BF16: 1
hw.optional.arm.FEAT_SME: 1
hw.optional.arm.FEAT_MTE: 0
"""


def test_features() -> None:
    assert features_from_cpuinfo(XEON) == (
        "avx2", "avx-vnni", "avx512", "avx512-vnni", "amx-int8",
    )  # fmt: skip
    assert features_from_cpuinfo(PI_5) == ("neon", "dotprod")
    assert features_from_cpuinfo("") == ()
    assert features_from_sysctl(M4_OPTIONAL) == ("neon", "dotprod", "i8mm", "bf16", "sme")


def test_cores_of_hybrid_processors() -> None:
    assert cpus_of_list("16-19,24\n") == {16, 17, 18, 19, 24}
    assert cpus_of_list("") == set()
    rk3588 = dict.fromkeys(range(4), 414) | dict.fromkeys(range(4, 8), 1024)
    assert slow_cpus(rk3588) == {0, 1, 2, 3}
    assert slow_cpus(dict.fromkeys(range(4), 1024)) == set()
    assert slow_cpus({0: 905, 1: 1024}) == set(), "two kinds of fast ones"
    assert slow_cpus({}) == set()


def test_cores_of_apple() -> None:
    assert efficiency_from_sysctl(M4_PRO, 14) == 4
    assert efficiency_from_sysctl(M4_PRO, 2) == 2, "never more than this process may use"
    assert efficiency_from_sysctl("hw.ncpu: 8\n", 8) == 0


@given(st.text())
def test_nothing_they_say_raises(text: str) -> None:
    features_from_cpuinfo(text)
    features_from_sysctl(text)
    efficiency_from_sysctl(text, 4)
    cpus_of_list(text)
