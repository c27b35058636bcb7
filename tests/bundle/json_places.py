"""Every place of a JSON value, and what may stand there that should not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

#: A value of each kind.
WRONG = (None, True, 7, -1.5, "text", "", [], [[]], {}, {"a": {"b": []}}, float("inf"), 10**400)


def below(content: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a JSON value; of a list the first entry, as the others are of its kind."""
    yield place
    items = content.items() if isinstance(content, dict) else ()
    if isinstance(content, list):
        items = enumerate(content[:1])
    for key, value in items:
        yield from below(value, (*place, key))


def at(content: Any, place: tuple[Any, ...]) -> Any:
    """What stands at a place."""
    for key in place:
        content = content[key]
    return content


def changed(content: Any) -> Iterator[tuple[Any, ...]]:
    """Put each of :data:`WRONG` at each place in turn, into ``content`` itself; yields the place."""
    for place in list(below(content))[1:]:
        holder, key = at(content, place[:-1]), place[-1]
        usual = holder[key]
        for value in WRONG:
            holder[key] = value
            yield place
        holder[key] = usual
