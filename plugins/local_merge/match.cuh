// First launches: for l2 and dot the largest norm of every row, then the best b of every a: two kernels, by neighbourhood.
// x (the metric) is read once by each.
#pragma once

#include "kernels.cuh"
#include "tiles.cuh"

namespace tsmerge
{

constexpr unsigned kMatchThreads = 128;
constexpr int kNearBlocks = 8;  // on a multiprocessor: leaves 64 registers a thread, so that nothing spills

// The largest finite squared norm of a real, unprotected token of every row, as an integer of the same order; zero before.
// Grid: groups of lanes over batch * (countA + countB). largest [batch].
template <typename T, int W>
__global__ void __launch_bounds__(kMatchThreads) findLargest(T const* __restrict__ metric,
    float const* __restrict__ size, unsigned* __restrict__ largest, Layout layout, int64_t batch, int features,
    unsigned lanes)
{
    Group const group{lanes};
    int64_t const index = static_cast<int64_t>(blockIdx.x) * (kMatchThreads / lanes) + threadIdx.x / lanes;
    int64_t const free = layout.countA + static_cast<int64_t>(layout.countB);
    if (index >= batch * free)
    {
        return;
    }
    int64_t const row = index / free;
    int64_t const token = row * layout.tokens + layout.first + index % free;
    using P = Pack<T, W>;
    P const* const packs = reinterpret_cast<P const*>(metric + token * features);
    float square = 0.0F;
    for (int c = static_cast<int>(group.lane); c < features / W; c += static_cast<int>(lanes))
    {
        P const pack = packs[c];
#pragma unroll
        for (int e = 0; e < W; ++e)
        {
            float const u = toFloat(pack.value[e]);
            square += u * u;
        }
    }
    square = group.sum(square);
    if (group.lane == 0 && size[token] > 0.0F && isfinite(square))
    {
        atomicMax(&largest[row], __float_as_uint(square));
    }
}

// Small neighbourhoods: a group of lanes per a, its 2k - 1 candidates one after another (rows of neighbours come from
// the cache). Grid: groups over batch * countA. best [batch, countA], of a's that take part.
template <typename T, int W>
__global__ void __launch_bounds__(kMatchThreads, kNearBlocks) matchNear(T const* __restrict__ metric,
    float const* __restrict__ size, unsigned const* __restrict__ largest, unsigned long long* __restrict__ best,
    Layout layout, int64_t batch, int features, unsigned lanes)
{
    Group const group{lanes};
    int64_t const index = static_cast<int64_t>(blockIdx.x) * (kMatchThreads / lanes) + threadIdx.x / lanes;
    if (index >= batch * layout.countA)
    {
        return;
    }
    int64_t const row = index / layout.countA;
    int const i = static_cast<int>(index % layout.countA);
    int const free = layout.free(row);
    if (2 * i >= free)
    {
        return;
    }
    int64_t const tokenA = row * layout.tokens + layout.first + 2 * static_cast<int64_t>(i);
    using P = Pack<T, W>;
    P const* const packsA = reinterpret_cast<P const*>(metric + tokenA * features);
    bool const realA = size[tokenA] != 0.0F;
    // In causal merging the slot of a will be read from the token before it, which padding is as bad for.
    bool const padded = layout.causal && size[tokenA - 1] == 0.0F;
    float const norm = layout.similarity == Similarity::kCosine ? 0.0F : __uint_as_float(largest[row]);
    int const jFirst = i - layout.k + 1 < 0 ? 0 : i - layout.k + 1;
    int const jEnd = i + layout.k < free / 2 ? i + layout.k : free / 2;
    unsigned long long found = 0;
    for (int j = jFirst; j < jEnd; ++j)
    {
        int64_t const tokenB = row * layout.tokens + layout.first + 2 * static_cast<int64_t>(j) + 1;
        P const* const packsB = reinterpret_cast<P const*>(metric + tokenB * features);
        float dot = 0.0F;
        float squareA = 0.0F;
        float squareB = 0.0F;
        for (int c = static_cast<int>(group.lane); c < features / W; c += static_cast<int>(lanes))
        {
            P const a = packsA[c];
            P const b = packsB[c];
#pragma unroll
            for (int e = 0; e < W; ++e)
            {
                float const u = toFloat(a.value[e]);
                float const v = toFloat(b.value[e]);
                dot += u * v;
                squareA += u * u;
                squareB += v * v;
            }
        }
        float rank
            = rankOf(layout.similarity, group.sum(dot), group.sum(squareA), group.sum(squareB), norm);
        if (realA && (size[tokenB] == 0.0F || padded))
        {
            rank = kRankIntoPadding;
        }
        found = greater(found, candidate(rank, j));
    }
    if (group.lane == 0)
    {
        best[index] = found;
    }
}

// Larger neighbourhoods, by tiles.
struct PairTokens
{
    int64_t base;  // of the row: its first unprotected token

    __device__ __forceinline__ int64_t operator()(bool isA, int pair) const
    {
        return base + 2 * static_cast<int64_t>(pair) + (isA ? 0 : 1);
    }
};

// Grid: batch * ceil(countA / kTileA) * splits; the b's of a tile are shared out to `splits` blocks.
// best [batch, countA, splits], of a's that take part.
template <typename T>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks) matchTiles(T const* __restrict__ metric,
    float const* __restrict__ size, unsigned const* __restrict__ largest, unsigned long long* __restrict__ best,
    Layout layout, int features, int splits, bool aligned)
{
    auto& shared = *reinterpret_cast<TileShared*>(dynamicShared);
    Tile tile{layout.countA, splits};
    int64_t const row = tile.row;
    int const i0 = tile.i0;
    int const free = layout.free(row);
    int const countA = (free + 1) / 2;
    int const countB = free / 2;
    if (i0 >= countA)
    {
        return;
    }
    int const iEnd = i0 + kTileA < countA ? i0 + kTileA : countA;
    bool const limited = layout.k != 0;
    int const low = limited && i0 - layout.k + 1 > 0 ? i0 - layout.k + 1 : 0;
    int const high = limited && layout.k < countB - iEnd + 1 ? iEnd - 1 + layout.k : countB;
    tile.share(countA, low, high, splits);
    float const* const sizes = size + row * layout.tokens + layout.first;
    float const norm = layout.similarity == Similarity::kCosine ? 0.0F : __uint_as_float(largest[row]);
    PairTokens const find{row * layout.tokens + layout.first};

    unsigned long long found[kPerThread] = {};
    for (int j0 = tile.jBegin; j0 < tile.jEnd; j0 += kTileB)
    {
        float dot[kPerThread][kPerThread];
        dotTile(shared, metric, find, tile, j0, features, aligned, dot);
#pragma unroll
        for (int n = 0; n < kPerThread; ++n)
        {
            int const j = j0 + columnOf(n);
            if (j >= tile.jEnd)
            {
                continue;
            }
            bool const paddingB = sizes[2 * static_cast<int64_t>(j) + 1] == 0.0F;
#pragma unroll
            for (int m = 0; m < kPerThread; ++m)
            {
                int const i = i0 + lineOf(m);
                int const distance = i < j ? j - i : i - j;
                if (i >= iEnd || (limited && distance >= layout.k))
                {
                    continue;
                }
                float rank = rankOf(
                    layout.similarity, dot[m][n], shared.square[i - i0], shared.square[kTileA + j - j0], norm);
                if (paddingB && sizes[2 * static_cast<int64_t>(i)] != 0.0F)
                {
                    rank = kRankIntoPadding;
                }
                found[m] = greater(found[m], candidate(rank, j));
            }
        }
    }
#pragma unroll
    for (int m = 0; m < kPerThread; ++m)
    {
        for (unsigned step = kColumns / 2; step > 0; step /= 2)
        {
            found[m] = greater(found[m], __shfl_xor_sync(kWholeWarp, found[m], step));
        }
        int const i = i0 + lineOf(m);
        if (columnOf(0) == 0 && i < iEnd)
        {
            best[(row * layout.countA + i) * splits + tile.split] = found[m];
        }
    }
}

}  // namespace tsmerge
