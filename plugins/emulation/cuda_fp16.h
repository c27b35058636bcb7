// Stands in for CUDA's header of this name when kernels run on the CPU.
#pragma once

#include <cstdint>
#include <cstring>

struct __half
{
    uint16_t bits;
};

inline float __half2float(__half value)
{
    _Float16 narrow;
    std::memcpy(&narrow, &value, sizeof(narrow));
    return static_cast<float>(narrow);
}

inline __half __float2half(float value)
{
    auto const narrow = static_cast<_Float16>(value);  // to nearest, ties to even
    __half result;
    std::memcpy(&result, &narrow, sizeof(result));
    return result;
}
