// One merge from tensors to tensors: what is done at once, and by how many threads.
#pragma once

#include "match.h"
#include "ort.h"
#include "problem.h"

#include <cstdint>
#include <vector>

namespace tsmerge
{

// metric as float32, `count` numbers; copied into `storage` where it is another type. Throws Ort::Exception.
float const* asFloats(Ort::ConstValue const& metric, int64_t count, std::vector<float>& storage);

// Ranks and partners of all rows.
void match(Ort::KernelContext const& context, Problem const& problem, Match& matching);

// Writes the outputs. `matched` says that ranks are there, else this finds them. Throws Ort::Exception.
void merge(Ort::KernelContext const& context, Problem const& problem, Ort::ConstValue const& x, Match& matching,
    Amounts const& amounts, bool matched);

// Writes the outputs where nothing merges.
void copyAll(Ort::KernelContext const& context, Problem const& problem, Ort::ConstValue const& x);

} // namespace tsmerge
