// What the kernels share: element types, 16-byte packs, ranks as ordered integers.
#pragma once

#include "settings.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

extern __shared__ __align__(16) unsigned char dynamicShared[];

namespace tsmerge
{

constexpr unsigned kWarp = 32;
constexpr unsigned kWholeWarp = 0xffffffffU;

__device__ __forceinline__ float toFloat(float value)
{
    return value;
}
__device__ __forceinline__ float toFloat(__half value)
{
    return __half2float(value);
}
__device__ __forceinline__ float toFloat(__nv_bfloat16 value)
{
    return __bfloat162float(value);
}

template <typename T>
__device__ __forceinline__ T fromFloat(float value);
template <>
__device__ __forceinline__ float fromFloat<float>(float value)
{
    return value;
}
template <>
__device__ __forceinline__ __half fromFloat<__half>(float value)
{
    return __float2half(value);
}
template <>
__device__ __forceinline__ __nv_bfloat16 fromFloat<__nv_bfloat16>(float value)
{
    return __float2bfloat16(value);
}

// W elements, loaded and stored as one word of up to 16 bytes.
template <typename T, int W>
struct __align__(sizeof(T) * W) Pack
{
    T value[W];
};

template <typename T>
constexpr int kPackWidth = 16 / static_cast<int>(sizeof(T));

// Where the unprotected tokens are: a_i is token first + 2i, b_j is token first + 2j + 1. Methods that pair tokens otherwise
// let every token be an a: first = 0 and step = 1.
struct Layout
{
    int64_t tokens;
    int left;  // in the outputs; what rows have beyond their own is padding, R7.9
    int first;
    int countA;  // at most: rows of tables have so many entries
    int countB;
    int step{2};  // a_i is token first + step * i
    int k;  // 0: all
    Similarity similarity;
    bool causal;
    int const* freeOf;     // [batch]: so many of a row's unprotected tokens take part, the first ones; null: all
    int const* removedOf;  // [batch]: so many of them go; null: as many as make the outputs shorter

    __device__ __forceinline__ int64_t tokenOf(int i) const
    {
        return first + static_cast<int64_t>(step) * i;
    }
    __device__ __forceinline__ int unprotected() const
    {
        return countA + countB;
    }
    __device__ __forceinline__ int free(int64_t row) const
    {
        return freeOf == nullptr ? unprotected() : freeOf[row];
    }
    __device__ __forceinline__ int removed(int64_t row) const
    {
        return removedOf == nullptr ? static_cast<int>(tokens) - left : removedOf[row];
    }
    // The slot of the first token that is protected at the end.
    __device__ __forceinline__ int behind() const
    {
        return left - (static_cast<int>(tokens) - first - unprotected());
    }
    // In front of it, the first slot that no token of the row fills.
    __device__ __forceinline__ int filled(int64_t row) const
    {
        int const stay = first + unprotected() - removed(row);
        return stay < behind() ? stay : behind();
    }
};

// A float as an integer of the same order; 0 is below every number.
__device__ __forceinline__ unsigned orderedKey(float value)
{
    unsigned const bits = __float_as_uint(value);
    return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

// R3.1 to R3.7, and NaN of R4.1. The rank of a pair from its dot product and the squares of both norms; largest is the row's S, for l2 and dot.
__device__ __forceinline__ float rankOf(
    Similarity similarity, float dot, float squareA, float squareB, float largest)
{
    float steps;
    if (similarity == Similarity::kCosine)
    {
        float const scale = sqrtf(squareA) * sqrtf(squareB);
        float const cosine = scale == 0.0F ? 0.0F : dot / scale;
        steps = rintf(cosine * kSteps) + 0.0F;  // -0 becomes +0: they tie
    }
    else
    {
        if (!isfinite(squareA) || !isfinite(squareB))
        {
            return kRankNan;
        }
        bool const l2 = similarity == Similarity::kL2;
        float const numerator = l2 ? dot - 0.5F * squareA - 0.5F * squareB : dot;
        float const share = largest == 0.0F ? 0.0F : numerator / largest;
        steps = rintf((l2 ? 1.0F + share : share) * kSteps) + 0.0F;
        // Padding may be larger than S. Not fmin and fmax: they lose a NaN.
        steps = steps < -kSteps ? -kSteps : steps > kSteps ? kSteps : steps;
    }
    return isnan(steps) ? kRankNan : steps;
}

// A candidate as one integer: the greatest is the best rank and, of equal ranks, the lowest j. 0 is no candidate.
__device__ __forceinline__ unsigned long long candidate(float rank, int j)
{
    return (static_cast<unsigned long long>(orderedKey(rank)) << 32) | (0xffffffffU - static_cast<unsigned>(j));
}

__device__ __forceinline__ unsigned long long greater(unsigned long long one, unsigned long long other)
{
    return one < other ? other : one;
}

// Lanes that work on one token together: `width` neighbours of a warp, a power of two.
struct Group
{
    unsigned width;
    unsigned lane;  // within the group
    unsigned mask;  // of the group within its warp

    __device__ __forceinline__ explicit Group(unsigned lanes)
        : width{lanes}
        , lane{threadIdx.x % lanes}
        , mask{lanes == kWarp ? kWholeWarp : ((1U << lanes) - 1U) << (threadIdx.x % kWarp / lanes * lanes)}
    {
    }

    __device__ __forceinline__ float sum(float value) const
    {
        for (unsigned step = width / 2; step > 0; step /= 2)
        {
            value += __shfl_xor_sync(mask, value, step);
        }
        return value;
    }

    // Which lanes of the group hold true; bit 0 is its first lane.
    __device__ __forceinline__ unsigned ballot(bool value) const
    {
        return (__ballot_sync(mask, value) & mask) >> (threadIdx.x % kWarp / width * width);
    }
};

}  // namespace tsmerge
