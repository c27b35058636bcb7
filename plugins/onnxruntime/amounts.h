// How many tokens of each row merge, by operator: R2.4, R7.3 and R7.6 to R7.8 of docs/specification.md.
//
// Each class tells which unprotected tokens of a row take part, and the amounts: without ranks the most that may merge.
#pragma once

#include "attributes.h"
#include "match.h"
#include "ort.h"
#include "problem.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace tsmerge
{

// The same number in every row.
inline Amounts evenly(Problem const& problem, int64_t removed)
{
    return Amounts{std::vector<int64_t>(problem.batch, removed), problem.tokens - removed};
}

// How many ranks of a row are above a limit.
inline int64_t exceeding(Match const& matching, int64_t row, float limit)
{
    float const* const ranks = matching.ranks(row);
    return std::count_if(ranks, ranks + matching.countA(), [&](float rank) { return rank > limit; });
}

inline float thresholdLimit(Ort::ConstKernelInfo const& info)
{
    return rankLimit(real(info, "threshold", -1, 1));
}

// All unprotected tokens of a row take part.
class OfAll
{
public:
    static int64_t free(Settings const& settings, float const*, int64_t tokens)
    {
        return unprotected(settings, tokens);
    }
};

// LocalMerge knows it from the length.
class ByLength : public OfAll
{
public:
    explicit ByLength(Ort::ConstKernelInfo const&) {}

    static constexpr bool kFromRanks = false;

    Amounts amounts(Problem const& problem, Match const*) const
    {
        return evenly(problem, removedTokens(problem.settings, problem.tokens));
    }
};

// DynamicMerge: the mean over the rows of how many ranks exceed a threshold, rounded down.
class ByThreshold : public OfAll
{
public:
    explicit ByThreshold(Ort::ConstKernelInfo const& info)
        : mLimit(thresholdLimit(info))
    {
    }

    static constexpr bool kFromRanks = true;

    Amounts amounts(Problem const& problem, Match const* matching) const
    {
        int64_t const most = problem.batch == 0 ? 0 : mostRemoved(problem.settings, problem.tokens);
        if (matching == nullptr)
        {
            return evenly(problem, most);
        }
        int64_t total = 0;
        for (int64_t row = 0; row < problem.batch; ++row)
        {
            total += exceeding(*matching, row, mLimit);
        }
        return evenly(problem, std::min(total / problem.batch, most));
    }

private:
    float mLimit;
};

// SeriesMerge: each row by itself, without the padding that it ends in.
class BySeries
{
public:
    explicit BySeries(Ort::ConstKernelInfo const& info)
        : mLimit(thresholdLimit(info))
    {
    }

    static constexpr bool kFromRanks = true;

    // R7.6; size [tokens] is that of one row.
    static int64_t free(Settings const& settings, float const* size, int64_t tokens)
    {
        int64_t free = unprotected(settings, tokens);
        while (free > 0 && size[settings.protectFirst + free - 1] == 0.0F)
        {
            --free;
        }
        return free;
    }

    // R7.7, R7.8.
    Amounts amounts(Problem const& problem, Match const* matching) const
    {
        Amounts out{std::vector<int64_t>(problem.batch), leastLeft(problem.settings, problem.tokens)};
        for (int64_t row = 0; row < problem.batch; ++row)
        {
            int64_t const own = problem.own(row);
            int64_t removed = mostRemoved(problem.settings, own);
            if (matching != nullptr)
            {
                removed = std::min(exceeding(*matching, row, mLimit), removed);
            }
            out.removed[row] = removed;
            out.left = std::max(out.left, own - removed);
        }
        return out;
    }

private:
    float mLimit;
};

} // namespace tsmerge
