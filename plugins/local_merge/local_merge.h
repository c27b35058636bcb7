// Local token merging on the GPU: arXiv 2405.17951, section 3. The specification is tsmerge_export/methods/local/reference.py.
#pragma once

#include "settings.h"

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace tsmerge
{

// Element types of tokens and metric. Everything is accumulated in float32.
enum class Element : int32_t
{
    kFLOAT32 = 0,
    kFLOAT16 = 1,
    kBFLOAT16 = 2,
};

// One call: device pointers and sizes.
struct Problem
{
    void const* x;       // [batch, tokens, features] of xType
    void const* metric;  // [batch, tokens, metricFeatures] of metricType
    float const* size;   // [batch, tokens]; 0 is padding
    void* y;             // [batch, left, features] of xType; left = tokens - removed
    float* sizeOut;      // [batch, left]
    void* kept;          // [batch, left] int64 or int32
    void* target;        // [batch, tokens] int64 or int32
    int64_t batch;
    int64_t tokens;
    int64_t features;
    int64_t metricFeatures;
    Element xType;
    Element metricType;
    bool wideIndex;  // kept and target are int64
};

// Bytes of scratch memory that one merge needs; does not fall when batch or tokens grow.
size_t workspaceBytes(Settings const& settings, int64_t batch, int64_t tokens) noexcept;

// LocalMerge: removed = removedTokens(settings, tokens). At most three kernels on the stream, four for l2 and dot; no
// allocation, no synchronisation. workspace is aligned to 256 bytes.
cudaError_t launchLocalMerge(
    Settings const& settings, Problem const& problem, void* workspace, cudaStream_t stream) noexcept;

// DynamicMerge in two parts, on one workspace: the caller reads *exceeding, r is min(*exceeding / batch,
// mostRemoved(...)), and only then the outputs have a size.
//
// The best partner of every a, and over all rows how many of them are more alike than `limit` (see rankLimit). Outputs of
// the problem are not touched. exceeding is device memory.
cudaError_t launchCount(Settings const& settings, Problem const& problem, float limit, unsigned long long* exceeding,
    void* workspace, cudaStream_t stream) noexcept;
// Writes the outputs.
cudaError_t launchPlace(Settings const& settings, Problem const& problem, int64_t removed, void* workspace,
    cudaStream_t stream) noexcept;

// SeriesMerge in two parts, in the same way; left is max(*longest, leastLeft(...)), also where the batch has no rows.
size_t seriesWorkspaceBytes(Settings const& settings, int64_t batch, int64_t tokens) noexcept;
// The best partner of every a, how many tokens each row loses, and how many the longest one has then: device memory.
cudaError_t launchSeriesCount(Settings const& settings, Problem const& problem, float limit, int* longest,
    void* workspace, cudaStream_t stream) noexcept;
// Writes the outputs.
cudaError_t launchSeriesPlace(Settings const& settings, Problem const& problem, int64_t left, void* workspace,
    cudaStream_t stream) noexcept;

}  // namespace tsmerge
