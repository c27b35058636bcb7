// Launches of SeriesMerge around those of match: which tokens of a row take part, and how many it loses.
#pragma once

#include "count.cuh"
#include "kernels.cuh"

namespace tsmerge
{

constexpr int kFreeRows = 4;  // rows of a block, a warp each

// R7.6: free [batch] is how many of a row's unprotected tokens there are up to the last real one. Read from the end, where
// padding is a part of the row: mostly one turn.
__global__ void __launch_bounds__(kFreeRows * kWarp) findFree(
    float const* __restrict__ size, int* __restrict__ free, Layout layout, int64_t batch)
{
    int64_t const row = static_cast<int64_t>(blockIdx.x) * kFreeRows + threadIdx.x / kWarp;
    if (row >= batch)
    {
        return;
    }
    int const lane = static_cast<int>(threadIdx.x % kWarp);
    size += row * layout.tokens + layout.first;
    int count = layout.unprotected();
    while (count > 0)
    {
        int const token = count - 1 - lane;
        unsigned const real = __ballot_sync(kWholeWarp, token >= 0 && size[token] != 0.0F);
        if (real != 0)
        {
            count -= __ffs(static_cast<int>(real)) - 1;
            break;
        }
        count -= static_cast<int>(kWarp);
    }
    if (lane == 0)
    {
        free[row] = count < 0 ? 0 : count;
    }
}

struct CountShared
{
    unsigned count[kCountThreads / kWarp];  // per warp
};

// R7.7: removed [batch]; R7.8: longest is one number, zero before. Grid: one block a row.
__global__ void __launch_bounds__(kCountThreads) countSeries(float const* __restrict__ size,
    unsigned long long const* __restrict__ best, int* __restrict__ removed, int* longest, Layout layout, int splits,
    float limit, int64_t minTokens)
{
    auto& shared = *reinterpret_cast<CountShared*>(dynamicShared);
    int64_t const row = blockIdx.x;
    int const free = layout.free(row);
    unsigned const count = countAbove(size + row * layout.tokens, best + row * layout.countA * splits, layout,
        (free + 1) / 2, splits, limit);
    if (threadIdx.x % kWarp == 0)
    {
        shared.count[threadIdx.x / kWarp] = count;
    }
    __syncthreads();  // counts of all warps
    if (threadIdx.x != 0)
    {
        return;
    }
    int64_t const own = layout.tokens - layout.unprotected() + free;
    int64_t most = own > minTokens ? own - minTokens : 0;
    most = most < free / 2 ? most : free / 2;
    int64_t wanted = 0;
    for (unsigned const part : shared.count)
    {
        wanted += part;
    }
    int64_t const goes = wanted < most ? wanted : most;
    removed[row] = static_cast<int>(goes);
    atomicMax(longest, static_cast<int>(own - goes));
}

}  // namespace tsmerge
