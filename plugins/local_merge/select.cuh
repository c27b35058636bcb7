// Next launch: the r best a's of every row, the lowest of equals (R4.3), and where every token goes. One block a row.
#pragma once

#include "kernels.cuh"

#include <climits>

namespace tsmerge
{

constexpr int kSelectThreads = 1024;  // at most
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

// The worst of the `wanted` greatest keys, and how many of those that equal it are among them.
struct Worst
{
    unsigned key;
    unsigned room;
};

// All threads of the block; a key is read by the thread whose turn i is, i % threads. Eight bits a step.
__device__ __forceinline__ Worst findWorst(SelectShared& shared, unsigned const* keys, int count, int wanted)
{
    int const t = static_cast<int>(threadIdx.x);
    int const threads = static_cast<int>(blockDim.x);
    unsigned worst = wanted == 0 ? 0xffffffffU : 0;  // no key is above that one
    auto room = static_cast<unsigned>(wanted);
    for (int shift = 24; shift >= 0 && wanted > 0; shift -= 8)
    {
        for (int bin = t; bin < kBins; bin += threads)
        {
            shared.histogram[bin] = 0;
        }
        __syncthreads();  // bins are empty
        for (int i = t; i < count; i += threads)
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
    return Worst{worst, room};
}

// How many of the keys in front of a turn are among the greatest: above the worst one, and equal to it.
struct Passed
{
    unsigned better{0};
    unsigned tied{0};
};

// Of one key: whether it is among the greatest, of equals the first, and how many of those are in front of it.
struct Chosen
{
    bool merges;
    int before;
};

// One turn of all threads of a block, a key each, by index; the next one needs a barrier.
__device__ __forceinline__ Chosen choose(
    SelectShared& shared, bool inside, unsigned key, Worst const& worst, Passed& passed)
{
    unsigned const room = worst.room;
    bool const better = inside && key > worst.key;
    bool const tied = inside && key == worst.key;
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
    unsigned betterHere = passed.better + __popc(betterLanes & lower);
    unsigned tiedHere = passed.tied + __popc(tiedLanes & lower);
    for (unsigned w = 0; w < blockDim.x / kWarp; ++w)
    {
        betterHere += w < warp ? shared.better[w] : 0;
        tiedHere += w < warp ? shared.tied[w] : 0;
        passed.better += shared.better[w];
        passed.tied += shared.tied[w];
    }
    bool const merges = better || (tied && tiedHere < room);
    return Chosen{merges, static_cast<int>(betterHere + (tiedHere < room ? tiedHere : room))};
}

// The best candidate of a_i in a row. best is that of the row.
__device__ __forceinline__ unsigned long long bestOf(unsigned long long const* best, int splits, int i)
{
    unsigned long long found = 0;
    for (int s = 0; s < splits; ++s)
    {
        found = greater(found, best[static_cast<int64_t>(i) * splits + s]);
    }
    return found;
}

// The key of a_i in a row: of its best candidate, or that of padding. size and best are those of the row.
__device__ __forceinline__ unsigned long long keyed(
    float const* size, unsigned long long const* best, Layout const& layout, int splits, int i)
{
    unsigned long long found = bestOf(best, splits, i);
    if (found != 0 && size[layout.first + 2 * static_cast<int64_t>(i)] == 0.0F)
    {
        found = (static_cast<unsigned long long>(orderedKey(kRankPadding)) << 32) | (found & 0xffffffffU);
    }
    return found;
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

    Worst const worst = findWorst(shared, keys, countA, removed);

    // Places: every token's old place less the merged a's in front of it.
    Passed passed;
    for (int base = 0; base < countA; base += threads)
    {
        int const i = base + t;
        bool const inside = i < countA;
        Chosen const chosen = choose(shared, inside, inside ? keys[i] : 0, worst, passed);
        if (inside)
        {
            bool const merges = chosen.merges;
            int const a = layout.first + 2 * i;
            int const place = a - chosen.before;
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
