// Arithmetic on rows of floats, for several instruction sets.
#pragma once

#include <cstdint>

namespace tsmerge
{

constexpr int kTileA = 4;
constexpr int kTileB = 3;

// out: a.b, a.a and b.b over n features, each row read once.
void pairProducts(float const* a, float const* b, int64_t n, float out[3]);

// out[i][j] = a_i . b_j over n features; a_i starts at a + i * step, b_j likewise.
void tileProducts(float const* a, float const* b, int64_t step, int64_t n, float out[kTileA][kTileB]);

// a.b over n features.
float product(float const* a, float const* b, int64_t n);

// out = a * weightA + b * weightB over n features.
void weightedSum(float const* a, float weightA, float const* b, float weightB, int64_t n, float* out);

} // namespace tsmerge
