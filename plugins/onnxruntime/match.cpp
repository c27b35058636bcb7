#include "match.h"

#include "products.h"

#include <algorithm>
#include <cmath>

namespace tsmerge
{

namespace
{

// So many b's are compared with a range of a's at once; whole tiles.
constexpr int64_t kBlock = 16 * kTileB;

// To a whole number, halves to even, and -0 to 0: so large a float has no fraction. For numbers up to 2^22; larger ones
// are no similarities. Without SSE 4.1 std::nearbyint is a call.
float rounded(float value)
{
    constexpr float kWhole = 12582912.0F; // 1.5 * 2^23
    return (value + kWhole) - kWhole;
}

} // namespace

// One row of everything; token u counts from the first unprotected one.
struct Match::Row
{
    int64_t countA; // of those that take part, every first
    int64_t countB; // every second
    float const* metric;
    float const* size;
    float* square;
    float* dot;
    float* rank;
    int32_t* partner;
    float scale;
};

Match::Match(float const* metric, int64_t features, Problem const& problem)
    : mMetric(metric)
    , mFeatures(features)
    , mProblem(problem)
    , mSettings(problem.settings)
    , mFree(unprotected(mSettings, problem.tokens))
    , mCountA((mFree + 1) / 2)
    , mSquare(problem.batch * mFree)
    , mDot(mSettings.k == 1 ? problem.batch * mCountA : 0)
    , mScale(problem.batch)
    , mRank(problem.batch * mCountA)
    , mPartner(problem.batch * mCountA)
{
}

Match::Row Match::at(int64_t row)
{
    int64_t const start = row * mProblem.tokens + mSettings.protectFirst;
    int64_t const free = mProblem.free[row];
    return Row{(free + 1) / 2, free / 2, mMetric + start * mFeatures, mProblem.size + start, mSquare.data() + row * mFree,
        mDot.empty() ? nullptr : mDot.data() + row * mCountA, mRank.data() + row * mCountA,
        mPartner.data() + row * mCountA, mScale[row]};
}

void Match::measure(int64_t row, int64_t begin, int64_t end)
{
    Row const it = at(row);
    end = std::min(end, it.countA);
    for (int64_t i = begin; i < end; ++i)
    {
        float const* const a = it.metric + 2 * i * mFeatures;
        bool const pair = i < it.countB;
        if (pair && mSettings.k == 1)
        {
            float products[3];
            pairProducts(a, a + mFeatures, mFeatures, products);
            it.dot[i] = products[0];
            it.square[2 * i] = products[1];
            it.square[2 * i + 1] = products[2];
            continue;
        }
        it.square[2 * i] = product(a, a, mFeatures);
        if (pair)
        {
            float const* const b = a + mFeatures;
            it.square[2 * i + 1] = product(b, b, mFeatures);
        }
    }
}

void Match::findScales(int64_t row)
{
    Row const it = at(row);
    int64_t const free = it.countA + it.countB;
    if (mSettings.similarity == Similarity::kCosine)
    {
        for (int64_t u = 0; u < free; ++u)
        {
            it.square[u] = std::sqrt(it.square[u]);
        }
        return;
    }
    float largest = 0.0F;
    for (int64_t u = 0; u < free; ++u)
    {
        if (it.size[u] > 0.0F && std::isfinite(it.square[u]))
        {
            largest = std::max(largest, it.square[u]);
        }
    }
    mScale[row] = largest;
}

// Similarity in whole steps, halves to even: R3.1 to R3.7.
float Match::score(Row const& row, int64_t i, int64_t j, float dot) const
{
    float const squareA = row.square[2 * i];
    float const squareB = row.square[2 * j + 1];
    float steps;
    if (mSettings.similarity == Similarity::kCosine)
    {
        float const scale = squareA * squareB; // norms, by now
        steps = rounded((scale == 0.0F ? 0.0F : dot / scale) * kSteps);
    }
    else
    {
        bool const l2 = mSettings.similarity == Similarity::kL2;
        float const numerator = l2 ? dot - 0.5F * squareA - 0.5F * squareB : dot;
        float const share = row.scale == 0.0F ? 0.0F : numerator / row.scale;
        steps = rounded((l2 ? 1.0F + share : share) * kSteps);
        if (!std::isfinite(squareA) || !std::isfinite(squareB))
        {
            return kRankNan;
        }
        steps = std::min(std::max(steps, -kSteps), kSteps);
    }
    return std::isnan(steps) ? kRankNan : steps;
}

// Ranks of R4.1. Candidates come in ascending j: the first of equals stays (R4.2).
void Match::consider(Row const& row, int64_t i, int64_t j, float dot) const
{
    float const* const a = row.size + 2 * i;
    float rank;
    // In causal merging the slot of a will be read from the token before it, which padding is as bad for.
    if (a[0] != 0.0F && (row.size[2 * j + 1] == 0.0F || (mSettings.causal && a[-1] == 0.0F)))
    {
        rank = kRankIntoPadding;
    }
    else
    {
        rank = score(row, i, j, dot);
    }
    if (rank > row.rank[i])
    {
        row.rank[i] = rank;
        row.partner[i] = static_cast<int32_t>(j);
    }
}

void Match::rank(int64_t row, int64_t begin, int64_t end)
{
    Row const it = at(row);
    std::fill(it.rank + begin, it.rank + end, kRankNone);
    std::fill(it.partner + begin, it.partner + end, 0);
    end = std::min(end, it.countA);
    if (mSettings.k == 1)
    {
        for (int64_t i = begin; i < std::min(end, it.countB); ++i)
        {
            consider(it, i, i, it.dot[i]);
        }
    }
    else
    {
        rankTiles(it, begin, end);
    }
    for (int64_t i = begin; i < end; ++i)
    {
        if (it.size[2 * i] == 0.0F && it.rank[i] > kRankNone)
        {
            it.rank[i] = kRankPadding;
        }
    }
}

// Tiles of a's against the b's that one of them may go into; an a meets its b's in ascending order.
void Match::rankTiles(Row const& row, int64_t begin, int64_t end) const
{
    auto const token = [&](int64_t u) { return row.metric + u * mFeatures; };
    int64_t const reach = mSettings.k == 0 ? mProblem.tokens : mSettings.k - 1;
    int64_t const lowest = std::max<int64_t>(begin - reach, 0);
    int64_t const beyond = std::min(end + reach, row.countB);
    // Where there are many, a block of them stays in the caches for all a's.
    int64_t const block = reach > kBlock ? kBlock : beyond;
    for (int64_t from = lowest; from < beyond; from += block)
    {
        for (int64_t i = begin; i < end; i += kTileA)
        {
            int64_t const behind = std::min(i + kTileA, end);
            int64_t const last = std::min({behind + reach, from + block, beyond});
            for (int64_t j = std::max(i - reach, from); j < last; j += kTileB)
            {
                float dots[kTileA][kTileB];
                bool const whole = behind - i == kTileA && j + kTileB <= last;
                if (whole)
                {
                    tileProducts(token(2 * i), token(2 * j + 1), 2 * mFeatures, mFeatures, dots);
                }
                for (int64_t p = i; p < behind; ++p)
                {
                    for (int64_t q = std::max(j, p - reach); q < std::min({j + kTileB, last, p + reach + 1}); ++q)
                    {
                        float const dot
                            = whole ? dots[p - i][q - j] : product(token(2 * p), token(2 * q + 1), mFeatures);
                        consider(row, p, q, dot);
                    }
                }
            }
        }
    }
}

} // namespace tsmerge
