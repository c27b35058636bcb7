// What the plugin is called and the fields it is made of, with their ranges.
#pragma once

#include "plugin.h"

#include <array>
#include <cstdint>
#include <string>

namespace tsmerge
{

inline constexpr char const* kName = "LocalMerge";
inline constexpr char const* kVersion = "1";
inline constexpr char const* kNamespace = "";
inline constexpr char const* kIndexBits = "index_bits";


// Fields with their ranges, both ends included. The ranges keep N * ratio_num within 64 bits and values within 32.
struct FieldRange
{
    char const* name;
    int64_t least;
    int64_t most;
    int64_t Settings::*member;
};

inline constexpr int64_t kMost = 1000000000;
inline constexpr int64_t kRatioMost = 1000000;

inline constexpr std::array<FieldRange, 7> kRanges{{
    {"k", 0, kMost, &Settings::k},
    {"r", 0, kMost, &Settings::r},
    {"ratio_num", 0, kRatioMost, &Settings::ratioNum},
    {"ratio_den", 1, kRatioMost, &Settings::ratioDen},
    {"min_tokens", 0, kMost, &Settings::minTokens},
    {"protect_first", 0, kMost, &Settings::protectFirst},
    {"protect_last", 0, kMost, &Settings::protectLast},
}};

// To TensorRT's log, or stderr before there is one.
void logError(std::string const& message) noexcept;

}  // namespace tsmerge
