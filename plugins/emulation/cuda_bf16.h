// Stands in for CUDA's header of this name when kernels run on the CPU.
#pragma once

#include <cstdint>
#include <cstring>

struct __nv_bfloat16
{
    uint16_t bits;
};

inline float __bfloat162float(__nv_bfloat16 value)
{
    uint32_t const wide = static_cast<uint32_t>(value.bits) << 16;
    float result;
    std::memcpy(&result, &wide, sizeof(result));
    return result;
}

inline __nv_bfloat16 __float2bfloat16(float value)
{
    uint32_t wide;
    std::memcpy(&wide, &value, sizeof(wide));
    if ((wide & 0x7fffffffU) > 0x7f800000U)
    {
        return __nv_bfloat16{0x7fff};
    }
    uint32_t const rounded = wide + 0x7fffU + (wide >> 16 & 1U);  // to nearest, ties to even
    return __nv_bfloat16{static_cast<uint16_t>(rounded >> 16)};
}
