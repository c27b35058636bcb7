// What the operators of this library share: errors of CUDA, the provider's stream, memory of its allocator.
#pragma once

#include "ort.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <memory>
#include <string>

namespace tsmerge
{

inline void check(cudaError_t status, char const* what)
{
    if (status != cudaSuccess)
    {
        throw Ort::Exception(std::string{what} + ": " + cudaGetErrorString(status), ORT_FAIL);
    }
}

// Memory of the provider's own allocator, from where a tensor lies. It goes back when the launches are on the stream:
// what takes it next is behind them on the same stream.
class Scratch
{
public:
    Scratch(Ort::KernelContext const& context, Ort::ConstValue const& beside, size_t bytes)
        : mAllocator{context.GetAllocator(*beside.GetTensorMemoryInfo())}
        , mMemory{mAllocator->Alloc(mAllocator.get(), std::max<size_t>(bytes, 1))}
    {
        if (mMemory == nullptr)
        {
            throw Ort::Exception("no " + std::to_string(bytes) + " bytes of scratch memory", ORT_FAIL);
        }
    }
    Scratch(Scratch const&) = delete;
    Scratch& operator=(Scratch const&) = delete;
    ~Scratch()
    {
        mAllocator->Free(mAllocator.get(), mMemory);
    }

    void* get() const
    {
        return mMemory;
    }

private:
    struct Release
    {
        void operator()(OrtAllocator* allocator) const
        {
            Ort::GetApi().ReleaseAllocator(allocator);
        }
    };
    std::unique_ptr<OrtAllocator, Release> mAllocator;
    void* mMemory;
};

inline cudaStream_t streamOf(Ort::KernelContext const& context)
{
    return static_cast<cudaStream_t>(context.GetGPUComputeStream());
}

}  // namespace tsmerge
