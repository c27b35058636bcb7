// How many a's rank above a threshold: of all rows together, and in series.cuh of each.
#pragma once

#include "kernels.cuh"
#include "select.cuh"

namespace tsmerge
{

constexpr int kCountThreads = 256;

// How many of a row's a's rank above the limit, those that the threads of this one's warp look at. size and best are those
// of the row.
__device__ __forceinline__ unsigned countAbove(
    float const* size, unsigned long long const* best, Layout const& layout, int countA, int splits, float limit)
{
    unsigned const least = orderedKey(limit);
    unsigned count = 0;
    for (int base = 0; base < countA; base += kCountThreads)
    {
        int const i = base + static_cast<int>(threadIdx.x);
        bool const above = i < countA && static_cast<unsigned>(keyed(size, best, layout, splits, i) >> 32) > least;
        count += __popc(__ballot_sync(kWholeWarp, above));
    }
    return count;
}

// How many a's of all rows rank above the limit. Grid: one block a row. exceeding is one number, zero before.
__global__ void __launch_bounds__(kCountThreads) countExceeding(float const* __restrict__ size,
    unsigned long long const* __restrict__ best, unsigned long long* exceeding, Layout layout, int splits, float limit)
{
    int64_t const row = blockIdx.x;
    size += row * layout.tokens;
    best += row * layout.countA * splits;
    unsigned const count = countAbove(size, best, layout, layout.countA, splits, limit);
    if (threadIdx.x % kWarp == 0 && count != 0)
    {
        atomicAdd(exceeding, static_cast<unsigned long long>(count));
    }
}

}  // namespace tsmerge
