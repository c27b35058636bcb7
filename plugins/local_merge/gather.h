// What accompanies merging: copies by index, of elements of any type. Rules R10 to R12 of docs/specification.md.
//
// One kernel each on the stream; no allocation, no synchronisation. An index counts from the end where it is negative; one
// that is outside reads nothing, and zeros are written.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace tsmerge
{

// z[b, n] = y[b, target[b, n]]: whole tokens.
struct TokenCopies
{
    void const* y;          // [batch, left] tokens
    int64_t const* target;  // [batch, tokens]
    void* z;                // [batch, tokens] tokens
    int64_t batch;
    int64_t left;
    int64_t tokens;
    int64_t tokenBytes;
};

cudaError_t launchUnmerge(TokenCopies const& copies, cudaStream_t stream) noexcept;

// z[b, h, i, j] = plane[kept[b, i] * stride + kept[b, j] + offset, h].
struct PairCopies
{
    void const* plane;    // [rows, heads], elements of elementBytes: 1, 2, 4 or 8
    int64_t const* kept;  // [batch, left]; null: token i is i
    void* z;              // [batch, heads, left, left]
    int64_t rows;
    int64_t heads;
    int64_t batch;
    int64_t left;
    int64_t stride;
    int64_t offset;
    size_t elementBytes;
};

cudaError_t launchPairs(PairCopies const& copies, cudaStream_t stream) noexcept;

}  // namespace tsmerge
