// Runs the kernels for tests: problems on stdin, results on stdout, both as raw arrays. Built with the emulation in front
// of the include path it runs on the CPU; built by nvcc, on the GPU.
//
// A problem is a Header, then x, metric and size. A result is the number of launches as int64 (0 on a GPU, which does not
// count them), then y, sizeOut, kept, target. Buffers are allocated at their exact size and full of rubbish, so that
// AddressSanitizer and compute-sanitizer see every byte beyond, and tests see what is used before it is set.
#include "local_merge.h"

#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

namespace
{

struct Header
{
    int64_t batch, tokens, features, metricFeatures, xType, metricType, wideIndex;
    int64_t seed;    // of the order of threads
    int64_t offset;  // bytes by which the addresses of x, metric and y miss a multiple of 16
    int64_t k, r, ratioNum, ratioDen, minTokens, protectFirst, protectLast, similarity, causal;
    int64_t workspaceBatch, workspaceTokens;  // the workspace is made for these, at least the problem's
};

constexpr int kRubbish = 0xCD;

#ifdef __CUDACC__
void check(cudaError_t status)
{
    if (status != cudaSuccess)
    {
        std::fprintf(stderr, "%s\n", cudaGetErrorString(status));
        std::exit(1);
    }
}
void setSeed(int64_t) {}
int64_t launches()
{
    return 0;
}
#else
void setSeed(int64_t seed)
{
    emulation::setSeed(static_cast<uint64_t>(seed));
}
int64_t launches()
{
    return emulation::launches();
}
#endif

// Memory that kernels see; `from` bytes in front are not used.
class Buffer
{
public:
    Buffer(int64_t bytes, int64_t from = 0)
        : mHost(static_cast<size_t>(from + bytes), kRubbish)
        , mFrom(static_cast<size_t>(from))
    {
#ifdef __CUDACC__
        check(cudaMalloc(&mDevice, mHost.size() + (mHost.empty() ? 1 : 0)));
        check(cudaMemset(mDevice, kRubbish, mHost.size()));
#endif
    }
    Buffer(Buffer const&) = delete;
    Buffer& operator=(Buffer const&) = delete;
    ~Buffer()
    {
#ifdef __CUDACC__
        cudaFree(mDevice);
#endif
    }

    bool read()
    {
        size_t const wanted = mHost.size() - mFrom;
        bool const whole = std::fread(mHost.data() + mFrom, 1, wanted, stdin) == wanted;
#ifdef __CUDACC__
        check(cudaMemcpy(mDevice, mHost.data(), mHost.size(), cudaMemcpyHostToDevice));
#endif
        return whole;
    }

    void write()
    {
#ifdef __CUDACC__
        check(cudaMemcpy(mHost.data(), mDevice, mHost.size(), cudaMemcpyDeviceToHost));
#endif
        std::fwrite(mHost.data() + mFrom, 1, mHost.size() - mFrom, stdout);
    }

    void* get()
    {
#ifdef __CUDACC__
        return static_cast<unsigned char*>(mDevice) + mFrom;
#else
        return mHost.data() + mFrom;
#endif
    }

private:
    std::vector<unsigned char> mHost;
    size_t mFrom;
#ifdef __CUDACC__
    void* mDevice = nullptr;
#endif
};

int64_t bytesOf(int64_t type)
{
    return type == static_cast<int64_t>(tsmerge::Element::kFLOAT32) ? 4 : 2;
}

}  // namespace

int main()
{
    Header h{};
    while (std::fread(&h, sizeof(h), 1, stdin) == 1)
    {
        tsmerge::Settings const settings{h.k, h.r, h.ratioNum, h.ratioDen, h.minTokens, h.protectFirst, h.protectLast,
            static_cast<tsmerge::Similarity>(h.similarity), h.causal != 0};
        int64_t const left = h.tokens - tsmerge::removedTokens(settings, h.tokens);
        int64_t const indexBytes = h.wideIndex != 0 ? 8 : 4;
        Buffer x(h.batch * h.tokens * h.features * bytesOf(h.xType), h.offset);
        Buffer metric(h.batch * h.tokens * h.metricFeatures * bytesOf(h.metricType), h.offset);
        Buffer size(h.batch * h.tokens * 4);
        if (!x.read() || !metric.read() || !size.read())
        {
            std::fprintf(stderr, "the problem is cut off\n");
            return 2;
        }
        Buffer y(h.batch * left * h.features * bytesOf(h.xType), h.offset);
        Buffer sizeOut(h.batch * left * 4);
        Buffer kept(h.batch * left * indexBytes);
        Buffer target(h.batch * h.tokens * indexBytes);
        // Its bytes follow from the largest sizes, as in an engine with a range of shapes.
        Buffer workspace(
            static_cast<int64_t>(tsmerge::workspaceBytes(settings, h.workspaceBatch, h.workspaceTokens)));
        tsmerge::Problem const problem{x.get(), metric.get(), static_cast<float const*>(size.get()), y.get(),
            static_cast<float*>(sizeOut.get()), kept.get(), target.get(), h.batch, h.tokens, h.features,
            h.metricFeatures, static_cast<tsmerge::Element>(h.xType), static_cast<tsmerge::Element>(h.metricType),
            h.wideIndex != 0};
        setSeed(h.seed);
        int64_t const before = launches();
        cudaError_t const status = tsmerge::launchLocalMerge(settings, problem, workspace.get(), nullptr);
        if (status != cudaSuccess)
        {
            std::fprintf(stderr, "launchLocalMerge: %s\n", cudaGetErrorString(status));
            return 1;
        }
        int64_t const count = launches() - before;
        std::fwrite(&count, sizeof(count), 1, stdout);
        y.write();
        sizeOut.write();
        kept.write();
        target.write();
        std::fflush(stdout);
    }
    return 0;
}
