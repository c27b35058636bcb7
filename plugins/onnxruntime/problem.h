// All numbers of one call of a merge operator.
#pragma once

#include "settings.h"

#include <cstdint>
#include <vector>

namespace tsmerge
{

// size is [batch, tokens], x [batch, tokens, features].
struct Problem
{
    float const* size;
    int64_t batch;
    int64_t tokens;
    int64_t features;
    Settings settings;
    std::vector<int64_t> free; // [batch]: so many of a row's unprotected tokens take part, the first ones

    // How many tokens a row has, without padding that is set aside.
    int64_t own(int64_t row) const
    {
        return tokens - unprotected(settings, tokens) + free[row];
    }
};

// What becomes of the rows.
struct Amounts
{
    std::vector<int64_t> removed; // [batch]
    int64_t left;                 // tokens that all rows have then
};

} // namespace tsmerge
