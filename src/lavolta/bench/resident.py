"""A process with one resident model and little else: how much memory it holds, and how much a switch writes.

Run by its path with ``python -I``, so that neither NumPy nor the package is loaded: what is measured is the engine
through its C interface, and a bare interpreter. Arguments: library, bundle, tokens, vocabulary, pairs of levels to
switch between. Prints one JSON object.

What a switch writes is found with the help of the kernel: a forked child shares every page with its parent until one
of them writes it. Children that switch are compared with children that make the same call with the level that is set
already, page by page: what every one of the former has written, and none of the latter, is the switch's doing, also
where it wrote what was there before. The interpreter's own pages are written in both.
"""

from __future__ import annotations

import array
import ctypes
import functools
import json
import os
import sys
from collections.abc import Callable

PLANTED_BYTES = 1 << 20
"""What a third kind of child writes, the bytes that were there before, to show that the method sees it."""
CONFIRMATIONS = 2
FEWEST_TURNS, MOST_TURNS = 4, 16
"""A page that the interpreter writes now and then looks like the action's own in at most one turn of four: hardly in
all of the fewest, which is then looked into, and not in all of the most."""
Number = ctypes.c_uint32 | ctypes.c_size_t


def main() -> None:
    """Open, run every level, measure, print."""
    library, bundle, tokens, vocab, pairs = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
    engine = ctypes.CDLL(library)
    engine.lavolta_last_error.restype = ctypes.c_char_p
    buffer = ctypes.create_string_buffer(b"x" * PLANTED_BYTES, PLANTED_BYTES)
    before = rollup(os.getpid())
    model = ctypes.c_void_p()
    check(engine, engine.lavolta_open(bundle.encode(), None, ctypes.byref(model)))
    opened = rollup(os.getpid())
    levels = int(engine.lavolta_level_count(model))
    for level in range(levels):
        check(engine, engine.lavolta_switch(model, level))
        run(engine, model, tokens, vocab)
    after = rollup(os.getpid())

    page = os.sysconf("SC_PAGE_SIZE")
    moved = []
    set_level = ctypes.c_uint32()
    switch = functools.partial(engine.lavolta_switch, model, set_level)
    for pair in range(pairs if levels > 1 else 0):
        level, other = pair % levels, (pair + 1 + pair // levels % (levels - 1)) % levels
        engine.lavolta_switch(model, level)
        moved.append(page * len(only_there(switch, set_level, other, level)))
    count = ctypes.c_size_t()
    plant = functools.partial(ctypes.CDLL(None).memset, buffer, ctypes.c_int(0x78), count)
    planted = page * len(only_there(plant, count, PLANTED_BYTES, 0))
    json.dump(
        {
            "levels": levels,
            "before_bytes": before,
            "opened_bytes": opened,
            "after_bytes": after,
            "mapped_writable": writable(bundle),
            "moved_bytes": moved,
            "planted_bytes": PLANTED_BYTES,
            "planted_seen_bytes": planted,
            "page_bytes": page,
        },
        sys.stdout,
    )


def check(engine: ctypes.CDLL, status: int) -> None:
    """End with the engine's sentence where a call failed."""
    if status != 0:
        sys.exit(engine.lavolta_last_error().decode())


def run(engine: ctypes.CDLL, model: ctypes.c_void_p, tokens: int, vocab: int) -> None:
    """One sequence of ids 0, 1, 2 ... at the present level."""
    ids = (ctypes.c_int32 * tokens)(*(token % vocab for token in range(tokens)))
    length = ctypes.c_uint32(tokens)

    class Batch(ctypes.Structure):
        _fields_ = (
            ("token_ids", ctypes.c_void_p),
            ("type_ids", ctypes.c_void_p),
            ("lengths", ctypes.c_void_p),
            ("sequences", ctypes.c_size_t),
            ("per_token", ctypes.c_int),
        )

    batch = Batch(ctypes.addressof(ids), None, ctypes.addressof(length), 1, 0)
    rows, columns = ctypes.c_size_t(), ctypes.c_size_t()
    shape = ctypes.byref(rows), ctypes.byref(columns)
    check(engine, engine.lavolta_output_shape(model, ctypes.byref(batch), *shape))
    count = rows.value * columns.value
    output = (ctypes.c_float * count)()
    check(engine, engine.lavolta_run(model, ctypes.byref(batch), output, ctypes.c_size_t(count)))


def only_there(call: Callable[[], object], argument: Number, there: int, elsewhere: int) -> set[int]:
    """Pages that a call writes every time with one value of its argument, and never with another.

    Args:
        call: makes the call, with ``argument`` as one of its arguments.
        argument: holds the value. It is one object for both values, since a call also writes the pages on which the
            interpreter counts the references to its arguments.
    """
    found = in_turns(call, argument, there, elsewhere)
    for _ in range(CONFIRMATIONS):
        # Where the interpreter's objects lie can give one look a page of its own, through all its turns.
        found = found and found & in_turns(call, argument, there, elsewhere)
    return found


def in_turns(call: Callable[[], object], argument: Number, there: int, elsewhere: int) -> set[int]:
    """One look for `only_there`."""
    every: set[int] | None = None
    never: set[int] = set()
    for turn in range(MOST_TURNS):
        # Where the interpreter puts its next object depends on what it did before: either call comes first in turn.
        seen = {}
        for value in (elsewhere, there) if turn % 2 else (there, elsewhere):
            argument.value = value
            seen[value] = written_by(call)
        every = seen[there] if every is None else every & seen[there]
        never |= seen[elsewhere]
        if turn + 1 >= FEWEST_TURNS and every <= never:
            break
    return (every or set()) - never


def written_by(call: Callable[[], object]) -> set[int]:
    """Pages of a forked child that it does not share with its parent after one call, by number."""
    done, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        call()
        os.write(done[1], b"d")
        os.read(go[0], 1)
        os._exit(0)
    os.read(done[0], 1)
    pages = own_pages(child)
    os.write(go[1], b"g")
    os.waitpid(child, 0)
    for end in (*done, *go):
        os.close(end)
    return pages


def own_pages(process: int) -> set[int]:
    """Numbers of the present pages of a process's writable memory that no other process maps."""
    page = os.sysconf("SC_PAGE_SIZE")
    found = set()
    with open(f"/proc/{process}/maps", encoding="utf-8", errors="replace") as file:
        rows = [line.split(maxsplit=2)[:2] for line in file]
    with open(f"/proc/{process}/pagemap", "rb", buffering=0) as file:
        for span, rights in rows:
            if "w" not in rights:
                continue
            first, last = (int(end, 16) // page for end in span.split("-"))
            entries = array.array("Q", os.pread(file.fileno(), 8 * (last - first), 8 * first))
            found |= {first + index for index, entry in enumerate(entries) if entry >> 63 and entry >> 56 & 1}
    return found


def fields(process: int) -> dict[str, int]:
    """Bytes by kind, of all the memory of a process."""
    with open(f"/proc/{process}/smaps_rollup", encoding="ascii") as file:
        rows = [line.split() for line in file.readlines()[1:]]
    return {row[0].rstrip(":"): 1024 * int(row[1]) for row in rows}


def rollup(process: int) -> int:
    """Resident bytes of a process."""
    return fields(process)["Rss"]


def writable(path: str) -> bool:
    """Whether this process maps a file so that it could write it, or a copy of it."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        rows = [line.split(maxsplit=5) for line in file]
    real = os.path.realpath(path)
    return any("w" in row[1] for row in rows if len(row) == 6 and row[5].rstrip("\n") == real)


if __name__ == "__main__":
    main()
