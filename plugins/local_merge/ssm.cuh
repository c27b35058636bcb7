// Kernels of token reduction for state-space models: importance, which links go, and means of two branches. R9 of
// docs/specification.md.
#pragma once

#include "combine.cuh"
#include "links.cuh"
#include "ssm.h"

namespace tsmerge
{

constexpr unsigned kWeighThreads = 128;
constexpr unsigned kImportanceThreads = 256;
constexpr int kBranchBlocks = 6;  // on a multiprocessor: leaves 80 registers a thread, so that nothing spills

// R9.1, and the largest of R9.2. Grid: groups of lanes over batch * count = all. sums [batch, count]; largest [batch], an
// integer of the same order, zero before.
template <typename T, int W>
__global__ void __launch_bounds__(kWeighThreads) sumPositive(T const* __restrict__ metric,
    float const* __restrict__ size, float* __restrict__ sums, unsigned* __restrict__ largest, Span span, int64_t all,
    int features, unsigned lanes)
{
    Group const group{lanes};
    int64_t const index = static_cast<int64_t>(blockIdx.x) * (kWeighThreads / lanes) + threadIdx.x / lanes;
    if (index >= all)
    {
        return;
    }
    int64_t const row = index / span.count;
    int64_t const token = span.at(row, static_cast<int>(index % span.count));
    auto const* const packs = reinterpret_cast<Pack<T, W> const*>(metric + token * features);
    float sum = 0.0F;
    for (int c = static_cast<int>(group.lane); c < features / W; c += static_cast<int>(lanes))
    {
        Pack<T, W> const pack = packs[c];
#pragma unroll
        for (int e = 0; e < W; ++e)
        {
            float const value = toFloat(pack.value[e]);
            sum += value <= 0.0F ? 0.0F : value;  // a NaN stays one
        }
    }
    sum = group.sum(sum);
    if (group.lane == 0)
    {
        sums[index] = sum;
        if (isfinite(sum) && size[token] != 0.0F)
        {
            atomicMax(&largest[row], __float_as_uint(sum));
        }
    }
}

// R9.2, R9.3. Grid: threads over batch * count = all. rank [batch, count], integers of the order of importance.
__global__ void __launch_bounds__(kImportanceThreads) rankImportance(float const* __restrict__ size,
    float const* __restrict__ sums, unsigned const* __restrict__ largest, unsigned* __restrict__ rank, Span span,
    int64_t all)
{
    int64_t const index = static_cast<int64_t>(blockIdx.x) * kImportanceThreads + threadIdx.x;
    if (index >= all)
    {
        return;
    }
    int64_t const row = index / span.count;
    float const most = __uint_as_float(largest[row]);
    float weight = most == 0.0F ? 0.0F : rintf(sums[index] / most * kSteps);
    weight = isfinite(sums[index]) ? weight : -kSteps;
    bool const padding = size[span.at(row, static_cast<int>(index % span.count))] == 0.0F;
    rank[index] = orderedKey(padding ? -2.0F * kSteps : weight);
}

// R9.7: whether the one of this turn, from 0, is pruned.
__device__ __forceinline__ bool pruned(Share const& share, int turn)
{
    int64_t const from = turn;
    return (from + 1) * share.num / share.den > from * share.num / share.den;
}

// R9.6, R9.7. Grid: one block a row. best [batch, countA, splits]; keys [batch, count] where count > kKeysOnChip. weight
// and residual [batch, tokens] are set where a token goes; residual is null where x is one branch.
template <typename Index>
__global__ void __launch_bounds__(kSelectThreads) placeLinks(float const* __restrict__ size,
    unsigned long long const* __restrict__ best, unsigned* keysOffChip, float* weight, float* residual, int* into,
    Slot* slots, Index* kept, Index* target, Span span, Lists lists, Pruning pruning, int left, int splits)
{
    auto& shared = *reinterpret_cast<SelectShared*>(dynamicShared);
    int64_t const row = blockIdx.x;
    int const t = static_cast<int>(threadIdx.x);
    int const threads = static_cast<int>(blockDim.x);
    int const tokens = static_cast<int>(span.tokens);
    int const removed = tokens - left;
    unsigned* const keys = span.count <= kKeysOnChip ? shared.keys : keysOffChip + row * span.count;
    size += row * span.tokens;
    best += row * lists.countA * splits;
    into += row * span.tokens;
    for (int n = t; n < tokens; n += threads)
    {
        into[n] = -1;
    }
    for (int u = t; u < span.count; u += threads)
    {
        keys[u] = 0;  // no link: that of a b
    }
    __syncthreads();  // none goes
    for (int i = t; i < lists.countA; i += threads)
    {
        int const a = lists.a(row, span, i);
        unsigned long long const found = bestOf(best, splits, i);
        keys[a] = size[span.first + a] == 0.0F ? orderedKey(kRankPadding) : static_cast<unsigned>(found >> 32);
        into[span.first + a] = span.first + named(found);
    }
    __syncthreads();  // all links are there
    Worst const worst = findWorst(shared, keys, span.count, removed);
    Passed passed;
    for (int base = 0; base < span.count; base += threads)
    {
        int const u = base + t;
        bool const inside = u < span.count;
        Chosen const chosen = choose(shared, inside, inside ? keys[u] : 0, worst, passed);
        if (inside && chosen.merges)
        {
            int64_t const n = span.first + u;
            weight[row * span.tokens + n] = pruned(pruning.pruned, chosen.before) ? 0.0F : size[n];
            if (residual != nullptr)
            {
                residual[row * span.tokens + n] = pruned(pruning.residual, chosen.before) ? 0.0F : size[n];
            }
        }
        else if (inside)
        {
            into[span.first + u] = -1;
        }
        __syncthreads();  // counts are read
    }
    placeRow(shared.better, into, slots + row * left, kept + row * left, target + row * span.tokens, tokens);
}

// R9.9, instead of combineTokens: x and metric [batch, tokens, features]. Grid: groups of lanes over batch * left.
template <typename T, typename M>
__global__ void __launch_bounds__(kCombineThreads, kBranchBlocks) combineBranches(T const* __restrict__ x,
    M const* __restrict__ metric, float const* __restrict__ size, float const* __restrict__ weight,
    float const* __restrict__ residual, int const* __restrict__ into, Slot const* __restrict__ slots,
    T* __restrict__ y, float* __restrict__ sizeOut, Layout layout, int64_t batch, int features, unsigned lanes)
{
    Group const group{lanes};
    int64_t const index = static_cast<int64_t>(blockIdx.x) * (kCombineThreads / lanes) + threadIdx.x / lanes;
    if (index >= batch * layout.left)
    {
        return;
    }
    int64_t const row = index / layout.left;
    int const place = static_cast<int>(index % layout.left);
    Slot const slot = slots[row * layout.left + place];
    into += row * layout.tokens;
    size += row * layout.tokens;
    weight += row * layout.tokens;
    residual += row * layout.tokens;
    x += row * layout.tokens * features;
    metric += row * layout.tokens * features;
    float const own = size[slot.token];
    float all = own;
    float hidden = own;
    float rest = own;
    forEachMember(group, slot, into, place,
        [&](int n)
        {
            all += size[n];
            hidden += weight[n];
            rest += residual[n];
        });
    if (group.lane == 0)
    {
        sizeOut[index] = all;
    }
    bool const hiddenChanged = hidden > own;
    bool const restChanged = rest > own;
    for (int base = 0; base < features; base += static_cast<int>(lanes))
    {
        int const c = base + static_cast<int>(group.lane);
        bool const inside = c < features;
        int64_t const at = static_cast<int64_t>(slot.token) * features + c;
        T result{};
        float ownHidden = 0.0F;
        float ownRest = 0.0F;
        if (inside)
        {
            result = x[at];
            ownHidden = toFloat(metric[at]);
            ownRest = toFloat(result) - ownHidden;
        }
        if (hiddenChanged || restChanged)
        {
            // Padding is left out, not multiplied by 0: it may hold NaN.
            float hiddenSum = !hiddenChanged ? ownHidden : own > 0.0F ? ownHidden * (own / hidden) : 0.0F;
            float restSum = !restChanged ? ownRest : own > 0.0F ? ownRest * (own / rest) : 0.0F;
            forEachMember(group, slot, into, place,
                [&](int n)
                {
                    if (!inside)
                    {
                        return;
                    }
                    int64_t const from = static_cast<int64_t>(n) * features + c;
                    float const value = toFloat(metric[from]);
                    if (weight[n] > 0.0F)
                    {
                        hiddenSum += value * (weight[n] / hidden);
                    }
                    if (residual[n] > 0.0F)
                    {
                        restSum += (toFloat(x[from]) - value) * (residual[n] / rest);
                    }
                });
            result = fromFloat<T>(restSum + hiddenSum);
        }
        if (inside)
        {
            y[index * features + c] = result;
        }
    }
}

}  // namespace tsmerge
