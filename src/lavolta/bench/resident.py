"""A process with one resident model and little else: how much memory it holds, and how much a switch writes.

Run by its path with ``python -I``, so that neither NumPy nor the package is loaded: what is measured is the engine
through its C interface, and a bare interpreter. Arguments: library, bundle, tokens, vocabulary, pairs of levels to
switch between. Prints one JSON object.

What a switch writes is found with the help of the kernel: a forked child shares every page with its parent until one
of them writes it. Children that switch are compared with children that make the same call with the level that is set
already, page by page: what every one of the former has written, and none of the latter, is the switch's doing, also
where it wrote what was there before. The interpreter's own pages are written in both. Where it puts an object depends
on what it holds already, and a page that the parent writes is no longer shared either: so a second child takes down
what the first has written, and nothing of it comes to the parent before a look is over.
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
TURNS = 4
"""Of both kinds of children in a look, in an order left to chance: a page that the interpreter writes now and then
looks like the call's own in one look of 4 ** TURNS at most."""
LOOKS = 4
"""That have to agree on a page."""
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
    found = look(call, argument, there, elsewhere)
    for _ in range(LOOKS - 1):
        found = found and found & look(call, argument, there, elsewhere)
    return found


def look(call: Callable[[], object], argument: Number, there: int, elsewhere: int) -> set[int]:
    """One look for `only_there`."""
    notes = os.memfd_create("written")
    for chance in os.urandom(TURNS):
        for value in (there, elsewhere) if chance & 1 else (elsewhere, there):
            argument.value = value
            note_written(call, value, notes)
    taken = array.array("Q", os.pread(notes, os.fstat(notes).st_size, 0))
    os.close(notes)
    every: set[int] | None = None
    never: set[int] = set()
    while taken:
        value, count = taken[:2]
        pages, taken = set(taken[2 : 2 + count]), taken[2 + count :]
        if value == elsewhere:
            never |= pages
        else:
            every = pages if every is None else every & pages
    return (every or set()) - never


def note_written(call: Callable[[], object], value: int, notes: int) -> None:
    """Append to a file: a value, how many pages a forked child does not share with its parent after one call, which."""
    done, go = os.pipe(), os.pipe()

    def act() -> None:
        call()
        os.write(done[1], b"d")
        os.read(go[0], 1)

    def take_down() -> None:
        pages = own_pages(acting)
        os.write(notes, array.array("Q", [value, len(pages), *pages]))

    acting = forked(act)
    os.read(done[0], 1)
    if os.waitpid(forked(take_down), 0)[1] != 0:
        sys.exit("the written pages of a process were not read.")
    os.write(go[1], b"g")
    os.waitpid(acting, 0)
    for end in (*done, *go):
        os.close(end)


def forked(action: Callable[[], None]) -> int:
    """A child that does one thing and ends."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return child


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
