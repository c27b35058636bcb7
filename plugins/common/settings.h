// Attributes of LocalMerge, DynamicMerge and SeriesMerge, the numbers that follow from them, and the scale of ranks: one definition for
// the CUDA kernels and for the operators on the CPU. The rules (R2.4 and so on) are those of docs/specification.md.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace tsmerge
{

// By what two tokens u and v are alike; S is the largest finite squared norm of a real, unprotected token of the row.
enum class Similarity : int32_t
{
    kCosine = 0,  // u.v / |u||v|
    kL2 = 1,      // 1 - |u - v|^2 / 2S
    kDot = 2,     // u.v / S
};

// Ranges as in the schema of the operators. At most one of r and ratioNum is above 0; only LocalMerge has them.
struct Settings
{
    int64_t k{1};         // neighbourhood |i - j| < k; 0 compares all
    int64_t r{0};         // tokens to remove
    int64_t ratioNum{0};  // or this share of N
    int64_t ratioDen{1};
    int64_t minTokens{0};
    int64_t protectFirst{0};
    int64_t protectLast{0};
    Similarity similarity{Similarity::kCosine};
    bool causal{false};  // needs k = 1 and protectFirst >= 1
    bool runTime{false};  // the share is an input of each call; ratioNum / ratioDen is then what it was made for
};

// How many of `tokens` are between the protected ends.
inline int64_t unprotected(Settings const& settings, int64_t tokens) noexcept
{
    return std::max<int64_t>(tokens - settings.protectFirst - settings.protectLast, 0);
}

// So many of `tokens` may go at most: R2.3 and min_tokens.
inline int64_t mostRemoved(Settings const& settings, int64_t tokens) noexcept
{
    return std::min(unprotected(settings, tokens) / 2, std::max<int64_t>(tokens - settings.minTokens, 0));
}

// SeriesMerge leaves at least so many of `tokens`, R7.8, whatever its rows have.
inline int64_t leastLeft(Settings const& settings, int64_t tokens) noexcept
{
    return std::min(tokens, std::max<int64_t>(settings.minTokens, 1));
}

// r(N) of LocalMerge, R2.4: a function of N alone.
inline int64_t removedTokens(Settings const& settings, int64_t tokens) noexcept
{
    int64_t const wanted
        = settings.ratioNum > 0 ? tokens * settings.ratioNum / settings.ratioDen : std::max<int64_t>(settings.r, 0);
    return std::min(wanted, mostRemoved(settings, tokens));
}

// R3.5, R4.1. Ranks count in steps of 2^-20 of a similarity, so that equal tokens tie whatever the order of sums. Those that are
// no similarity lie outside of [-2^20, 2^20]: padding a > number > NaN > real a into padding b > no candidate.
constexpr float kSteps = 1048576.0F;
constexpr float kRankPadding = 2.0F * kSteps;
constexpr float kRankNan = -2.0F * kSteps;
constexpr float kRankIntoPadding = -3.0F * kSteps;
constexpr float kRankNone = -4.0F * kSteps;

// R7.2. Ranks above this exceed the threshold of DynamicMerge and SeriesMerge, which is rounded to whole steps too. Sums of floats may put the cosine of
// equal tokens a step or two above 1: at a threshold of 1 only padding counts.
inline float rankLimit(float threshold) noexcept
{
    float const steps = std::nearbyint(threshold * kSteps);
    return steps >= kSteps ? 1.5F * kSteps : steps;
}

}  // namespace tsmerge
