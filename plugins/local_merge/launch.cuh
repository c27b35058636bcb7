// How kernels are launched.
#pragma once

#include "kernels.cuh"

#include <climits>
#include <cstddef>
#include <cstdint>

namespace tsmerge
{

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

}  // namespace tsmerge
