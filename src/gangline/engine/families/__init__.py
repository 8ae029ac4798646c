"""Model families: each is a row of facts, mostly how checkpoint names map to ours."""

from __future__ import annotations

from gangline.engine.families.family import Family
from gangline.engine.families.llama import LLAMA

FAMILIES: dict[str, Family] = {family.name: family for family in (LLAMA,)}

__all__ = ["FAMILIES", "Family"]
