#include "place.h"

#include <algorithm>
#include <cstring>
#include <functional>

namespace tsmerge
{

namespace
{

// R4.3: greater for a higher rank, and of equal ranks for a lower index. A rank is neither NaN nor -0: see rounded.
uint64_t key(float rank, int64_t index)
{
    uint32_t bits;
    std::memcpy(&bits, &rank, sizeof(bits));
    bits = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
    return static_cast<uint64_t>(bits) << 32 | (0xffffffffU - static_cast<uint32_t>(index));
}

// The sizes of a token and of those in its list, added in their order, as in the reference.
float sumOf(float const* size, int64_t token, int64_t head, int32_t const* next)
{
    float sum = 0.0F;
    int64_t n = head;
    for (; n >= 0 && n < token; n = next[n])
    {
        sum += size[n];
    }
    sum += size[token];
    for (; n >= 0; n = next[n])
    {
        sum += size[n];
    }
    return sum;
}

} // namespace

void place(Match const& matching, Problem const& problem, int64_t row, Amounts const& amounts, Places const& out)
{
    Settings const& settings = problem.settings;
    int64_t const tokens = problem.tokens;
    int64_t const removed = amounts.removed[row];
    int64_t const countA = matching.countA();
    float const* const size = problem.size + row * tokens;
    float const* const ranks = matching.ranks(row);
    int32_t const* const partners = matching.partners(row);
    for (int64_t i = 0; i < countA; ++i)
    {
        out.keys[i] = key(ranks[i], i);
    }
    std::nth_element(out.keys, out.keys + removed, out.keys + countA, std::greater<>());
    // next says first whether a token goes (0) or stays (-1).
    std::fill(out.next, out.next + tokens, -1);
    for (int64_t best = 0; best < removed; ++best)
    {
        int64_t const i = 0xffffffffU - static_cast<uint32_t>(out.keys[best]);
        out.next[settings.protectFirst + 2 * i] = 0;
    }
    // Which a's go follows no pattern that a processor could foresee, so an a is written in any case: where it goes, the
    // token after it, which stays, overwrites it. Only the last one may have none after it.
    int64_t const aside = settings.protectFirst + problem.free[row];
    int64_t count = 0;
    int64_t left = 0;
    for (int64_t n = 0; n < aside; ++n)
    {
        bool const goes = out.next[n] == 0;
        out.gone[count] = static_cast<int32_t>(n);
        count += goes;
        out.target[n] = left - (goes && settings.causal);
        if (n + 1 == aside && goes)
        {
            break;
        }
        out.kept[left] = n;
        out.sizeOut[left] = size[n];
        out.head[left] = -1;
        left += !goes;
    }
    // R7.9, R7.10: between those and the protected tokens is room up to `behind`, for padding that was set aside.
    int64_t const end = tokens - settings.protectLast;
    int64_t const behind = amounts.left - settings.protectLast;
    auto const stay = [&](int64_t n, int64_t slot)
    {
        out.kept[slot] = n;
        out.sizeOut[slot] = size[n];
        out.head[slot] = -1;
    };
    for (int64_t n = aside; n < end; ++n)
    {
        out.target[n] = std::max<int64_t>(std::min(left, behind - 1), 0);
        if (left < behind)
        {
            stay(n, left++);
        }
    }
    for (int64_t n = end; n < tokens; ++n)
    {
        out.target[n] = behind + n - end;
        stay(n, out.target[n]);
    }
    // Downwards, so that each list comes to ascend.
    for (int64_t at = removed - 1; at >= 0; --at)
    {
        int32_t const n = out.gone[at];
        int64_t const partner = partners[(n - settings.protectFirst) / 2];
        int64_t const into = out.target[settings.protectFirst + 2 * partner + 1];
        out.next[n] = out.head[into];
        out.head[into] = n;
        if (!settings.causal)
        {
            out.target[n] = into;
        }
    }
    for (int64_t at = 0; at < removed; ++at)
    {
        int64_t const partner = partners[(out.gone[at] - settings.protectFirst) / 2];
        int64_t const into = out.target[settings.protectFirst + 2 * partner + 1];
        if (out.head[into] == out.gone[at])
        {
            out.sizeOut[into] = sumOf(size, out.kept[into], out.gone[at], out.next);
        }
    }
    // What is still free there holds copies of the token before.
    for (int64_t slot = left; slot < behind; ++slot)
    {
        out.kept[slot] = out.kept[slot - 1];
        out.head[slot] = out.head[slot - 1];
        out.sizeOut[slot] = 0.0F;
    }
}

} // namespace tsmerge
