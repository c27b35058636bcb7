// A CUDA small enough to read, for running kernels on the CPU: this folder in front of the include path turns a .cu file
// into plain C++. One fiber per thread, blocks one after another. A fiber runs until it meets others (a barrier, a
// shuffle, a ballot); who runs next is random (emulation::setSeed), so a missing barrier shows as a wrong result. Shared
// memory holds rubbish when a block starts. What it does not show: the memory model beyond that order, and speed.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __shared__
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)

struct dim3
{
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1)
        : x{x_}
        , y{y_}
        , z{z_}
    {
    }
};

struct alignas(16) float4
{
    float x, y, z, w;
};

enum cudaError_t
{
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorInvalidConfiguration = 9,
};

struct CUstream_st;
using cudaStream_t = CUstream_st*;
struct CUevent_st;
using cudaEvent_t = CUevent_st*;

struct cudaLaunchConfig_t
{
    dim3 gridDim;
    dim3 blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
};

inline char const* cudaGetErrorString(cudaError_t error)
{
    return error == cudaSuccess ? "no error" : "invalid argument";
}

extern dim3 threadIdx;
extern dim3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;

namespace emulation
{

void setSeed(uint64_t seed);
int launches();  // kernels launched so far

cudaError_t run(cudaLaunchConfig_t const& config, std::function<void()> const& thread);
void barrier();
// Waits for all lanes of the mask; returns the values that they brought, by lane.
uint64_t const* meet(unsigned mask, uint64_t value, char const* what);
unsigned lane();

template <typename T>
uint64_t pack(T value)
{
    uint64_t bits = 0;
    static_assert(sizeof(T) <= sizeof(bits));
    std::memcpy(&bits, &value, sizeof(T));
    return bits;
}

template <typename T>
T unpack(uint64_t bits)
{
    T value;
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}

}  // namespace emulation

template <typename... Parameters, typename... Given>
cudaError_t cudaLaunchKernelEx(cudaLaunchConfig_t const* config, void (*kernel)(Parameters...), Given... given)
{
    return emulation::run(*config, [=] { kernel(given...); });
}

inline void __syncthreads()
{
    emulation::barrier();
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, unsigned step)
{
    return emulation::unpack<T>(emulation::meet(mask, emulation::pack(value), "shfl_xor")[emulation::lane() ^ step]);
}

template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned step)
{
    unsigned const lane = emulation::lane();
    return emulation::unpack<T>(
        emulation::meet(mask, emulation::pack(value), "shfl_up")[lane < step ? lane : lane - step]);
}

inline unsigned __ballot_sync(unsigned mask, bool value)
{
    uint64_t const* const values = emulation::meet(mask, value ? 1 : 0, "ballot");
    unsigned result = 0;
    for (unsigned lane = 0; lane < 32; ++lane)
    {
        result |= (mask >> lane & 1U) != 0 && values[lane] != 0 ? 1U << lane : 0U;
    }
    return result;
}

inline cudaError_t cudaMemsetAsync(void* where, int value, size_t bytes, cudaStream_t)
{
    std::memset(where, value, bytes);
    return cudaSuccess;
}

enum cudaMemcpyKind
{
    cudaMemcpyDeviceToHost = 2,
    cudaMemcpyDeviceToDevice = 3,
};

inline cudaError_t cudaMemcpyAsync(void* to, void const* from, size_t bytes, cudaMemcpyKind, cudaStream_t)
{
    std::memcpy(to, from, bytes);
    return cudaSuccess;
}

inline cudaError_t cudaStreamSynchronize(cudaStream_t)
{
    return cudaSuccess;
}

inline int __popc(unsigned value)
{
    return __builtin_popcount(value);
}

inline int __ffs(int value)
{
    return __builtin_ffs(value);
}

inline unsigned __float_as_uint(float value)
{
    return static_cast<unsigned>(emulation::pack(value));
}

inline float __uint_as_float(unsigned value)
{
    return emulation::unpack<float>(value);
}

// Fibers do not interrupt each other, so plain code is atomic.
template <typename T>
T atomicAdd(T* where, T value)
{
    T const old = *where;
    *where += value;
    return old;
}

inline int atomicMin(int* where, int value)
{
    int const old = *where;
    *where = value < old ? value : old;
    return old;
}

template <typename T>
T atomicMax(T* where, T value)
{
    T const old = *where;
    *where = value > old ? value : old;
    return old;
}

using std::isfinite;
using std::isnan;
