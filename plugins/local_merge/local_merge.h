// Local token merging on the GPU: arXiv 2405.17951, section 3. The specification is tsmerge_export/merge/local.py.
#pragma once

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

// Attributes of the operator; ranges as in README.md. Exactly one of r and ratioNum may be above 0.
struct Settings
{
    int64_t k{1};         // neighbourhood |i - j| < k; 0 compares all
    int64_t r{0};         // tokens to remove
    int64_t ratioNum{0};  // or this share of N
    int64_t ratioDen{1};
    int64_t minTokens{0};
    int64_t protectFirst{0};
    int64_t protectLast{0};
};

// One call: device pointers and sizes.
struct Problem
{
    void const* x;       // [batch, tokens, features] of xType
    void const* metric;  // [batch, tokens, metricFeatures] of metricType
    float const* size;   // [batch, tokens]; 0 is padding
    void* y;             // [batch, left, features] of xType; left = tokens - removedTokens(...)
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

// r(N), a function of N alone.
int64_t removedTokens(Settings const& settings, int64_t tokens) noexcept;

// Bytes of scratch memory that launchLocalMerge needs; does not fall when batch or tokens grow.
size_t workspaceBytes(Settings const& settings, int64_t batch, int64_t tokens) noexcept;

// At most three kernels on the stream; no allocation, no synchronisation. workspace is aligned to 256 bytes.
cudaError_t launchLocalMerge(
    Settings const& settings, Problem const& problem, void* workspace, cudaStream_t stream) noexcept;

}  // namespace tsmerge
