"""La Volta: a Transformer with a dial. `open` a bundle, `encode`, `switch` the level, `encode` again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lavolta.errors import BundleError as BundleError
from lavolta.errors import CancelledError as CancelledError
from lavolta.errors import EngineError as EngineError
from lavolta.errors import InfeasibleError as InfeasibleError
from lavolta.errors import LavoltaError as LavoltaError
from lavolta.errors import UserInputError as UserInputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from lavolta.runtime.engine import Model

__version__ = "0.1.0"


def open(path: str | PathLike[str], threads: int = 1, cores: Sequence[int] | None = None) -> Model:
    """Open a bundle with the native engine; needs neither torch nor transformers.

    Raises:
        BundleError: the file is missing, broken, truncated or hostile.
        UserInputError: `threads` is out of range, or `cores` names one that this process cannot use.
    """
    from lavolta.runtime.engine import open_bundle

    return open_bundle(path, threads=threads, cores=cores)


def compress(source: str, **options: Any) -> dict[str, Any]:
    """Compress a trained Transformer into one bundle with many levels; see `lavolta.systems.rt3.recipe.compress`."""
    from lavolta.systems.rt3.recipe import compress as compress_model

    result: dict[str, Any] = compress_model(source, **options)
    return result
