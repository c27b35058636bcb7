"""What :mod:`mutate` turns around, rule by rule: ``(name, file, text, instead of it)``."""

from __future__ import annotations

BARRIER = "__syncthreads();"

#: Of the CUDA kernels.
KERNEL_RULES = (
    (
        "ties of b: highest j wins",
        "kernels.cuh",
        "(0xffffffffU - static_cast<unsigned>(j))",
        "static_cast<unsigned>(j)",
    ),
    ("ties of a: none is taken", "select.cuh", "(tied && tiedHere < room)", "false"),
    ("ties of a: all are taken", "select.cuh", "(tied && tiedHere < room)", "tied"),
    ("ties of a: highest i wins", "select.cuh", "tied && tiedHere < room", "tied && tiedHere >= room"),
    ("-0 is below +0", "kernels.cuh", "rintf(cosine * kSteps) + 0.0F", "rintf(cosine * kSteps)"),
    ("cosines are not rounded", "kernels.cuh", "rintf(cosine * kSteps)", "(cosine * kSteps)"),
    ("NaN is not ranked", "kernels.cuh", "isnan(steps) ? kRankNan : steps", "steps"),
    ("a zero vector is no zero", "kernels.cuh", "scale == 0.0F ? 0.0F : dot / scale", "dot / scale"),
    (
        "padding does not go first",
        "select.cuh",
        "if (found != 0 && size[layout.first + 2 * static_cast<int64_t>(i)] == 0.0F)",
        "if (false)",
    ),
    ("near: real a into padding", "match.cuh", "size[tokenB] == 0.0F || padded", "padded"),
    ("tiles: real a into padding", "match.cuh", "if (paddingB && ", "if (false && "),
    (
        "near: window too wide",
        "match.cuh",
        "i + layout.k < free / 2 ? i + layout.k",
        "i + layout.k < free / 2 ? i + layout.k + 1",
    ),
    ("tiles: window too wide", "match.cuh", "distance >= layout.k", "distance > layout.k"),
    ("tiles: only the first split", "select.cuh", "s < splits", "s < 1"),
    ("padding has weight", "combine.cuh", "inside && counts[token] > 0.0F", "inside"),
    ("padding b has weight", "combine.cuh", "if (own > 0.0F)", "if (true)"),
    (
        "unmerged tokens are computed",
        "combine.cuh",
        "bool const received = total > own;",
        "bool const received = true;",
    ),
    ("middle members are lost", "combine.cuh", "visit(base + __ffs(static_cast<int>(hits)) - 1);", ""),
    ("last member is lost", "combine.cuh", "if (slot.last > slot.first)", "if (false)"),
    ("causal reads padding", "match.cuh", "layout.causal && size[tokenA - 1] == 0.0F", "false"),
    ("causal slots are read from after", "select.cuh", "place - (layout.causal ? 1 : 0)", "place"),
    ("endless norms count", "kernels.cuh", "if (!isfinite(squareA) || !isfinite(squareB))", "if (false)"),
    ("endless norms are the scale", "match.cuh", " && isfinite(square)", ""),
    ("l2 is dot", "kernels.cuh", "similarity == Similarity::kL2", "false"),
    (
        "only the first half is the scale",
        "match.cuh",
        "layout.first + index % free",
        "layout.first + index % free / 2",
    ),
)
#: Rules of DynamicMerge on the GPU.
COUNT_RULES = (
    # The scale changes the order of nothing, only what exceeds a threshold.
    ("padding is the scale", "match.cuh", "&& size[token] > 0.0F ", ""),
    ("at the threshold", "count.cuh", ">> 32) > least", ">> 32) >= least"),
    (
        "the first a's alone",
        "count.cuh",
        "base < countA; base += kCountThreads",
        "base < 1; base += 1",
    ),
    (
        "of the first row",
        "count.cuh",
        "    size += row * layout.tokens;\n    best += row * layout.countA * splits;\n    unsigned const count",
        "    unsigned const count",
    ),
)
CUDA_RULES = (
    (
        "no cap",
        "merges.h",
        'std::min(awaited(exceeding, stream, "DynamicMerge") / problem.batch, most)',
        'awaited(exceeding, stream, "DynamicMerge") / problem.batch',
    ),
    (
        "the sum of the rows",
        "merges.h",
        'awaited(exceeding, stream, "DynamicMerge") / problem.batch',
        'awaited(exceeding, stream, "DynamicMerge")',
    ),
)
#: Rules of SeriesMerge on the GPU.
APART_RULES = (
    ("counts of other warps are missed", "series.cuh", BARRIER, ""),
    ("padding at the end takes part", "series.cuh", "count < 0 ? 0 : count;", "layout.unprotected();"),
    (
        "padding ends at a warp's first lane",
        "series.cuh",
        "count -= __ffs(static_cast<int>(real)) - 1;",
        "",
    ),
    ("padding is a warp long at most", "series.cuh", "count -= static_cast<int>(kWarp);", "count = 0;"),
    ("the last warp counts alone", "series.cuh", "wanted += part;", "wanted = part;"),
    ("no cap", "series.cuh", "wanted < most ? wanted : most", "wanted"),
    ("min_tokens is forgotten", "series.cuh", "own > minTokens ? own - minTokens : 0", "own"),
    (
        "what was set aside counts",
        "series.cuh",
        "layout.tokens - layout.unprotected() + free",
        "layout.tokens",
    ),
    (
        "as short as the last row",
        "series.cuh",
        "atomicMax(longest, static_cast<int>(own - goes))",
        "*longest = static_cast<int>(own - goes)",
    ),
    ("near: set aside is a b", "match.cuh", "i + layout.k : free / 2;", "i + layout.k : layout.countB;"),
    ("tiles: set aside is a b", "match.cuh", "countB = free / 2;", "countB = layout.countB;"),
    ("a row that loses nothing loses all", "select.cuh", "wanted == 0 ? 0xffffffffU : 0;", "0;"),
    ("the last of an odd number has a b", "select.cuh", "if (i < free / 2)", "if (i < layout.countB)"),
    ("set aside is lost", "select.cuh", "token < end && place >= behind)", "token < end)"),
    ("targets behind all slots", "select.cuh", "behind > 0 ? behind - 1 : 0", "place"),
    ("targets in front of all slots", "select.cuh", "behind > 0 ? behind - 1 : 0", "behind - 1"),
    ("protected tokens are not last", "select.cuh", "behind + token - end;", "token - removed;"),
    (
        "copies are of the last token",
        "select.cuh",
        "aside < end ? static_cast<Index>(end - 1) : kept[filled - 1]",
        "static_cast<Index>(end - 1)",
    ),
    (
        "copies of what is not written yet",
        "select.cuh",
        "aside < end ? static_cast<Index>(end - 1) : kept[filled - 1]",
        "kept[filled - 1]",
    ),
    ("copies have a size", "combine.cuh", "copied ? 0.0F : all", "all"),
    (
        "protected tokens are copies too",
        "combine.cuh",
        "place >= filled && place < layout.behind()",
        "place >= filled",
    ),
)
NATIVE_RULES = (
    ("ties of b: highest j wins", "match.cpp", "if (rank > row.rank[i])", "if (rank >= row.rank[i])"),
    (
        "ties of a: highest i wins",
        "place.cpp",
        "(0xffffffffU - static_cast<uint32_t>(index))",
        "index",
    ),
    (
        "-0 is below +0",
        "match.cpp",
        "return (value + kWhole) - kWhole;",
        "return std::copysign((value + kWhole) - kWhole, value);",
    ),
    ("the worst merge", "place.cpp", "std::greater<>()", "std::less<>()"),
    ("cosines are not rounded", "match.cpp", "rounded((scale", "((scale"),
    (
        "l2 and dot are not bounded",
        "match.cpp",
        "std::min(std::max(steps, -kSteps), kSteps)",
        "steps",
    ),
    (
        "endless norms count",
        "match.cpp",
        "!std::isfinite(squareA) || !std::isfinite(squareB)",
        "false",
    ),
    ("endless norms are the scale", "match.cpp", "&& std::isfinite(it.square[u])", ""),
    ("padding is the scale", "match.cpp", "it.size[u] > 0.0F && ", ""),
    ("NaN is not ranked", "match.cpp", "std::isnan(steps) ? kRankNan : steps", "steps"),
    ("a zero vector is no zero", "match.cpp", "scale == 0.0F ? 0.0F : dot / scale", "dot / scale"),
    ("padding does not go first", "match.cpp", "it.rank[i] = kRankPadding;", ";"),
    ("real a into padding", "match.cpp", "row.size[2 * j + 1] == 0.0F || ", "false || "),
    ("causal reads padding", "match.cpp", "(mSettings.causal && a[-1] == 0.0F)", "false"),
    ("window too wide", "match.cpp", "mSettings.k - 1;", "mSettings.k;"),
    (
        "window too narrow",
        "match.cpp",
        "std::min({behind + reach, from + block, beyond})",
        "std::min({behind + reach - 1, from + block, beyond})",
    ),
    (
        "blocks of b's are cut short",
        "match.cpp",
        "from < beyond; from += block",
        "from < block; from += block",
    ),
    ("causal slots are read from after", "place.cpp", "left - (goes && settings.causal)", "left"),
    ("padding has weight", "combine.h", "if (size[n] > 0.0F)", "if (true)"),
    (
        "padding b has weight",
        "combine.h",
        "        if (size[token] > 0.0F)\n        {\n            add",
        "        if (true)\n        {\n            add",
    ),
    ("one real token beside padding", "combine.h", "if (one && size[token] > 0.0F)", "if (one)"),
    ("unmerged tokens are computed", "combine.h", "changed = size[n] > 0.0F;", "changed = true;"),
    (
        "only the first member",
        "combine.h",
        "bool const one = next[head] < 0;",
        "bool const one = true;",
    ),
    (
        "the rest of the features is lost",
        "products.cpp",
        "for (int64_t d = whole; d < n; ++d)",
        "for (int64_t d = n; d < n; ++d)",
    ),
    ("dynamic: at the threshold", "amounts.h", "return rank > limit;", "return rank >= limit;"),
    ("dynamic: no cap", "amounts.h", "std::min(total / problem.batch, most)", "total / problem.batch"),
    (
        "dynamic: of the first row",
        "amounts.h",
        "row < problem.batch; ++row)\n        {\n            total",
        "row < 1; ++row)\n        {\n            total",
    ),
    ("the last range is lost", "run.cpp", "(length + kRange - 1) / kRange", "length / kRange"),
)
#: Rules of SeriesMerge on the CPU.
SERIES_RULES = (
    (
        "padding at the end takes part",
        "amounts.h",
        "size[settings.protectFirst + free - 1] == 0.0F",
        "false",
    ),
    (
        "no cap",
        "amounts.h",
        "std::min(exceeding(*matching, row, mLimit), removed)",
        "exceeding(*matching, row, mLimit)",
    ),
    ("what was set aside counts", "amounts.h", "problem.own(row)", "problem.tokens"),
    (
        "no row has to have a token",
        "../common/settings.h",
        "std::max<int64_t>(settings.minTokens, 1)",
        "settings.minTokens",
    ),
    ("as short as the last row", "amounts.h", "std::max(out.left, own - removed)", "own - removed"),
    ("set aside is a b", "match.cpp", "free / 2, mMetric", "mFree / 2, mMetric"),
    ("set aside is lost", "place.cpp", "        if (left < behind)", "        if (false)"),
    ("targets behind all slots", "place.cpp", "std::min(left, behind - 1)", "left"),
    (
        "copies have a size",
        "place.cpp",
        "out.sizeOut[slot] = 0.0F;",
        "out.sizeOut[slot] = out.sizeOut[slot - 1];",
    ),
    (
        "copies are not merged",
        "place.cpp",
        "out.head[slot] = out.head[slot - 1];",
        "out.head[slot] = -1;",
    ),
    (
        "protected tokens are not last",
        "place.cpp",
        "out.target[n] = behind + n - end;",
        "out.target[n] = left + n - end;",
    ),
    ("longer rows decide", "operators.cpp", "amounts.left == problem.tokens\n            && ", ""),
    (
        "the length alone tells",
        "operators.cpp",
        "\n            && std::all_of(removed.begin(), removed.end(), [](int64_t count) { return count == 0; })",
        "",
    ),
)
