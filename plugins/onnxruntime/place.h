// Which a's merge, and where every token of a row goes.
#pragma once

#include "match.h"
#include "problem.h"

#include <cstdint>

namespace tsmerge
{

// One row of the outputs that hold no features, and the lists of what goes into each surviving token.
struct Places
{
    float* sizeOut;  // [left]
    int64_t* kept;   // [left]
    int64_t* target; // [tokens]
    int32_t* head;   // [left]: the lowest token that goes into this one, or -1
    int32_t* next;   // [tokens]: the next higher one, or -1
    uint64_t* keys;  // [countA], for place alone
    int32_t* gone;   // [removed + 1], for place alone
};

// The removed best a's of a row merge; of equal ranks the lowest. A row of fewer than `left` tokens is filled up with
// padding, and one that ends in more padding loses it. Not for rows that nothing changes.
void place(Match const& matching, Problem const& problem, int64_t row, Amounts const& amounts, Places const& out);

} // namespace tsmerge
