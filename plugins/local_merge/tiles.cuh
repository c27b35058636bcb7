// Products of many tokens with many: tiles of kTileA a's against tiles of kTileB b's, kDepth features at a time in shared
// memory, 4 x 4 dot products a thread. Norms come from the same shared rows, once per tile.
#pragma once

#include "kernels.cuh"

namespace tsmerge
{

constexpr unsigned kTileThreads = 128;
constexpr int kTileA = 64;
constexpr int kTileB = 32;
constexpr int kDepth = 32;
constexpr int kColumns = 8;  // threads along b
constexpr int kPerThread = 4;
constexpr int kTileBlocks = 4;  // on a multiprocessor: leaves 128 registers a thread, so that nothing spills

struct TileShared
{
    float rows[kTileA + kTileB][kDepth + 4];  // 16 bytes of padding: 8 neighbouring rows lie in different banks
    float square[kTileA + kTileB];
};

// What a block does: a's from i0 to iEnd of a row, b's from jBegin to jEnd, and where its threads stand in a tile.
struct Tile
{
    int64_t row;
    int split;
    int i0;
    int iEnd;
    int jBegin;
    int jEnd;

    // Grid: batch * ceil(tableA / kTileA) * splits; the b's from low to high are shared out to `splits` blocks.
    __device__ __forceinline__ Tile(int tableA, int splits)
    {
        unsigned const tiles = (static_cast<unsigned>(tableA) + kTileA - 1) / kTileA;
        split = static_cast<int>(blockIdx.x % static_cast<unsigned>(splits));
        unsigned const tile = blockIdx.x / static_cast<unsigned>(splits);
        row = tile / tiles;
        i0 = static_cast<int>(tile % tiles) * kTileA;
        iEnd = i0;
        jBegin = jEnd = 0;
    }

    __device__ __forceinline__ void share(int countA, int low, int high, int splits)
    {
        iEnd = i0 + kTileA < countA ? i0 + kTileA : countA;
        int const tiles = (high - low + kTileB - 1) / kTileB;
        int const each = (tiles + splits - 1) / splits * kTileB;
        jBegin = low + split * each;
        jEnd = jBegin + each < high ? jBegin + each : high;
    }
};

// Of this thread: dot[m][n] is of a lineOf(m) and b columnOf(n) of the tile.
__device__ __forceinline__ int lineOf(int m)
{
    return static_cast<int>(threadIdx.x) / kColumns + m * (kTileA / kPerThread);
}
__device__ __forceinline__ int columnOf(int n)
{
    return static_cast<int>(threadIdx.x) % kColumns + n * kColumns;
}

// find(isA, index) is the token, in all of metric, that an a or b is.
template <typename T, typename Find>
__device__ __forceinline__ void loadTile(TileShared& shared, T const* metric, Find const& find, Tile const& tile,
    int j0, int c0, int features, bool aligned)
{
    constexpr int W = kPackWidth<T>;
    for (int v = static_cast<int>(threadIdx.x); v < (kTileA + kTileB) * (kDepth / W);
         v += static_cast<int>(kTileThreads))
    {
        int const r = v / (kDepth / W);
        int const c = c0 + v % (kDepth / W) * W;
        bool const isA = r < kTileA;
        int const index = isA ? tile.i0 + r : j0 + r - kTileA;
        bool const inside = index < (isA ? tile.iEnd : tile.jEnd);
        float values[W] = {};
        if (inside)
        {
            T const* const source = metric + find(isA, index) * features + c;
            if (aligned && c + W <= features)
            {
                auto const pack = *reinterpret_cast<Pack<T, W> const*>(source);
#pragma unroll
                for (int e = 0; e < W; ++e)
                {
                    values[e] = toFloat(pack.value[e]);
                }
            }
            else
            {
#pragma unroll
                for (int e = 0; e < W; ++e)
                {
                    values[e] = c + e < features ? toFloat(source[e]) : 0.0F;
                }
            }
        }
        auto* const place = reinterpret_cast<float4*>(&shared.rows[r][c - c0]);
#pragma unroll
        for (int e = 0; e < W; e += 4)
        {
            place[e / 4] = float4{values[e], values[e + 1], values[e + 2], values[e + 3]};
        }
    }
}

// Products of the a's with the b's from j0 on. Their squares are in shared memory then, until this is called again.
template <typename T, typename Find>
__device__ __forceinline__ void dotTile(TileShared& shared, T const* metric, Find const& find, Tile const& tile, int j0,
    int features, bool aligned, float (&dot)[kPerThread][kPerThread])
{
    int const t = static_cast<int>(threadIdx.x);
    float square = 0.0F;
#pragma unroll
    for (int m = 0; m < kPerThread; ++m)
    {
#pragma unroll
        for (int n = 0; n < kPerThread; ++n)
        {
            dot[m][n] = 0.0F;
        }
    }
    for (int c0 = 0; c0 < features; c0 += kDepth)
    {
        loadTile(shared, metric, find, tile, j0, c0, features, aligned);
        __syncthreads();  // rows are there
        if (t < kTileA + kTileB)
        {
            for (int c = 0; c < kDepth; ++c)
            {
                square += shared.rows[t][c] * shared.rows[t][c];
            }
        }
        for (int c = 0; c < kDepth; c += 4)
        {
            float4 a[kPerThread];
            float4 b[kPerThread];
#pragma unroll
            for (int m = 0; m < kPerThread; ++m)
            {
                a[m] = *reinterpret_cast<float4 const*>(&shared.rows[lineOf(m)][c]);
                b[m] = *reinterpret_cast<float4 const*>(&shared.rows[kTileA + columnOf(m)][c]);
            }
#pragma unroll
            for (int m = 0; m < kPerThread; ++m)
            {
#pragma unroll
                for (int n = 0; n < kPerThread; ++n)
                {
                    dot[m][n] += a[m].x * b[n].x;
                    dot[m][n] += a[m].y * b[n].y;
                    dot[m][n] += a[m].z * b[n].z;
                    dot[m][n] += a[m].w * b[n].w;
                }
            }
        }
        if (t < kTileA + kTileB && c0 + kDepth >= features)
        {
            shared.square[t] = square;
        }
        __syncthreads();  // rows are used, squares are there
    }
}

}  // namespace tsmerge
