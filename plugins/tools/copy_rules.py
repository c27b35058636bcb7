"""The same of copies by index, on the GPU: ``(name, file, text, instead of it)``."""

from __future__ import annotations

#: Of the kernels and their launches.
COPY_RULES = (
    ("negative indices are outside", "gather.cuh", "index += index < 0 ? count : 0;", ""),
    ("tokens of the first row", "gather.cuh", "(index / tokens * left + from)", "(from)"),
    ("the first lane's part alone", "gather.cuh", "c < words; c += lanes", "c < 1; c += lanes"),
    ("pairs of the first row", "gather.cuh", "static_cast<int64_t>(row) * left;", "0;"),
    ("the stride is left out", "gather.cuh", " * static_cast<uint64_t>(stride)", ""),
    ("the offset is left out", "gather.cuh", " + static_cast<uint64_t>(offset)", ""),
    ("i and j change places", "gather.cuh", "heads * left + i) * left + j;", "heads * left + j) * left + i;"),
    ("the first tile of a row alone", "gather.cuh", "blockIdx.x % tiles * kPairThreads +", ""),
    ("the first pack of heads alone", "gather.cuh", "h < heads; h += W", "h < W; h += W"),
    ("the first element of a pack alone", "gather.cuh", "pack.value[e];", "pack.value[0];"),
    ("words of 16 bytes at any address", "gather.cu", "apart % 16 == 0", "copies.tokenBytes > 15"),
    ("words of 4 bytes at any address", "gather.cu", "apart % 4 == 0", "copies.tokenBytes > 3"),
    ("words of 2 bytes at any address", "gather.cu", "apart % 2 == 0", "true"),
    ("packs of heads at any number", "gather.cu", "wholePacks(copies.plane, copies.heads, sizeof(Word))", "true"),
)  # fmt: skip
#: Of the operators around them.
COPYING_RULES = (
    ("always is not read", "gathers.h", " && !mAlways", ""),
    ("as many tokens are gathered too", "gathers.h", "rows[1] == whole[2] && ", "false && "),
    ("half of what stays is copied", "gathers.h", "whole[3] * bytes);", "whole[3] * bytes / 2);"),
    ("distances the other way", "gathers.h", "copies.stride = -1;", "copies.stride = 1;"),
    ("the last axis is left out", "gathers.h", "axis = 2; axis < shape.size()", "axis = 2; axis + 1 < shape.size()"),
)  # fmt: skip
