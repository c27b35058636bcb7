// Which a's merge, and where every token of a row goes.
#pragma once

#include "settings.h"

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

// ranks, partners [countA] from Match; size [tokens]. The removed best a's merge; of equal ranks the lowest.
void place(float const* ranks, int32_t const* partners, int64_t countA, float const* size, int64_t tokens,
    int64_t removed, Settings const& settings, Places const& out);

} // namespace tsmerge
