// Times the kernels on a GPU: nvcc -O3 -I plugins/common -I plugins/local_merge timings.cu local_merge.cu -o timings
// Prints, for each problem, the median of 50 merges and what reading x once and writing y once takes at the speed of a copy
// of 1 GiB on the same card.
#include "local_merge.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace
{

void check(cudaError_t status)
{
    if (status != cudaSuccess)
    {
        std::fprintf(stderr, "%s\n", cudaGetErrorString(status));
        std::exit(1);
    }
}

void* allocate(size_t bytes)
{
    void* memory = nullptr;
    check(cudaMalloc(&memory, std::max<size_t>(bytes, 1)));
    return memory;
}

// Pseudo-random values around 0, in any of the types: small integers times a power of two.
__global__ void fill(void* values, int64_t count, tsmerge::Element type)
{
    for (int64_t n = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; n < count;
         n += static_cast<int64_t>(gridDim.x) * blockDim.x)
    {
        uint64_t z = (static_cast<uint64_t>(n) + 1) * 0x9E3779B97F4A7C15ULL;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ULL;
        float const value = static_cast<float>(static_cast<int>(z >> 33 & 255) - 128) / 64.0F;
        switch (type)
        {
        case tsmerge::Element::kFLOAT32: static_cast<float*>(values)[n] = value; break;
        case tsmerge::Element::kFLOAT16: static_cast<unsigned short*>(values)[n] = 0x3000 | (z >> 40 & 0x8fff); break;
        case tsmerge::Element::kBFLOAT16: static_cast<unsigned short*>(values)[n] = 0x3e00 | (z >> 40 & 0x81ff); break;
        }
    }
}

__global__ void ones(float* values, int64_t count)
{
    for (int64_t n = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; n < count;
         n += static_cast<int64_t>(gridDim.x) * blockDim.x)
    {
        values[n] = 1.0F;
    }
}

template <typename Work>
float medianMs(Work work)
{
    cudaEvent_t begin;
    cudaEvent_t end;
    check(cudaEventCreate(&begin));
    check(cudaEventCreate(&end));
    std::vector<float> times;
    for (int turn = 0; turn < 55; ++turn)
    {
        check(cudaEventRecord(begin));
        work();
        check(cudaEventRecord(end));
        check(cudaEventSynchronize(end));
        float ms = 0.0F;
        check(cudaEventElapsedTime(&ms, begin, end));
        if (turn >= 5)
        {
            times.push_back(ms);
        }
    }
    std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
    return times[times.size() / 2];
}

struct Case
{
    int64_t batch, tokens, features, k;
    tsmerge::Element type;
    char const* name;
    tsmerge::Similarity similarity;
};

void time(Case const& c, double bytesPerMs)
{
    tsmerge::Settings settings;
    settings.k = c.k;
    settings.ratioNum = 1;
    settings.ratioDen = 4;
    settings.similarity = c.similarity;
    int64_t const width = c.type == tsmerge::Element::kFLOAT32 ? 4 : 2;
    int64_t const left = c.tokens - tsmerge::removedTokens(settings, c.tokens);
    auto const bytes = [&](int64_t tokens) { return static_cast<size_t>(c.batch * tokens * c.features * width); };
    void* const x = allocate(bytes(c.tokens));
    void* const y = allocate(bytes(left));
    auto* const size = static_cast<float*>(allocate(c.batch * c.tokens * 4));
    auto* const sizeOut = static_cast<float*>(allocate(c.batch * left * 4));
    void* const kept = allocate(c.batch * left * 8);
    void* const target = allocate(c.batch * c.tokens * 8);
    void* const workspace = allocate(tsmerge::workspaceBytes(settings, c.batch, c.tokens));
    fill<<<1024, 256>>>(x, c.batch * c.tokens * c.features, c.type);
    ones<<<1024, 256>>>(size, c.batch * c.tokens);
    tsmerge::Problem const problem{x, x, size, y, sizeOut, kept, target, c.batch, c.tokens, c.features, c.features,
        c.type, c.type, true};
    float const ms
        = medianMs([&] { check(tsmerge::launchLocalMerge(settings, problem, workspace, nullptr)); });
    double const ideal = static_cast<double>(bytes(c.tokens) + bytes(left)) / bytesPerMs;
    std::printf("| %s, %lld x %lld x %lld, k = %lld | %.1f | %.1f | %.2f |\n", c.name,
        static_cast<long long>(c.batch), static_cast<long long>(c.tokens), static_cast<long long>(c.features),
        static_cast<long long>(c.k), 1e3 * ms, 1e3 * ideal, ms / ideal);
    for (void* memory : {x, y, static_cast<void*>(size), static_cast<void*>(sizeOut), kept, target, workspace})
    {
        check(cudaFree(memory));
    }
}

}  // namespace

int main()
{
    using tsmerge::Element;
    using tsmerge::Similarity;
    cudaDeviceProp card{};
    check(cudaGetDeviceProperties(&card, 0));
    constexpr size_t kCopy = size_t{1} << 30;
    void* const from = allocate(kCopy);
    void* const to = allocate(kCopy);
    float const ms = medianMs([&] { check(cudaMemcpyAsync(to, from, kCopy, cudaMemcpyDeviceToDevice)); });
    check(cudaFree(from));
    check(cudaFree(to));
    double const bytesPerMs = 2.0 * kCopy / ms;
    std::printf("%s: a copy of 1 GiB moves %.2f TB/s\n\n", card.name, bytesPerMs / 1e9);
    std::printf("| N/4 of | us | x once and y once, us | ratio |\n|---|---:|---:|---:|\n");
    for (Case const& c : {
             Case{256, 512, 768, 1, Element::kFLOAT16, "fp16", Similarity::kCosine},
             Case{64, 512, 768, 1, Element::kFLOAT32, "fp32", Similarity::kCosine},
             Case{64, 512, 768, 1, Element::kFLOAT32, "fp32, l2", Similarity::kL2},
             Case{8, 512, 768, 1, Element::kFLOAT32, "fp32", Similarity::kCosine},
             Case{1, 512, 768, 1, Element::kFLOAT32, "fp32", Similarity::kCosine},
             Case{1, 65536, 256, 1, Element::kFLOAT16, "fp16", Similarity::kCosine},
             Case{256, 512, 768, 8, Element::kFLOAT16, "fp16", Similarity::kCosine},
             Case{8, 4096, 1024, 0, Element::kFLOAT16, "fp16", Similarity::kCosine},
         })
    {
        time(c, bytesPerMs);
    }
    return 0;
}
