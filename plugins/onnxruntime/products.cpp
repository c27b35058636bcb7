#include "products.h"

#include <cstring>

// The library is built once and runs on any processor of its architecture: the loops over features are compiled for
// several instruction sets, and the loader takes the best one.
#if defined(__x86_64__) && defined(__linux__) && !defined(TSMERGE_ONE_TARGET)
#define TSMERGE_TARGETS __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define TSMERGE_TARGETS
#endif

namespace tsmerge
{

namespace
{

constexpr int64_t kLanes = 16;

// GCC and Clang turn arithmetic on such a vector into what the target has: one register of 512 bits, or several.
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));

inline __attribute__((always_inline)) void load(float const* from, Lanes& into)
{
    std::memcpy(&into, from, sizeof(into));
}

inline __attribute__((always_inline)) void store(float* to, Lanes const& from)
{
    std::memcpy(to, &from, sizeof(from));
}

inline __attribute__((always_inline)) float sum(Lanes const& values)
{
    // In halves, each of them one register.
    typedef float Half __attribute__((vector_size(kLanes / 2 * sizeof(float))));
    typedef float Quarter __attribute__((vector_size(kLanes / 4 * sizeof(float))));
    Half halves[2];
    std::memcpy(halves, &values, sizeof(values));
    halves[0] += halves[1];
    Quarter quarters[2];
    std::memcpy(quarters, halves, sizeof(quarters));
    Quarter const rest = quarters[0] + quarters[1];
    return (rest[0] + rest[1]) + (rest[2] + rest[3]);
}

} // namespace

TSMERGE_TARGETS
void pairProducts(float const* a, float const* b, int64_t n, float out[3])
{
    // One row after the other, as they lie in memory: processors foresee one stream better than two in a page.
    Lanes ab{}, aa{}, bb{}, ab2{}, aa2{}, bb2{}, u, v, u2, v2;
    int64_t const pairs = n - n % (2 * kLanes);
    for (int64_t d = 0; d < pairs; d += 2 * kLanes)
    {
        load(a + d, u);
        load(a + d + kLanes, u2);
        aa += u * u;
        aa2 += u2 * u2;
    }
    for (int64_t d = 0; d < pairs; d += 2 * kLanes)
    {
        load(a + d, u);
        load(a + d + kLanes, u2);
        load(b + d, v);
        load(b + d + kLanes, v2);
        ab += u * v;
        ab2 += u2 * v2;
        bb += v * v;
        bb2 += v2 * v2;
    }
    out[0] = sum(ab + ab2);
    out[1] = sum(aa + aa2);
    out[2] = sum(bb + bb2);
    for (int64_t d = pairs; d < n; ++d)
    {
        out[0] += a[d] * b[d];
        out[1] += a[d] * a[d];
        out[2] += b[d] * b[d];
    }
}

TSMERGE_TARGETS
void tileProducts(float const* a, float const* b, int64_t step, int64_t n, float out[kTileA][kTileB])
{
    Lanes sums[kTileA][kTileB]{};
    int64_t d = 0;
    for (; d + kLanes <= n; d += kLanes)
    {
        Lanes v[kTileB], u;
        for (int j = 0; j < kTileB; ++j)
        {
            load(b + j * step + d, v[j]);
        }
        for (int i = 0; i < kTileA; ++i)
        {
            load(a + i * step + d, u);
            for (int j = 0; j < kTileB; ++j)
            {
                sums[i][j] += u * v[j];
            }
        }
    }
    for (int i = 0; i < kTileA; ++i)
    {
        for (int j = 0; j < kTileB; ++j)
        {
            out[i][j] = sum(sums[i][j]);
            for (int64_t rest = d; rest < n; ++rest)
            {
                out[i][j] += a[i * step + rest] * b[j * step + rest];
            }
        }
    }
}

TSMERGE_TARGETS
float product(float const* a, float const* b, int64_t n)
{
    Lanes ab{}, u, v;
    int64_t d = 0;
    for (; d + kLanes <= n; d += kLanes)
    {
        load(a + d, u);
        load(b + d, v);
        ab += u * v;
    }
    float total = sum(ab);
    for (; d < n; ++d)
    {
        total += a[d] * b[d];
    }
    return total;
}

TSMERGE_TARGETS
void weightedSum(float const* a, float weightA, float const* b, float weightB, int64_t n, float* out)
{
    Lanes u, v;
    int64_t const whole = n - n % kLanes;
    for (int64_t d = 0; d < whole; d += kLanes)
    {
        load(a + d, u);
        store(out + d, u * weightA);
    }
    for (int64_t d = 0; d < whole; d += kLanes)
    {
        load(b + d, u);
        load(out + d, v);
        store(out + d, v + u * weightB);
    }
    for (int64_t d = whole; d < n; ++d)
    {
        out[d] = a[d] * weightA + b[d] * weightB;
    }
}

} // namespace tsmerge
