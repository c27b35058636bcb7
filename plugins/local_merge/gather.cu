// Launches of copies by index.
#include "gather.h"

#include "gather.cuh"
#include "launch.cuh"

namespace tsmerge
{
namespace
{

template <typename Word>
cudaError_t launchTokens(TokenCopies const& copies, cudaStream_t stream)
{
    int64_t const words = copies.tokenBytes / static_cast<int64_t>(sizeof(Word));
    unsigned const lanes = lanesFor(words);
    int64_t const perBlock = kGatherThreads / lanes;
    int64_t const count = copies.batch * copies.tokens;
    return launch(&gatherTokens<Word>, (count + perBlock - 1) / perBlock, kGatherThreads, 0, stream,
        static_cast<Word const*>(copies.y), copies.target, static_cast<Word*>(copies.z), count, copies.tokens,
        copies.left, words, lanes);
}

template <typename Word, int W>
cudaError_t launchPacks(PairCopies const& copies, cudaStream_t stream)
{
    int64_t const tiles = (copies.left + kPairThreads - 1) / kPairThreads;
    return launch(&gatherPairs<Word, W>, copies.batch * copies.left * tiles, kPairThreads, 0, stream,
        static_cast<Word const*>(copies.plane), copies.kept, static_cast<Word*>(copies.z), copies.rows, copies.heads,
        copies.left, copies.stride, copies.offset);
}

template <typename Word>
cudaError_t launchWords(PairCopies const& copies, cudaStream_t stream)
{
    return wholePacks(copies.plane, copies.heads, sizeof(Word)) ? launchPacks<Word, kPackWidth<Word>>(copies, stream)
                                                                : launchPacks<Word, 1>(copies, stream);
}

}  // namespace

cudaError_t launchUnmerge(TokenCopies const& copies, cudaStream_t stream) noexcept
{
    if (copies.batch <= 0 || copies.tokens <= 0 || copies.tokenBytes <= 0)
    {
        return cudaSuccess;
    }
    auto const apart = reinterpret_cast<uintptr_t>(copies.y) | reinterpret_cast<uintptr_t>(copies.z)
        | static_cast<uintptr_t>(copies.tokenBytes);
    return apart % 16 == 0 ? launchTokens<Wide>(copies, stream)
        : apart % 8 == 0   ? launchTokens<uint64_t>(copies, stream)
        : apart % 4 == 0   ? launchTokens<uint32_t>(copies, stream)
        : apart % 2 == 0   ? launchTokens<uint16_t>(copies, stream)
                           : launchTokens<uint8_t>(copies, stream);
}

cudaError_t launchPairs(PairCopies const& copies, cudaStream_t stream) noexcept
{
    if (copies.batch <= 0 || copies.heads <= 0 || copies.left <= 0)
    {
        return cudaSuccess;
    }
    if (copies.heads > INT_MAX || copies.left > INT_MAX)
    {
        return cudaErrorInvalidValue;
    }
    switch (copies.elementBytes)
    {
    case 1: return launchWords<uint8_t>(copies, stream);
    case 2: return launchWords<uint16_t>(copies, stream);
    case 4: return launchWords<uint32_t>(copies, stream);
    case 8: return launchWords<uint64_t>(copies, stream);
    default: return cudaErrorInvalidValue;
    }
}

}  // namespace tsmerge
