"""Which time steps were merged: a strip for each merging layer, from the operator's own ``target`` and ``size``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tsmerge_export.bundle.example import MergedLayer, Series, Tokens
from tsmerge_export.bundle.report import Report
from tsmerge_export.report.html.chart import label, span_of, thinned
from tsmerge_export.report.html.markup import Html, bar, join, legend, section, table, tag
from tsmerge_export.report.text import GENERATED_INPUT
from tsmerge_export.settings import registry

_WIDEST, _PIXELS = 2400, 4
_ROW, _BLOCK, _SIGNAL = 26, 20, 70
_TITLED = 6000  # blocks with words of their own, in all


@dataclass(frozen=True)
class Block:
    """Neighbouring original tokens that stand in one output token, or a run of unmerged ones.

    Attributes:
        first, last: original tokens, both included. output: of the first of them.
        members: how many original tokens the output holds, elsewhere too; 1 for a run of unmerged tokens.
    """

    first: int
    last: int
    output: int
    members: int


def places(targets: Sequence[Sequence[int]]) -> list[list[int]]:
    """For each layer the output token that every original token is read from, ``targets`` being layer by layer."""
    found: list[list[int]] = []
    now = list(range(len(targets[0]))) if targets else []
    for target in targets:
        now = [target[place] for place in now]
        found.append(now)
    return found


def followed(tokens: Tokens) -> Tokens:
    """``tokens`` with those layers alone whose inputs are the outputs of the layer before: other operators, such as the
    distilling convolutions of Informer, may change the number of tokens in between."""
    layers: list[MergedLayer] = []
    for one in tokens.layers:
        if layers and len(one.target) != len(layers[-1].kept):
            break
        layers.append(one)
    return replace(tokens, layers=tuple(layers))


def blocks(place: Sequence[int]) -> list[Block]:
    """Cut the original tokens into blocks; unmerged neighbours make one."""
    count: dict[int, int] = {}
    for output in place:
        count[output] = count.get(output, 0) + 1
    out: list[Block] = []
    for token, output in enumerate(place):
        members = count[output]
        if out and out[-1].members == members == 1:
            out[-1] = Block(out[-1].first, token, out[-1].output, 1)
        elif out and members > 1 and out[-1].output == output:
            out[-1] = Block(out[-1].first, token, output, members)
        else:
            out.append(Block(token, token, output, members))
    return out


def strip_section(report: Report) -> Html:
    """Tokens kept per layer, and where they went; nothing where nothing merges."""
    example = report.example
    tokens = None if example is None else example.tokens
    counts = _counts(report, tokens)
    if not counts:
        return Html("")
    parts = [counts]
    if example is not None and tokens is not None:
        known = followed(tokens)
        parts += [_strip(known, example.series[0], _caption(report.merge)), _moves(tokens)]
        if len(known.layers) < len(tokens.layers):
            words = (
                f"Behind layer {known.layers[-1].layer} other operators than merging change the number of "
                "tokens, so later layers cannot be drawn over the time steps."
            )
            parts.append(tag("p", words, class_="sub"))
    else:
        parts.append(
            tag(
                "p",
                "Which tokens were merged on the data is not recorded: the cost was not measured.",
                class_="sub",
            )
        )
    return section("Which time steps were merged", "tokens", *parts)


def _caption(merge: Mapping[str, Any]) -> str:
    """What the method says of the tokens that went, if anything."""
    method = merge["method"]
    caption = None if method == registry.NONE else registry.spec(method).caption
    return "" if caption is None else caption(merge) or ""


def _counts(report: Report, tokens: Tokens | None) -> Html:
    inspected = next((part for part in report.tokens if part.merges), None)
    here = [] if tokens is None else [(one.layer, len(one.target), len(one.kept)) for one in tokens.layers]
    there = [] if not inspected else [
        (number if one.layer is None else one.layer, one.before, one.after)
        for number, one in enumerate(inspected.merges)
    ]  # fmt: skip
    by_data = inspected is not None and any(one.data_dependent for one in inspected.merges)
    if here and by_data:
        there = []  # counts on another input: nothing to set beside those of the history
    first = (here or there or [(0, 0, 0)])[0][1]
    if not first:
        return Html("")
    header = ["layer"]
    if here:
        header += ["tokens before", "after", "of all"]
    if there:
        header += [f"before, length {inspected.length}" if inspected else "", "after"]
    rows = []
    for number in range(max(len(here), len(there))):
        row: list[object] = [str((here or there)[number][0])]
        if number < len(here):
            _, before, after = here[number]
            row += [str(before), str(after), bar(after / first)]
        if number < len(there):
            row += [str(there[number][1]), str(there[number][2])]
        rows.append(row)
    said = []
    if here:
        beside = "; beside it, at the length that inspect counts at" if there else ""
        said.append(f"Counted on the history below{beside}.")
    elif by_data:
        said.append(f"With this method {GENERATED_INPUT}.")
    heading = tag("h3", "Tokens kept per layer")
    return join((heading, tag("p", *said, class_="sub"), table(header, rows, name="Tokens kept per layer")))


def _kind(members: int) -> str:
    """Class of a colour: one for 2, 3 to 4, 5 to 8, 9 to 16 and more members."""
    return f"s{min(6, 1 + (members - 1).bit_length())}"


def _strip(tokens: Tokens, series: Series, gone: str) -> Html:
    """Rows of blocks; ``gone`` is what the method says of the tokens that went."""
    count = tokens.count
    width = min(_WIDEST, max(320, _PIXELS * count))
    unit = width / count
    rows, labels = [], []
    height = 0
    signal = _signal(tokens, series, unit)
    if signal:
        labels.append(tag("li", "history", class_="signal"))
        rows.append(signal)
        height = _SIGNAL
    labels.append(tag("li", f"input: {count}"))
    rows.append(_row(tokens, [Block(0, count - 1, 0, 1)], [], unit, height))
    for one, place in zip(tokens.layers, places([layer.target for layer in tokens.layers]), strict=True):
        height += _ROW
        labels.append(tag("li", f"layer {one.layer}: {len(one.kept)}"))
        rows.append(_row(tokens, blocks(place), one.size, unit, height))
    height += _ROW
    words = (
        f"A row for each merging layer, from {count} tokens to {len(tokens.layers[-1].kept)}; blocks of one "
        "colour between gaps are tokens that were merged into one."
    )
    svg = tag(
        "svg",
        tag("title", f"Merged tokens of {series.column}"),
        tag("desc", words),
        *rows,
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        preserveAspectRatio="none",
        role="img",
    )
    span = tag("div", tag("span", "oldest"), tag("span", "newest"), class_="range", aria_hidden="true")
    scroll = tag(
        "div",
        tag("div", svg, span, class_="inner"),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label="Merged tokens, oldest to newest",
    )
    per = tokens.steps_per_token
    each = {None: "", 1: " A token is a time step."}.get(per, f" A token is {per} time steps.")
    special = ""
    if tokens.special and any(tokens.special):
        special = f" Tokens at the ends that stand for no time step: {sum(tokens.special)}."
    caption = tag(
        "figcaption",
        f"The history of {series.column}, {tokens.steps} steps.{each}{special} "
        "Blocks are original tokens, cut as they stand after each layer: grey are unmerged ones, the stronger the "
        "colour the more were merged. A token that merged with one further off is drawn at both places; "
        "point at a block for its tokens.",
        gone and f" {gone}",
    )
    keyed = legend((tag("rect", width=22, height=12, class_=kind), said) for kind, said in _keys(tokens))
    body = tag("div", tag("ul", *labels, aria_hidden="true"), scroll, class_="strip")
    return join((tag("h3", "Where they went"), keyed, tag("figure", body, caption)))


def _keys(tokens: Tokens) -> list[tuple[str, str]]:
    keys = [
        ("s1", "unmerged"),
        ("s2", "2 tokens"),
        ("s3", "3 to 4"),
        ("s4", "5 to 8"),
        ("s5", "9 to 16"),
        ("s6", "more"),
    ]
    if any(size == 0 for size in tokens.size):
        keys.append(("pad", "padding"))
    if any(tokens.protected):
        keys.append(("end", "protected"))
    return keys


def _row(tokens: Tokens, found: Sequence[Block], sizes: Sequence[float], unit: float, top: float) -> Html:
    count, (first, last) = tokens.count, tokens.protected
    padding = [size == 0 for size in tokens.size]
    drawn = []
    outside = {*range(first), *range(count - last, count)}
    members: dict[int, list[Block]] = {}
    for block in found:
        members.setdefault(block.output, []).append(block)
    titled = len(found) * len(tokens.layers) <= _TITLED
    for block in found:
        if block.members > 1:
            said = _words(tokens, members[block.output], len(sizes), sizes[block.output]) if titled else None
            drawn.append(_rect(block.first, block.last, _kind(block.members), unit, top, said))
            continue
        run: list[tuple[int, int, str]] = []
        for token in range(block.first, block.last + 1):
            kind = "end" if token in outside else "pad" if padding[token] else "s1"
            if run and run[-1][2] == kind:
                run[-1] = (run[-1][0], token, kind)
            else:
                run.append((token, token, kind))
        drawn += [_rect(begin, end, kind, unit, top, None) for begin, end, kind in run]
    return join(drawn)


def _rect(first: int, last: int, kind: str, unit: float, top: float, said: str | None) -> Html:
    words = [] if said is None else [tag("title", said)]
    x, wide = (
        f"{first * unit:.2f}".rstrip("0").rstrip("."),
        f"{(last - first + 1) * unit:.2f}".rstrip("0").rstrip("."),
    )
    return tag("rect", *words, x=x, y=f"{top:g}", width=wide, height=_BLOCK, class_=kind)


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}\u2013{last}"


def _shift(tokens: Tokens, per: int) -> int:
    """How many steps after the first token's begin the history begins: special tokens and padding."""
    first, last = tokens.special or (0, 0)
    return first * per + (tokens.count - first - last) * per - tokens.steps


def _words(tokens: Tokens, parts: Sequence[Block], outputs: int, size: float) -> str:
    """The tokens of one output token, their time steps where known, and its size."""
    which = ", ".join(_range(block.first, block.last) for block in parts)
    per = tokens.steps_per_token
    when = ""
    if per:
        shift = _shift(tokens, per)
        steps = ", ".join(
            _range(max(0, block.first * per - shift), (block.last + 1) * per - shift - 1) for block in parts
        )
        when = f" (steps {steps})"
    return f"tokens {which}{when} \u2192 token {parts[0].output} of {outputs}, size {label(size)}"


def _signal(tokens: Tokens, series: Series, unit: float) -> Html:
    """The history above the strip, where tokens are time steps or patches of known length."""
    per = tokens.steps_per_token
    history = series.history
    if not per or len(history) != tokens.steps:
        return Html("")
    shift = _shift(tokens, per)
    low, high = span_of(history)
    pieces, pen = [], "M"
    for step, value in thinned(list(enumerate(history))):
        if value is None:
            pen = "M"
            continue
        x = (step + shift + 0.5) / per * unit
        pieces.append(f"{pen}{x:.1f} {(_SIGNAL - 8) * (1 - (value - low) / (high - low)) + 2:.1f}")
        pen = "L"
    return tag("path", d="".join(pieces), class_="line history")


def _moves(tokens: Tokens) -> Html:
    """The merges as text, layer by layer, in tokens of the layer's own input."""
    out = []
    for one in tokens.layers:
        groups: dict[int, list[int]] = {}
        for token, output in enumerate(one.target):
            groups.setdefault(output, []).append(token)
        moves = [
            f"{'+'.join(map(str, group))} \u2192 {output}"
            for output, group in groups.items()
            if len(group) > 1
        ]
        said = f"layer {one.layer}: {len(one.target)} \u2192 {len(one.kept)} tokens, the merges as text"
        words = ";  ".join(moves) or "no merge"
        out.append(tag("details", tag("summary", said), tag("p", words, class_="moves")))
    return join(out)
