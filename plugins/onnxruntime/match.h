// Which a goes into which b, and how well they fit: R5.1 to R5.5 of docs/specification.md.
#pragma once

#include "problem.h"

#include <cstdint>
#include <vector>

namespace tsmerge
{

// Work on a row is cut into ranges of a's, which different threads may take. For each row: measure all ranges, then
// findScales, then rank all ranges.
class Match
{
public:
    // metric [batch, tokens, features] and the problem must outlive this. Throws std::bad_alloc.
    Match(float const* metric, int64_t features, Problem const& problem);

    // Of the longest row; ranks of a's that take no part are kRankNone.
    int64_t countA() const
    {
        return mCountA;
    }

    // Squared norms of the range's tokens and, for k = 1, products of its pairs.
    void measure(int64_t row, int64_t begin, int64_t end);

    // What products are measured by: all norms for the cosine; for l2 and dot the largest finite squared norm of a real
    // token.
    void findScales(int64_t row);

    // Rank and partner of the range's a's.
    void rank(int64_t row, int64_t begin, int64_t end);

    // [countA] each, of one row.
    float const* ranks(int64_t row) const
    {
        return mRank.data() + row * mCountA;
    }
    int32_t const* partners(int64_t row) const
    {
        return mPartner.data() + row * mCountA;
    }

private:
    struct Row;
    Row at(int64_t row);
    float score(Row const& row, int64_t i, int64_t j, float dot) const;
    void consider(Row const& row, int64_t i, int64_t j, float dot) const;
    void rankTiles(Row const& row, int64_t begin, int64_t end) const;

    float const* mMetric;
    int64_t mFeatures;
    Problem const& mProblem;
    Settings const& mSettings;
    int64_t mFree;   // unprotected tokens
    int64_t mCountA; // every first of them
    std::vector<float> mSquare; // [batch, free]; for the cosine their roots in the end
    std::vector<float> mDot;    // [batch, countA], for k = 1
    std::vector<float> mScale;  // [batch]
    std::vector<float> mRank;
    std::vector<int32_t> mPartner;
};

} // namespace tsmerge
