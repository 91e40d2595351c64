"""AE-BERT: which layer is pruned how much, under one overall budget, without fine-tuning a candidate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lavolta.systems.aebert.choose import choose_ratios as choose_ratios
    from lavolta.systems.aebert.ratios import Ratios as Ratios

__all__ = ["Ratios", "choose_ratios"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lavolta.systems.aebert import choose

    return getattr(choose, name)
