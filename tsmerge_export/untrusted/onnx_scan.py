"""What an ONNX file would become when it is opened, found without opening it: neither onnx nor a runtime is imported.

Runtimes write functions in place of their calls. Ten functions that call each other ten times are a file of a few
kilobytes and 10^10 operators, which no runtime survives. So the calls are counted first, on the bytes of the file
(protobuf's wire format, of which weights are skipped).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.files.paths import beside

MAX_NODES = 50_000  # with all functions written out
MAX_CALL_DEPTH = 100  # as in ONNX Runtime and in onnx's inliner
MAX_GRAPH_DEPTH = 16  # branches and loops inside each other
STANDARD = ("", "ai.onnx")
_Buffer = bytes | memoryview


@dataclass
class Node:
    """An operator: what it calls, and the graphs inside it."""

    key: tuple[str, str, str]
    graphs: list[Block] = field(default_factory=list)


@dataclass
class Block:
    """A graph, or the body of a function."""

    nodes: list[Node] = field(default_factory=list)
    external: list[str] = field(default_factory=list)


@dataclass
class Scan:
    """A model: ``functions`` in the file's order, by domain, name and overload; ``domains`` that the graph imports."""

    graph: Block
    functions: list[tuple[tuple[str, str, str], Block, set[str]]]
    domains: set[str]

    def kinds(self) -> set[tuple[str, str]]:
        """Domain and type of every operator, those inside functions and branches too."""
        blocks = [self.graph, *(body for _, body, _ in self.functions)]
        return {node.key[:2] for block in blocks for node in _nodes(block)}


def _nodes(block: Block) -> Iterator[Node]:
    """Every node, those of inner graphs too."""
    stack = [block]
    while stack:
        for node in stack.pop().nodes:
            yield node
            stack.extend(node.graphs)


def scan(path: Path) -> Scan:
    """Read the structure of a file.

    Raises:
        UsageError: missing, or no protobuf message. UnsupportedError: graphs nested too deeply.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise UsageError(f"{path}: is no file")
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # closed with the last view of it
        return scan_bytes(memoryview(mapped), str(path))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except (IndexError, ValueError) as error:  # mmap refuses an empty file
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path}: truncated or not an ONNX file") from None


def check_file(path: Path) -> Scan:
    """Read the structure of a graph that a runtime will open, and refuse what it must not try to open.

    Raises:
        UsageError: no ONNX file, or with weights outside its folder. UnsupportedError: as :func:`check_calls`.
    """
    found = scan(path)
    check_calls(found, str(path))
    check_external(found, path)
    return found


def scan_bytes(data: _Buffer, name: str) -> Scan:
    """:func:`scan` of a serialised model. Raises IndexError or ValueError where it is no message."""
    found = Scan(Block(), [], set())
    for number, value in _fields(data):
        if number == 7:
            merge = _block(value, name, 0, graph=True)
            found.graph.nodes += merge.nodes
            found.graph.external += merge.external
        elif number == 8:
            found.domains.add(_domain(value))
        elif number == 25:
            found.functions.append(_function(value, name))
    return found


def check_calls(found: Scan, name: str) -> None:
    """Refuse a file whose functions cannot be written out.

    Raises:
        UnsupportedError: a function that is there twice, stands for a standard operator, calls itself, is called
            through too many others, or is of a domain that is not imported; more operators than a runtime can hold.
    """
    bodies: dict[tuple[str, str, str], Block] = {}
    for key, body, _ in found.functions:
        if key in bodies:
            raise UnsupportedError(f"{name}: function {_show(key)} is in the file twice")
        if key[0] == "":
            raise UnsupportedError(
                f"{name}: function {key[1]} stands for an operator of the standard; rename it"
            )
        bodies[key] = body
    scopes = [(found.graph, found.domains, "the model")]
    scopes += [(body, domains, f"function {_show(key)}") for key, body, domains in found.functions]
    for block, domains, who in scopes:
        for node in _nodes(block):
            if node.key in bodies and node.key[0] not in domains:
                raise UnsupportedError(
                    f"{name}: {who} calls {_show(node.key)} of a domain that it does not import; add it to opset_import"
                )
    total = _expanded(found.graph, bodies, name)
    if total > MAX_NODES:
        raise UnsupportedError(
            f"{name}: has more than {MAX_NODES} operators once its functions are written out, which is not supported"
        )


def _expanded(graph: Block, bodies: dict[tuple[str, str, str], Block], name: str) -> int:
    """Operators with every call written out; every function is counted once, so that this is no slower than reading."""
    sizes: dict[tuple[str, str, str], tuple[int, int]] = {}  # operators, depth of calls
    calls = {key: [node.key for node in _nodes(body)] for key, body in bodies.items()}
    top = [node.key for node in _nodes(graph)]

    def measured(keys: Sequence[tuple[str, str, str]]) -> tuple[int, int]:
        known = [sizes[key] for key in keys if key in sizes]
        return len(keys) + sum(size for size, _ in known), 1 + max((depth for _, depth in known), default=0)

    for start in dict.fromkeys(key for key in top if key in bodies):
        stack, open_ = [start], set[tuple[str, str, str]]()
        while stack:
            key = stack[-1]
            if key in sizes:
                stack.pop()
                continue
            open_.add(key)
            ahead = [inner for inner in dict.fromkeys(calls[key]) if inner in bodies and inner not in sizes]
            if any(inner in open_ for inner in ahead):
                raise UnsupportedError(f"{name}: function {_show(key)} calls itself")
            if ahead:
                stack.append(ahead[0])
                continue
            size, depth = measured(calls[key])
            if depth > MAX_CALL_DEPTH:
                raise UnsupportedError(
                    f"{name}: its functions call each other over more than {MAX_CALL_DEPTH} levels"
                )
            sizes[key] = (min(size, MAX_NODES + 1), depth)
            open_.discard(key)
            stack.pop()
    return measured(top)[0]


def check_external(found: Scan, path: Path) -> None:
    """Refuse weights outside the graph's folder. Raises UsageError."""
    blocks = [found.graph, *(body for _, body, _ in found.functions)]
    for location in {place for block in blocks for place in _places(block)}:
        if beside(path, location) is None:
            raise UsageError(f"{path}: external data {location!r} leave the folder of the graph")


def _places(block: Block) -> Iterator[str]:
    yield from block.external
    for node in _nodes(block):
        for graph in node.graphs:
            yield from graph.external


def _show(key: tuple[str, str, str]) -> str:
    return "::".join(part for part in key if part)[:80]


def _fields(data: _Buffer) -> Iterator[tuple[int, _Buffer]]:
    """Field numbers and contents of those that have a length; others are skipped."""
    position, end = 0, len(data)
    while position < end:
        tag, position = _varint(data, position)
        kind = tag & 7
        if tag < 8:  # there is no field of number 0
            raise ValueError("no message")
        if kind == 2:
            size, position = _varint(data, position)
            if position + size > end:
                raise ValueError("truncated")
            yield tag >> 3, data[position : position + size]
            position += size
        elif kind == 0:
            _, position = _varint(data, position)
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            raise ValueError("no message")
    if position > end:
        raise ValueError("truncated")


def _varint(data: _Buffer, position: int) -> tuple[int, int]:
    value = data[position]
    position += 1
    if value < 0x80:
        return value, position
    value &= 0x7F
    for shift in range(7, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("no message")


def _text(data: _Buffer) -> str:
    return bytes(data).decode("utf-8", "backslashreplace")


def _domain(data: _Buffer) -> str:
    found = next((_text(value) for number, value in _fields(data) if number == 1), "")
    return "" if found in STANDARD else found


def _function(data: _Buffer, name: str) -> tuple[tuple[str, str, str], Block, set[str]]:
    texts = {number: _text(value) for number, value in _fields(data) if number in (1, 10, 13)}
    domains = {_domain(value) for number, value in _fields(data) if number == 9}
    domain = texts.get(10, "")
    key = ("" if domain in STANDARD else domain, texts.get(1, ""), texts.get(13, ""))
    return key, _block(data, name, 0, graph=False), domains


def _block(data: _Buffer, name: str, depth: int, *, graph: bool) -> Block:
    if depth > MAX_GRAPH_DEPTH:
        raise UnsupportedError(f"{name}: more than {MAX_GRAPH_DEPTH} branches and loops inside each other")
    out = Block()
    for number, value in _fields(data):
        if number == (1 if graph else 7):
            out.nodes.append(_node(value, name, depth, out))
        elif graph and number == 5:
            out.external += _external(value)
    return out


def _node(data: _Buffer, name: str, depth: int, block: Block) -> Node:
    texts = {4: "", 7: "", 8: ""}
    graphs = []
    for number, value in _fields(data):
        if number in texts:
            texts[number] = _text(value)
        elif number == 5:
            for inner, content in _fields(value):
                if inner in (6, 11):
                    graphs.append(_block(content, name, depth + 1, graph=True))
                elif inner in (5, 10):
                    block.external += _external(content)
    return Node(("" if texts[7] in STANDARD else texts[7], texts[4], texts[8]), graphs)


def _external(tensor: _Buffer) -> list[str]:
    """Where a tensor's data are, if not in the file."""
    found = []
    for number, value in _fields(tensor):
        if number == 13:
            entry = {inner: _text(content) for inner, content in _fields(value)}
            if entry.get(1) == "location":
                found.append(entry.get(2, ""))
    return found
