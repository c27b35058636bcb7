// Last launch: every output token gathers its members (R6.3, R6.5). x is read once, y is written once.
#pragma once

#include "kernels.cuh"
#include "select.cuh"

namespace tsmerge
{

constexpr unsigned kCombineThreads = 128;
constexpr int kCombineBlocks = 8;  // on a multiprocessor: leaves 64 registers a thread, so that nothing spills

// Calls visit(i) for every a in `into` whose slot is `place`, ascending, all lanes of the group together.
template <typename Visit>
__device__ __forceinline__ void forEachMember(
    Group const& group, Slot const& slot, int const* into, int place, Visit visit)
{
    if (slot.first > slot.last)
    {
        return;
    }
    visit(slot.first);
    for (int base = slot.first + 1; base < slot.last; base += static_cast<int>(group.width))
    {
        int const i = base + static_cast<int>(group.lane);
        for (unsigned hits = group.ballot(i < slot.last && into[i] == place); hits != 0; hits &= hits - 1)
        {
            visit(base + __ffs(static_cast<int>(hits)) - 1);
        }
    }
    if (slot.last > slot.first)
    {
        visit(slot.last);
    }
}

// Grid: groups of lanes over batch * left. y [batch, left, features], sizeOut [batch, left]. With kPrunes members count
// weight [batch, tokens] in y, 0 if they are pruned, and their size in sizeOut; weight has numbers where a's are merged.
template <typename T, int W, bool kPrunes>
__global__ void __launch_bounds__(kCombineThreads, kCombineBlocks) combineTokens(T const* __restrict__ x,
    float const* __restrict__ size, float const* __restrict__ weight, int const* __restrict__ into,
    Slot const* __restrict__ slots, T* __restrict__ y, float* __restrict__ sizeOut, Layout layout, int64_t batch, int features, unsigned lanes)
{
    Group const group{lanes};
    int64_t const index = static_cast<int64_t>(blockIdx.x) * (kCombineThreads / lanes) + threadIdx.x / lanes;
    if (index >= batch * layout.left)
    {
        return;
    }
    int64_t const row = index / layout.left;
    int place = static_cast<int>(index % layout.left);
    // Copies of the token before, R7.9: what is merged into it, and no size.
    int const filled = layout.filled(row);
    bool const copied = place >= filled && place < layout.behind();
    place = copied ? filled - 1 : place;
    Slot const slot = slots[row * layout.left + place];
    into += row * layout.countA;
    size += row * layout.tokens;
    x += row * layout.tokens * features;
    float const own = size[slot.token];
    float const* const counts = kPrunes ? weight + row * layout.tokens : size;
    float all = own;
    float counted = own;
    forEachMember(group, slot, into, place,
        [&](int i)
        {
            all += size[layout.tokenOf(i)];
            if (kPrunes)
            {
                counted += counts[layout.tokenOf(i)];
            }
        });
    float const total = kPrunes ? counted : all;
    if (group.lane == 0)
    {
        sizeOut[index] = copied ? 0.0F : all;
    }
    using P = Pack<T, W>;
    int const packs = features / W;
    auto const* const source = reinterpret_cast<P const*>(x + static_cast<int64_t>(slot.token) * features);
    auto* const destination = reinterpret_cast<P*>(y + index * features);
    bool const received = total > own;  // else its own bits, whatever they are
    for (int base = 0; base < packs; base += static_cast<int>(lanes))
    {
        int const c = base + static_cast<int>(group.lane);
        bool const inside = c < packs;
        P result{};
        if (inside)
        {
            result = source[c];
        }
        if (received)
        {
            float sum[W] = {};
            auto const add = [&](P const& pack, float weight)
            {
#pragma unroll
                for (int e = 0; e < W; ++e)
                {
                    sum[e] += toFloat(pack.value[e]) * weight;
                }
            };
            if (own > 0.0F)  // padding is left out, not multiplied by 0: it may hold NaN
            {
                add(result, own / total);
            }
            forEachMember(group, slot, into, place,
                [&](int i)
                {
                    int64_t const token = layout.tokenOf(i);
                    if (inside && counts[token] > 0.0F)
                    {
                        add(reinterpret_cast<P const*>(x + token * features)[c], counts[token] / total);
                    }
                });
#pragma unroll
            for (int e = 0; e < W; ++e)
            {
                result.value[e] = fromFloat<T>(sum[e]);
            }
        }
        if (inside)
        {
            destination[c] = result;
        }
    }
}

}  // namespace tsmerge
