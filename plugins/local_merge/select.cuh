// Next launch: the r best a's of every row, the lowest of equals (R4.3), and where every token goes. One block a row.
#pragma once

#include "kernels.cuh"

#include <climits>

namespace tsmerge
{

constexpr int kSelectThreads = 1024;  // at most
constexpr int kCountThreads = 256;
constexpr int kBins = 256;
constexpr int kKeysOnChip = 8192;  // longer rows keep their keys in the workspace

// What goes into one output token.
struct Slot
{
    int token;  // the input token that stands there
    int first;  // first and last of the a's that are merged into it; first > last: none
    int last;
};

struct SelectShared
{
    unsigned histogram[kBins];
    unsigned better[kWarp];  // per warp
    unsigned tied[kWarp];
    unsigned digit;
    unsigned room;
    unsigned keys[1];  // countA of them, up to kKeysOnChip
};

// One step of a radix select, by the first warp: the digit of the removed-th greatest key, greatest digit first, and
// how many keys of that digit are still wanted.
__device__ __forceinline__ void findDigit(SelectShared& shared, unsigned wanted)
{
    constexpr unsigned each = kBins / kWarp;
    unsigned const lane = threadIdx.x;
    unsigned const top = kBins - 1 - lane * each;
    unsigned own = 0;
    for (unsigned q = 0; q < each; ++q)
    {
        own += shared.histogram[top - q];
    }
    unsigned upTo = own;
    for (unsigned step = 1; step < kWarp; step *= 2)
    {
        unsigned const other = __shfl_up_sync(kWholeWarp, upTo, step);
        upTo += lane >= step ? other : 0;
    }
    unsigned above = upTo - own;
    if (above >= wanted || upTo < wanted)
    {
        return;
    }
    for (unsigned q = 0; q < each; ++q)
    {
        unsigned const count = shared.histogram[top - q];
        if (above + count >= wanted)
        {
            shared.digit = top - q;
            shared.room = wanted - above;
            return;
        }
        above += count;
    }
}

// The key of a_i in a row: of its best candidate, or that of padding. size and best are those of the row.
__device__ __forceinline__ unsigned long long keyed(
    float const* size, unsigned long long const* best, Layout const& layout, int splits, int i)
{
    unsigned long long found = 0;
    for (int s = 0; s < splits; ++s)
    {
        found = greater(found, best[static_cast<int64_t>(i) * splits + s]);
    }
    if (found != 0 && size[layout.first + 2 * static_cast<int64_t>(i)] == 0.0F)
    {
        found = (static_cast<unsigned long long>(orderedKey(kRankPadding)) << 32) | (found & 0xffffffffU);
    }
    return found;
}

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

// best [batch, countA, splits]; keys [batch, countA] where that countA > kKeysOnChip; into [batch, countA] becomes the
// output slot of every merged a and -1 for others; slots [batch, left]; kept [batch, left]; target [batch, tokens].
template <typename Index>
__global__ void __launch_bounds__(kSelectThreads) selectBest(float const* __restrict__ size,
    unsigned long long const* __restrict__ best, unsigned* keysOffChip, int* into, Slot* slots, Index* kept,
    Index* target, Layout layout, int splits)
{
    auto& shared = *reinterpret_cast<SelectShared*>(dynamicShared);
    int64_t const row = blockIdx.x;
    int const t = static_cast<int>(threadIdx.x);
    int const threads = static_cast<int>(blockDim.x);
    int const free = layout.free(row);
    int const countA = (free + 1) / 2;
    int const removed = layout.removed(row);
    unsigned* const keys = layout.countA <= kKeysOnChip ? shared.keys : keysOffChip + row * layout.countA;
    size += row * layout.tokens;
    best += row * layout.countA * splits;
    into += row * layout.countA;
    slots += row * layout.left;
    kept += row * layout.left;
    target += row * layout.tokens;

    // An a belongs to the same thread from here to the end.
    for (int i = t; i < countA; i += threads)
    {
        unsigned long long const found = keyed(size, best, layout, splits, i);
        keys[i] = static_cast<unsigned>(found >> 32);
        into[i] = static_cast<int>(0xffffffffU - static_cast<unsigned>(found));
    }

    // The worst key that is still merged, and how many of those that equal it: eight bits a step.
    unsigned worst = removed == 0 ? 0xffffffffU : 0;  // no key is above that one
    auto room = static_cast<unsigned>(removed);
    for (int shift = 24; shift >= 0 && removed > 0; shift -= 8)
    {
        for (int bin = t; bin < kBins; bin += threads)
        {
            shared.histogram[bin] = 0;
        }
        __syncthreads();  // bins are empty
        for (int i = t; i < countA; i += threads)
        {
            if (shift == 24 || keys[i] >> (shift + 8) == worst >> (shift + 8))
            {
                atomicAdd(&shared.histogram[keys[i] >> shift & (kBins - 1)], 1U);
            }
        }
        __syncthreads();  // bins are full
        if (t < static_cast<int>(kWarp))
        {
            findDigit(shared, room);
        }
        __syncthreads();  // the digit is found, bins are read
        worst |= shared.digit << shift;
        room = shared.room;
    }

    // Places: every token's old place less the merged a's in front of it. Of those that tie, the first `room`.
    unsigned betterBefore = 0;
    unsigned tiedBefore = 0;
    for (int base = 0; base < countA; base += threads)
    {
        int const i = base + t;
        bool const better = i < countA && keys[i] > worst;
        bool const tied = i < countA && keys[i] == worst;
        unsigned const betterLanes = __ballot_sync(kWholeWarp, better);
        unsigned const tiedLanes = __ballot_sync(kWholeWarp, tied);
        unsigned const warp = threadIdx.x / kWarp;
        if (threadIdx.x % kWarp == 0)
        {
            shared.better[warp] = __popc(betterLanes);
            shared.tied[warp] = __popc(tiedLanes);
        }
        __syncthreads();  // counts of all warps
        unsigned const lower = (1U << threadIdx.x % kWarp) - 1U;
        unsigned betterHere = betterBefore + __popc(betterLanes & lower);
        unsigned tiedHere = tiedBefore + __popc(tiedLanes & lower);
        for (unsigned w = 0; w < static_cast<unsigned>(threads) / kWarp; ++w)
        {
            betterHere += w < warp ? shared.better[w] : 0;
            tiedHere += w < warp ? shared.tied[w] : 0;
            betterBefore += shared.better[w];
            tiedBefore += shared.tied[w];
        }
        if (i < countA)
        {
            bool const merges = better || (tied && tiedHere < room);
            int const a = layout.first + 2 * i;
            int const place = a - static_cast<int>(betterHere + (tiedHere < room ? tiedHere : room));
            if (!merges)
            {
                into[i] = -1;
                kept[place] = static_cast<Index>(a);
                target[a] = static_cast<Index>(place);
                slots[place] = Slot{a, INT_MAX, -1};
            }
            if (i < free / 2)
            {
                int const placeB = merges ? place : place + 1;
                kept[placeB] = static_cast<Index>(a + 1);
                target[a + 1] = static_cast<Index>(placeB);
                slots[placeB] = Slot{a + 1, INT_MAX, -1};
            }
        }
        __syncthreads();  // counts are read; after the last turn: places are there
    }

    // Merged a's follow their b. Several may go into one: integer minimum and maximum, the same in any order.
    for (int i = t; i < countA; i += threads)
    {
        if (into[i] >= 0)
        {
            Index const place = target[layout.first + 2 * static_cast<int64_t>(into[i]) + 1];
            // Causal: a's slot is read from the last survivor before it.
            target[layout.first + 2 * static_cast<int64_t>(i)] = place - (layout.causal ? 1 : 0);
            into[i] = static_cast<int>(place);
            atomicMin(&slots[place].first, i);
            atomicMax(&slots[place].last, i);
        }
    }

    // Protected tokens stay; between those, of padding that was set aside what there is room for: R7.9, R7.10.
    int const aside = layout.first + free;
    int const end = layout.first + layout.unprotected();
    int const behind = layout.behind();
    for (int n = t; n < static_cast<int>(layout.tokens) - free; n += threads)
    {
        int const token = n < layout.first ? n : n + free;
        int const place = token < layout.first ? token : token < end ? token - removed : behind + token - end;
        if (token >= aside && token < end && place >= behind)
        {
            target[token] = static_cast<Index>(behind > 0 ? behind - 1 : 0);
            continue;
        }
        kept[place] = static_cast<Index>(token);
        target[token] = static_cast<Index>(place);
        slots[place] = Slot{token, INT_MAX, -1};
    }
    // What is still free there holds copies of the token before: of the last one set aside, or of the last that merging left.
    int const filled = layout.filled(row);
    for (int place = filled + t; place < behind; place += threads)
    {
        kept[place] = aside < end ? static_cast<Index>(end - 1) : kept[filled - 1];
    }
}

}  // namespace tsmerge
