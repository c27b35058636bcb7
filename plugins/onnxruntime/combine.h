// The features of surviving tokens: copies, and size-weighted means.
#pragma once

#include "place.h"
#include "products.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace tsmerge
{

inline float toFloat(float value)
{
    return value;
}
template <typename T>
float toFloat(T value)
{
    return value.ToFloat();
}

// R6.3, R6.4. One surviving token: the mean of itself and what went into it, weighted by size. Padding is left out, not weighted by
// 0: it may hold NaN. Weights are normalised before the sum, so that sums of huge tokens do not overflow.
template <typename T>
void mean(T const* x, float const* size, int64_t features, int64_t token, int32_t head, int32_t const* next, T* y)
{
    float total = size[token];
    for (int32_t n = head; n >= 0; n = next[n])
    {
        total += size[n];
    }
    if constexpr (std::is_same_v<T, float>)
    {
        bool const one = next[head] < 0;
        if (one && size[token] > 0.0F)
        {
            weightedSum(x + head * features, size[head] / total, x + token * features, size[token] / total, features, y);
            return;
        }
    }
    constexpr int64_t kBlock = 256;
    float sums[kBlock];
    for (int64_t start = 0; start < features; start += kBlock)
    {
        int64_t const count = std::min(kBlock, features - start);
        std::fill(sums, sums + count, 0.0F);
        auto const add = [&](int64_t n)
        {
            float const weight = size[n] / total;
            T const* const from = x + n * features + start;
            for (int64_t d = 0; d < count; ++d)
            {
                sums[d] += toFloat(from[d]) * weight;
            }
        };
        if (size[token] > 0.0F)
        {
            add(token);
        }
        for (int32_t n = head; n >= 0; n = next[n])
        {
            if (size[n] > 0.0F)
            {
                add(n);
            }
        }
        for (int64_t d = 0; d < count; ++d)
        {
            y[start + d] = T(sums[d]);
        }
    }
}

// x [tokens, features] and size [tokens] of one row; writes the tokens begin to end of y [left, features].
template <typename T>
void combine(T const* x, float const* size, int64_t features, Places const& places, int64_t begin, int64_t end, T* y)
{
    int64_t const bytes = features * static_cast<int64_t>(sizeof(T));
    for (int64_t m = begin; m < end;)
    {
        // A token that nothing real went into keeps its bits. Neighbours are copied at once.
        int64_t const start = m;
        int64_t const token = places.kept[m];
        bool changed = false;
        for (; m < end && places.kept[m] == token + m - start; ++m)
        {
            for (int32_t n = places.head[m]; n >= 0 && !changed; n = places.next[n])
            {
                changed = size[n] > 0.0F;
            }
            if (changed)
            {
                break;
            }
        }
        std::memcpy(y + start * features, x + token * features, (m - start) * bytes);
        if (changed)
        {
            mean(x, size, features, places.kept[m], places.head[m], places.next, y + m * features);
            ++m;
        }
    }
}

} // namespace tsmerge
