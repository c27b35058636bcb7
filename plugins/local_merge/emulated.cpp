// Runs the kernels on the CPU for tests: problems on stdin, results on stdout, both as raw arrays.
//
// A problem is a Header, then x, metric and size. A result is the number of launches as int64, then y, sizeOut, kept,
// target. Buffers are allocated at their exact size and full of rubbish, so that AddressSanitizer sees every byte
// beyond and tests see what is used before it is set.
#include "local_merge.h"

#include <cstdio>
#include <cstring>
#include <vector>

namespace
{

struct Header
{
    int64_t batch, tokens, features, metricFeatures, xType, metricType, wideIndex;
    int64_t seed;    // of the order of threads
    int64_t offset;  // bytes by which the addresses of x, metric and y miss a multiple of 16
    int64_t k, r, ratioNum, ratioDen, minTokens, protectFirst, protectLast;
    int64_t workspaceBatch, workspaceTokens;  // the workspace is made for these, at least the problem's
};

using Bytes = std::vector<unsigned char>;

Bytes rubbish(int64_t bytes)
{
    return Bytes(static_cast<size_t>(bytes), 0xCD);
}

bool fill(Bytes& buffer, size_t from = 0)
{
    size_t const wanted = buffer.size() - from;
    return std::fread(buffer.data() + from, 1, wanted, stdin) == wanted;
}

void give(Bytes const& buffer, size_t from = 0)
{
    std::fwrite(buffer.data() + from, 1, buffer.size() - from, stdout);
}

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
        tsmerge::Settings const settings{
            h.k, h.r, h.ratioNum, h.ratioDen, h.minTokens, h.protectFirst, h.protectLast};
        int64_t const left = h.tokens - tsmerge::removedTokens(settings, h.tokens);
        int64_t const indexBytes = h.wideIndex != 0 ? 8 : 4;
        auto const from = static_cast<size_t>(h.offset);
        Bytes x = rubbish(h.offset + h.batch * h.tokens * h.features * bytesOf(h.xType));
        Bytes metric = rubbish(h.offset + h.batch * h.tokens * h.metricFeatures * bytesOf(h.metricType));
        Bytes size = rubbish(h.batch * h.tokens * 4);
        if (!fill(x, from) || !fill(metric, from) || !fill(size))
        {
            std::fprintf(stderr, "the problem is cut off\n");
            return 2;
        }
        Bytes y = rubbish(h.offset + h.batch * left * h.features * bytesOf(h.xType));
        Bytes sizeOut = rubbish(h.batch * left * 4);
        Bytes kept = rubbish(h.batch * left * indexBytes);
        Bytes target = rubbish(h.batch * h.tokens * indexBytes);
        // Its bytes follow from the largest sizes, as in an engine with a range of shapes.
        Bytes workspace = rubbish(
            static_cast<int64_t>(tsmerge::workspaceBytes(settings, h.workspaceBatch, h.workspaceTokens)));
        tsmerge::Problem const problem{x.data() + from, metric.data() + from,
            reinterpret_cast<float const*>(size.data()), y.data() + from, reinterpret_cast<float*>(sizeOut.data()),
            kept.data(), target.data(), h.batch, h.tokens, h.features, h.metricFeatures,
            static_cast<tsmerge::Element>(h.xType), static_cast<tsmerge::Element>(h.metricType), h.wideIndex != 0};
        emulation::setSeed(static_cast<uint64_t>(h.seed));
        int const before = emulation::launches();
        cudaError_t const status = tsmerge::launchLocalMerge(settings, problem, workspace.data(), nullptr);
        if (status != cudaSuccess)
        {
            std::fprintf(stderr, "launchLocalMerge: %s\n", cudaGetErrorString(status));
            return 1;
        }
        int64_t const launches = emulation::launches() - before;
        std::fwrite(&launches, sizeof(launches), 1, stdout);
        give(y, from);
        give(sizeOut);
        give(kept);
        give(target);
        std::fflush(stdout);
    }
    return 0;
}
