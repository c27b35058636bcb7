// Kernels of PiToMe: energies, and which tokens they pair. R8 of docs/specification.md.
#pragma once

#include "links.cuh"
#include "pitome.h"

#include <cmath>

namespace tsmerge
{

constexpr unsigned kRankThreads = 256;

// Of one token over some of the others: what they count, in whole steps, and how many they are. NaN: not finite.
struct EnergySum
{
    double sum;
    int count;
};

struct AllTokens
{
    int64_t base;

    __device__ __forceinline__ int64_t operator()(bool, int index) const
    {
        return base + index;
    }
};

// R8.2 to R8.4: what a cosine counts, in whole steps.
__device__ __forceinline__ float counted(Energy const& energy, float score)
{
    float value;
    if (energy.gaussian)
    {
        float const wide = 1.0F - energy.margin;
        float const z = (1.0F - score) / (wide < 1.0F / kSteps ? 1.0F / kSteps : wide);
        value = expf(z * z * -0.5F);
    }
    else
    {
        value = score >= energy.margin ? score : energy.alpha * (expf(score - energy.margin) - 1.0F);
    }
    return rintf(value * kSteps);
}

// Grid: batch * ceil(count / kTileA) * splits. sums [batch, count, splits]. Sums are of integers: in any order the same.
template <typename T>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks) sumEnergies(T const* __restrict__ metric,
    float const* __restrict__ size, EnergySum* __restrict__ sums, Span span, Energy energy, int features, int splits,
    bool aligned)
{
    auto& shared = *reinterpret_cast<TileShared*>(dynamicShared);
    Tile tile{span.count, splits};
    tile.share(span.count, 0, span.count, splits);
    int64_t const base = span.at(tile.row, 0);
    AllTokens const find{base};

    long long sum[kPerThread] = {};
    int count[kPerThread] = {};
    bool endless[kPerThread] = {};
    for (int j0 = tile.jBegin; j0 < tile.jEnd; j0 += kTileB)
    {
        float dot[kPerThread][kPerThread];
        dotTile(shared, metric, find, tile, j0, features, aligned, dot);
#pragma unroll
        for (int n = 0; n < kPerThread; ++n)
        {
            int const j = j0 + columnOf(n);
            if (j >= tile.jEnd || size[base + j] == 0.0F)
            {
                continue;
            }
#pragma unroll
            for (int m = 0; m < kPerThread; ++m)
            {
                int const i = tile.i0 + lineOf(m);
                if (i >= tile.iEnd || i == j)
                {
                    continue;
                }
                float const rank = rankOf(Similarity::kCosine, dot[m][n], shared.square[i - tile.i0],
                    shared.square[kTileA + j - j0], 0.0F);
                if (rank == kRankNan)
                {
                    continue;
                }
                float const term = counted(energy, rank * (1.0F / kSteps));
                ++count[m];
                if (isfinite(term))
                {
                    sum[m] += static_cast<long long>(term);
                }
                else
                {
                    endless[m] = true;
                }
            }
        }
    }
#pragma unroll
    for (int m = 0; m < kPerThread; ++m)
    {
        double whole = endless[m] ? static_cast<double>(NAN) : static_cast<double>(sum[m]);
        for (unsigned step = kColumns / 2; step > 0; step /= 2)
        {
            whole += __shfl_xor_sync(kWholeWarp, whole, step);
            count[m] += __shfl_xor_sync(kWholeWarp, count[m], step);
        }
        int const i = tile.i0 + lineOf(m);
        if (columnOf(0) == 0 && i < tile.iEnd)
        {
            sums[(tile.row * span.count + i) * splits + tile.split] = EnergySum{whole, count[m]};
        }
    }
}

// R8.5, R8.6. Grid: threads over batch * count. rank [batch, count], integers of the order of energies.
__global__ void __launch_bounds__(kRankThreads) rankEnergies(float const* __restrict__ size,
    EnergySum const* __restrict__ sums, unsigned* __restrict__ rank, Span span, int64_t all, int splits)
{
    int64_t const index = static_cast<int64_t>(blockIdx.x) * kRankThreads + threadIdx.x;
    if (index >= all)
    {
        return;
    }
    double sum = 0.0;
    int count = 0;
    for (int s = 0; s < splits; ++s)
    {
        sum += sums[index * splits + s].sum;
        count += sums[index * splits + s].count;
    }
    float energy = rintf(static_cast<float>(sum) / static_cast<float>(count)) + 0.0F;  // -0 becomes +0: they tie
    energy = isfinite(energy) ? energy : -INFINITY;
    bool const padding = size[span.at(index / span.count, static_cast<int>(index % span.count))] == 0.0F;
    rank[index] = orderedKey(padding ? INFINITY : energy);
}

// R8.7, R8.8: in the order, every second of the first 2 * removed goes. Grid: one block a row. best [batch, removed, splits].
template <typename Index>
__global__ void __launch_bounds__(kSelectThreads) placePairs(unsigned long long const* __restrict__ best, int* into,
    Slot* slots, Index* kept, Index* target, Span span, Lists lists, int left, int splits)
{
    auto& counts = *reinterpret_cast<unsigned(*)[kWarp]>(dynamicShared);
    int64_t const row = blockIdx.x;
    int const t = static_cast<int>(threadIdx.x);
    int const threads = static_cast<int>(blockDim.x);
    int const tokens = static_cast<int>(span.tokens);
    into += row * span.tokens;
    best += row * lists.countA * splits;
    for (int n = t; n < tokens; n += threads)
    {
        into[n] = -1;
    }
    __syncthreads();  // none goes
    for (int i = t; i < lists.countA; i += threads)
    {
        int const j = named(bestOf(best, splits, i));
        into[span.first + lists.a(row, span, i)] = span.first + lists.b(row, span, j);
    }
    placeRow(counts, into, slots + row * left, kept + row * left, target + row * span.tokens, tokens);
}

}  // namespace tsmerge
