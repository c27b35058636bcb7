// What PiToMe and token reduction for state-space models share: tokens in the order of a rank, the best partner of each of
// some of them among others, and where every token goes. Indices are those among a row's unprotected tokens.
#pragma once

#include "kernels.cuh"
#include "select.cuh"
#include "tiles.cuh"

#include <climits>

namespace tsmerge
{

// The unprotected tokens of every row: token first + u, u < count.
struct Span
{
    int64_t tokens;
    int first;
    int count;

    // In all of [batch, tokens].
    __device__ __forceinline__ int64_t at(int64_t row, int u) const
    {
        return row * tokens + first + u;
    }
};

// Where the a's and b's are in the order: a_i at startA + step * i.
struct Lists
{
    int const* order;  // [batch, count of the span]
    int countA;
    int countB;
    int startA;
    int startB;
    int step;
    bool byIndex;  // of equal b's the lowest index wins, and best names that; else the first in the order, by its number

    __device__ __forceinline__ int a(int64_t row, Span const& span, int i) const
    {
        return order[row * span.count + startA + step * i];
    }
    __device__ __forceinline__ int b(int64_t row, Span const& span, int j) const
    {
        return order[row * span.count + startB + step * j];
    }
};

struct ListTokens
{
    Lists lists;
    Span span;
    int64_t row;

    __device__ __forceinline__ int64_t operator()(bool isA, int index) const
    {
        return span.at(row, isA ? lists.a(row, span, index) : lists.b(row, span, index));
    }
};

// Grid: batch * ceil(countA / kTileA) * splits. best [batch, countA, splits], by cosine. All b's are the same to an a that
// is padding, and no real a goes into padding while there is another.
template <typename T>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks) matchLists(T const* __restrict__ metric,
    float const* __restrict__ size, unsigned long long* __restrict__ best, Span span, Lists lists, int features,
    int splits, bool aligned)
{
    auto& shared = *reinterpret_cast<TileShared*>(dynamicShared);
    Tile tile{lists.countA, splits};
    tile.share(lists.countA, 0, lists.countB, splits);
    int64_t const row = tile.row;
    ListTokens const find{lists, span, row};

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
            int const b = lists.b(row, span, j);
            bool const paddingB = size[span.at(row, b)] == 0.0F;
#pragma unroll
            for (int m = 0; m < kPerThread; ++m)
            {
                int const i = tile.i0 + lineOf(m);
                if (i >= tile.iEnd)
                {
                    continue;
                }
                float rank = rankOf(Similarity::kCosine, dot[m][n], shared.square[i - tile.i0],
                    shared.square[kTileA + j - j0], 0.0F);
                if (paddingB || size[span.at(row, lists.a(row, span, i))] == 0.0F)
                {
                    rank = kRankIntoPadding;
                }
                found[m] = greater(found[m], candidate(rank, lists.byIndex ? b : j));
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
        int const i = tile.i0 + lineOf(m);
        if (columnOf(0) == 0 && i < tile.iEnd)
        {
            best[(row * lists.countA + i) * splits + tile.split] = found[m];
        }
    }
}

// Which b a candidate named.
__device__ __forceinline__ int named(unsigned long long candidate)
{
    return static_cast<int>(0xffffffffU - static_cast<unsigned>(candidate));
}

// All threads of a block, for one row. into [tokens]: the token that each goes into, which stays, or -1; it becomes the
// output slot. kept and slots [left], target [tokens]. counts is shared memory.
template <typename Index>
__device__ __forceinline__ void placeRow(
    unsigned (&counts)[kWarp], int* into, Slot* slots, Index* kept, Index* target, int tokens)
{
    int const t = static_cast<int>(threadIdx.x);
    int const threads = static_cast<int>(blockDim.x);
    unsigned const warp = threadIdx.x / kWarp;
    unsigned const lower = (1U << threadIdx.x % kWarp) - 1U;
    unsigned before = 0;
    __syncthreads();  // it is known where all go
    for (int base = 0; base < tokens; base += threads)
    {
        int const n = base + t;
        bool const goes = n < tokens && into[n] >= 0;
        unsigned const lanes = __ballot_sync(kWholeWarp, goes);
        if (threadIdx.x % kWarp == 0)
        {
            counts[warp] = __popc(lanes);
        }
        __syncthreads();  // counts of all warps
        unsigned here = before + __popc(lanes & lower);
        for (unsigned w = 0; w < static_cast<unsigned>(threads) / kWarp; ++w)
        {
            here += w < warp ? counts[w] : 0;
            before += counts[w];
        }
        if (n < tokens && !goes)
        {
            int const place = n - static_cast<int>(here);
            kept[place] = static_cast<Index>(n);
            target[n] = static_cast<Index>(place);
            slots[place] = Slot{n, INT_MAX, -1};
        }
        __syncthreads();  // counts are read; after the last turn: places are there
    }
    for (int n = t; n < tokens; n += threads)
    {
        if (into[n] >= 0)
        {
            Index const place = target[into[n]];
            target[n] = place;
            into[n] = static_cast<int>(place);
            atomicMin(&slots[place].first, n);
            atomicMax(&slots[place].last, n);
        }
    }
}

}  // namespace tsmerge
