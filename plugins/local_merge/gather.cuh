// Copies by index. Nothing is computed on what is copied: elements are words of their size.
#pragma once

#include "kernels.cuh"

namespace tsmerge
{

constexpr unsigned kGatherThreads = 256;
constexpr unsigned kPairThreads = 128;

struct __align__(16) Wide
{
    uint32_t part[4];
};

// The index that an index stands for among `count`, or -1 if it is outside.
__device__ __forceinline__ int64_t resolved(int64_t index, int64_t count)
{
    index += index < 0 ? count : 0;
    return index < count ? index : -1;
}

// Grid: groups of lanes over batch * tokens = count. y [batch, left, words], z [batch, tokens, words].
template <typename Word>
__global__ void __launch_bounds__(kGatherThreads) gatherTokens(Word const* __restrict__ y,
    int64_t const* __restrict__ target, Word* __restrict__ z, int64_t count, int64_t tokens, int64_t left,
    int64_t words, unsigned lanes)
{
    Group const group{lanes};
    int64_t const index = static_cast<int64_t>(blockIdx.x) * (kGatherThreads / lanes) + threadIdx.x / lanes;
    if (index >= count)
    {
        return;
    }
    int64_t const from = resolved(target[index], left);
    int64_t const source = (index / tokens * left + from) * words;
    for (int64_t c = group.lane; c < words; c += lanes)
    {
        z[index * words + c] = from < 0 ? Word{} : y[source + c];
    }
}

// Grid: batch * left * ceil(left / kPairThreads). A thread copies the numbers of one pair for all heads: they lie together
// in plane, and neighbouring threads write neighbours.
template <typename Word, int W>
__global__ void __launch_bounds__(kPairThreads) gatherPairs(Word const* __restrict__ plane,
    int64_t const* __restrict__ kept, Word* __restrict__ z, int64_t rows, int heads, unsigned left, int64_t stride,
    int64_t offset)
{
    unsigned const tiles = (left + kPairThreads - 1) / kPairThreads;
    unsigned const j = blockIdx.x % tiles * kPairThreads + threadIdx.x;
    unsigned const line = blockIdx.x / tiles;
    if (j >= left)
    {
        return;
    }
    unsigned const row = line / left;
    unsigned const i = line % left;
    int64_t const own = static_cast<int64_t>(row) * left;
    int64_t const first = kept == nullptr ? i : kept[own + i];
    int64_t const second = kept == nullptr ? j : kept[own + j];
    // Unsigned: what stands in kept may be anything.
    auto const pair = static_cast<int64_t>(static_cast<uint64_t>(first) * static_cast<uint64_t>(stride)
        + static_cast<uint64_t>(second) + static_cast<uint64_t>(offset));
    int64_t const from = resolved(pair, rows);
    auto const* const packs = reinterpret_cast<Pack<Word, W> const*>(plane);
    int64_t const square = static_cast<int64_t>(left) * left;
    z += (static_cast<int64_t>(row) * heads * left + i) * left + j;
    for (int h = 0; h < heads; h += W)
    {
        Pack<Word, W> pack{};
        if (from >= 0)
        {
            pack = packs[(from * heads + h) / W];
        }
#pragma unroll
        for (int e = 0; e < W; ++e)
        {
            z[(h + e) * square] = pack.value[e];
        }
    }
}

}  // namespace tsmerge
