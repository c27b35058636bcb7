// Attributes of the operators, and the count that follows from them.
#pragma once

#include <algorithm>
#include <cstdint>

namespace tsmerge
{

enum class Similarity : int64_t
{
    kCosine = 0,
    kL2 = 1,
    kDot = 2,
};

struct Settings
{
    int64_t k = 1; // 0: all
    int64_t minTokens = 0;
    int64_t first = 0; // protected tokens at the front
    int64_t last = 0;  // and at the end
    Similarity similarity = Similarity::kCosine;
    bool causal = false;

    // At most so many of `tokens` may be removed.
    int64_t most(int64_t tokens) const
    {
        int64_t const pairs = std::max<int64_t>(tokens - first - last, 0) / 2;
        return std::min(pairs, std::max<int64_t>(tokens - minTokens, 0));
    }
};

// r(N) of LocalMerge: either r or a ratio is 0.
struct Amount
{
    int64_t r = 0;
    int64_t ratioNum = 0;
    int64_t ratioDen = 1;

    int64_t of(int64_t tokens, Settings const& settings) const
    {
        return std::min(r + tokens * ratioNum / ratioDen, settings.most(tokens));
    }
};

} // namespace tsmerge
