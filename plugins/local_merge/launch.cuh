// How kernels are launched.
#pragma once

#include "combine.cuh"
#include "kernels.cuh"
#include "local_merge.h"
#include "tiles.cuh"

#include <algorithm>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace tsmerge
{

constexpr int64_t kTargetBlocks = 256;  // tiles split their b's until there are so many blocks
constexpr int64_t kSplitsMost = 16;
constexpr int64_t kTokensMost = 1 << 30;

inline size_t aligned(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

// To how many blocks the b's of a tile are shared out: there are `tiles` of them, and `reach` b's for each.
inline int64_t splitsOf(int64_t tiles, int64_t reach)
{
    int64_t const tilesB = (reach + kTileB - 1) / kTileB;
    int64_t const wanted = (kTargetBlocks + tiles - 1) / std::max<int64_t>(1, tiles);
    return std::max<int64_t>(1, std::min({wanted, tilesB, kSplitsMost}));
}

// Whether there is nothing to do, or sizes are beyond what the kernels count with: then status says so.
inline bool settled(Problem const& problem, cudaError_t& status)
{
    status = cudaSuccess;
    if (problem.batch <= 0 || problem.tokens <= 0)
    {
        return true;
    }
    if (problem.tokens > kTokensMost || problem.metricFeatures < 1 || problem.features < 1
        || problem.metricFeatures > INT_MAX || problem.features > INT_MAX)
    {
        status = cudaErrorInvalidValue;
        return true;
    }
    return false;
}

// Calls visit with a null pointer of the element type.
template <typename Visit>
cudaError_t withType(Element type, Visit visit)
{
    switch (type)
    {
    case Element::kFLOAT32: return visit(static_cast<float*>(nullptr));
    case Element::kFLOAT16: return visit(static_cast<__half*>(nullptr));
    case Element::kBFLOAT16: return visit(static_cast<__nv_bfloat16*>(nullptr));
    }
    return cudaErrorInvalidValue;
}

// Lanes for a row of so many packs: a power of two up to a warp.
inline unsigned lanesFor(int64_t packs)
{
    unsigned lanes = 1;
    while (lanes < kWarp && static_cast<int64_t>(lanes) < packs)
    {
        lanes *= 2;
    }
    return lanes;
}

inline bool wholePacks(void const* pointer, int64_t features, size_t elementBytes)
{
    return reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && static_cast<size_t>(features) * elementBytes % 16 == 0;
}

template <typename... Arguments, typename... Given>
cudaError_t launch(void (*kernel)(Arguments...), int64_t blocks, int64_t threads, size_t sharedBytes,
    cudaStream_t stream, Given... given)
{
    if (blocks > INT_MAX)
    {
        return cudaErrorInvalidConfiguration;
    }
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(blocks));
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.dynamicSmemBytes = sharedBytes;
    config.stream = stream;
    return cudaLaunchKernelEx(&config, kernel, static_cast<Arguments>(given)...);
}

// The last launch of a merge, see combineTokens.
template <typename T, int W, bool kPrunes>
cudaError_t launchCombineOf(Problem const& problem, Layout const& layout, float const* weight, int const* into,
    Slot const* slots, cudaStream_t stream)
{
    unsigned const lanes = lanesFor(problem.features / W);
    int64_t const perBlock = kCombineThreads / lanes;
    int64_t const blocks = (problem.batch * layout.left + perBlock - 1) / perBlock;
    return launch(&combineTokens<T, W, kPrunes>, blocks, kCombineThreads, 0, stream, static_cast<T const*>(problem.x),
        problem.size, weight, into, slots, static_cast<T*>(problem.y), problem.sizeOut, layout, problem.batch,
        problem.features, lanes);
}

template <bool kPrunes>
cudaError_t launchCombine(Problem const& problem, Layout const& layout, float const* weight, int const* into,
    Slot const* slots, cudaStream_t stream)
{
    return withType(problem.xType,
        [&](auto* type)
        {
            using T = std::remove_pointer_t<decltype(type)>;
            bool const whole = wholePacks(problem.x, problem.features, sizeof(T))
                && wholePacks(problem.y, problem.features, sizeof(T));
            return whole
                ? launchCombineOf<T, kPackWidth<T>, kPrunes>(problem, layout, weight, into, slots, stream)
                : launchCombineOf<T, 1, kPrunes>(problem, layout, weight, into, slots, stream);
        });
}

}  // namespace tsmerge
