"""What a client may send, checked before anything waits for it: every mistake is one sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lavolta.errors import UserInputError
from lavolta.runtime.calls import Text
from lavolta.runtime.engine import Model
from lavolta.runtime.governor_engine import Tokenized
from lavolta.serve.refusals import RefusedError

MAX_BYTES = 1 << 16
"""Of a body: a text of 512 tokens has about 3 KB."""
LONGEST_MS = 3_600_000.0
DEADLINE_HEADER = "x-deadline-ms"
_FIELDS = ("text", "token_ids", "type_ids", "deadline_ms", "truncate")


@dataclass(frozen=True)
class Call:
    """One request for an answer of the model.

    Args:
        deadline_ms: its own; none: that of the server.
        truncated: whether the text was cut to the model's length, as it was asked for.
    """

    request: Tokenized
    deadline_ms: float | None
    truncated: bool


def read_object(body: bytes, content_type: str | None) -> dict[str, Any]:
    """The JSON object of a body.

    Raises:
        RefusedError: another content type, something that is not JSON, or no object.
    """
    # A page of another origin cannot send this type without asking first, and it is never allowed to.
    if (content_type or "").partition(";")[0].strip().lower() != "application/json":
        given = f"'{content_type}'" if content_type else "missing"
        raise RefusedError(415, "not-json", f"the content type is {given}; send application/json.")
    try:
        found = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise RefusedError(
            400, "malformed", f"the body is not UTF-8 at byte {error.start}; send JSON in UTF-8."
        ) from error
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, "malformed", f"the body is not JSON: {error}.") from error
    if not isinstance(found, dict):
        raise RefusedError(400, "malformed", 'the body is no JSON object; send one, such as {"text": "a cat sleeps"}.')
    return found


def read_call(fields: Mapping[str, Any], deadline_header: str | None, model: Model) -> Call:
    """The call of a body's fields; tokenizes a text.

    Raises:
        UserInputError: an unknown, missing, doubled or wrong field.
    """
    only(fields, _FIELDS)
    deadline_ms = _deadline_ms(fields.get("deadline_ms"), deadline_header)
    truncate = flag(fields, "truncate", False)
    if ("text" in fields) == ("token_ids" in fields):
        raise UserInputError('give either "text" or "token_ids", and not both.')
    if "text" in fields:
        if "type_ids" in fields:
            raise UserInputError('"type_ids" belong to "token_ids"; leave them away beside a text.')
        request, truncated = _of_text(_text(fields["text"]), truncate, model)
        return Call(request, deadline_ms, truncated)
    return Call(_of_ids(fields, model), deadline_ms, False)


def only(fields: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Refuse unknown fields.

    Raises:
        UserInputError: there is one.
    """
    for name in fields:
        if name not in known:
            raise UserInputError(f"the field '{name[:40]}' is unknown; known are {', '.join(known)}.")


def flag(fields: Mapping[str, Any], name: str, absent: bool | None = None) -> bool:
    """A field that is true or false.

    Raises:
        UserInputError: it is something else, or missing where ``absent`` is none.
    """
    value = fields.get(name, absent)
    if not isinstance(value, bool):
        raise UserInputError(f'"{name}" is {_short(value)}; give true or false.')
    return value


def _refuse_constant(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")


def _deadline_ms(field: Any, header: str | None) -> float | None:
    if field is None and header is None:
        return None
    if field is not None and header is not None:
        raise UserInputError(f'give the deadline once: in the header {DEADLINE_HEADER} or as "deadline_ms".')
    value: Any = field
    if header is not None:
        try:
            value = float(header)
        except ValueError:
            value = header
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= LONGEST_MS:
        raise UserInputError(f"the deadline is {_short(value)}; give milliseconds above 0, at most {LONGEST_MS:g}.")
    return float(value)


def _text(value: Any) -> Text:
    if isinstance(value, str):
        found: Text = value
    elif isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):
        found = (value[0], value[1])
    else:
        raise UserInputError(f'"text" is {_short(value)}; give a string, or a list of two for a pair.')
    if not "".join(found).strip():
        raise UserInputError('"text" has only white space; give at least one word.')
    try:
        "".join(found).encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserInputError(f'"text" has half a character at place {error.start}; send whole ones.') from error
    return found


def _of_text(text: Text, truncate: bool, model: Model) -> tuple[Tokenized, bool]:
    (token_ids,), (type_ids,) = model.tokenize([text])
    codec = model.codec()
    limit = codec.limit
    # Whatever is shorter than the limit was not cut.
    count = len(token_ids) if len(token_ids) < limit else codec.count(text)
    if count > limit and not truncate:
        raise UserInputError(
            f"the text has {count} tokens and the model takes {limit}; "
            'shorten it, or send "truncate": true to have it cut.'
        )
    return Tokenized(token_ids, type_ids if model.spec.types > 1 else None), count > limit


def _of_ids(fields: Mapping[str, Any], model: Model) -> Tokenized:
    token_ids = _ids(fields["token_ids"], "token_ids", model.spec.vocab)
    if not 1 <= len(token_ids) <= model.spec.max_tokens:
        raise UserInputError(f'"token_ids" has {len(token_ids)} tokens; give 1 to {model.spec.max_tokens}.')
    if "type_ids" not in fields:
        return Tokenized(token_ids)
    if model.spec.types == 0:
        raise UserInputError('the model has no token types; leave "type_ids" away.')
    type_ids = _ids(fields["type_ids"], "type_ids", model.spec.types)
    if len(type_ids) != len(token_ids):
        raise UserInputError(f'"type_ids" has {len(type_ids)} numbers for {len(token_ids)} tokens; give one a token.')
    return Tokenized(token_ids, type_ids)


def _ids(value: Any, name: str, below: int) -> list[int]:
    if not isinstance(value, list):
        raise UserInputError(f'"{name}" is {_short(value)}; give a list of whole numbers.')
    for place, each in enumerate(value):
        if type(each) is not int or not 0 <= each < below:
            raise UserInputError(f'"{name}" has {_short(each)} at place {place}; give whole numbers 0 to {below - 1}.')
    return value


def _short(value: Any) -> str:
    """A value as JSON, cut where it is long."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
