// Attributes of the merge operators, read from a node of ONNX Runtime and held to the ranges of their schema.
#pragma once

#include "ort.h"
#include "settings.h"

#include <string>
#include <vector>

namespace tsmerge
{

[[noreturn]] inline void refuse(std::string const& why)
{
    throw Ort::Exception(std::string(why), ORT_INVALID_ARGUMENT);
}

// An attribute from least to most; an optional one that is absent is 0. Throws Ort::Exception.
inline int64_t integer(
    Ort::ConstKernelInfo const& info, std::string const& name, int64_t least, int64_t most, bool optional = false)
{
    // Not the C++ wrapper: it throws for an attribute that is absent.
    int64_t value = 0;
    Ort::Status const status{Ort::GetApi().KernelInfoGetAttribute_int64(info, name.c_str(), &value)};
    if (!status.IsOK() && !optional)
    {
        refuse("attribute " + name + " is missing");
    }
    if (!status.IsOK())
    {
        return 0;
    }
    if (value < least || value > most)
    {
        refuse(name + " = " + std::to_string(value) + " must be from " + std::to_string(least) + " to "
            + std::to_string(most));
    }
    return value;
}

// The same of a real number; NaN is out of range.
inline float real(Ort::ConstKernelInfo const& info, std::string const& name, int64_t least, int64_t most)
{
    float value = 0.0F;
    Ort::Status const status{Ort::GetApi().KernelInfoGetAttribute_float(info, name.c_str(), &value)};
    if (!status.IsOK())
    {
        refuse("attribute " + name + " is missing");
    }
    if (!(value >= static_cast<float>(least) && value <= static_cast<float>(most)))
    {
        refuse(name + " = " + std::to_string(value) + " must be from " + std::to_string(least) + " to "
            + std::to_string(most));
    }
    return value;
}

constexpr int64_t kMost = 1000000000;
constexpr int64_t kRatioMost = 1000000;

// Which tokens take part, and how many stay.
inline void readBounds(Ort::ConstKernelInfo const& info, Settings& settings)
{
    settings.minTokens = integer(info, "min_tokens", 0, kMost);
    settings.protectFirst = integer(info, "protect_first", 0, kMost);
    settings.protectLast = integer(info, "protect_last", 0, kMost);
}

// How many tokens go, of operators that remove a number or a share of them.
inline void readAmount(Ort::ConstKernelInfo const& info, Settings& settings)
{
    settings.r = integer(info, "r", 0, kMost);
    settings.ratioNum = integer(info, "ratio_num", 0, kRatioMost);
    settings.ratioDen = integer(info, "ratio_den", 1, kRatioMost);
    settings.runTime = integer(info, "run_time", 0, 1, true) != 0;
    if (2 * settings.ratioNum > settings.ratioDen || (settings.ratioNum > 0 && settings.r > 0))
    {
        refuse("a ratio must be at most 1/2, and excludes r");
    }
    if (settings.runTime && settings.ratioNum == 0)
    {
        refuse("run_time needs a ratio, which stands in ratio_num");
    }
}

// What LocalMerge (`byLength`), DynamicMerge and SeriesMerge have; r and ratio of the first alone. Throws Ort::Exception.
inline Settings readSettings(Ort::ConstKernelInfo const& info, bool byLength)
{
    Settings settings;
    settings.k = integer(info, "k", 0, kMost);
    readBounds(info, settings);
    settings.similarity = static_cast<Similarity>(integer(info, "similarity", 0, 2, true));
    settings.causal = integer(info, "causal", 0, 1, true) != 0;
    if (settings.causal && (settings.k != 1 || settings.protectFirst < 1))
    {
        refuse("causal needs k = 1 and protect_first >= 1");
    }
    if (byLength)
    {
        readAmount(info, settings);
    }
    return settings;
}

// What methods have that pair tokens by other rules than k: r(N) and which tokens take part. Throws Ort::Exception.
inline Settings readAmounts(Ort::ConstKernelInfo const& info)
{
    Settings settings;
    readBounds(info, settings);
    readAmount(info, settings);
    return settings;
}

// The settings of one call: where the share is chosen at run time, that of the input `share`, which lies in host memory.
// Throws Ort::Exception.
inline Settings settingsOf(Settings settings, Ort::KernelContext const& context)
{
    constexpr size_t kShare = 3;
    bool const given = context.GetInputCount() > kShare && context.GetInput(kShare) != nullptr;
    if (given != settings.runTime)
    {
        refuse(given ? "the input share needs run_time = 1" : "run_time = 1 needs the input share");
    }
    if (!given)
    {
        return settings;
    }
    Ort::ConstValue const share = context.GetInput(kShare);
    if (share.GetTensorTypeAndShapeInfo().GetShape() != std::vector<int64_t>{2})
    {
        refuse("share must be [2]: a numerator and a denominator");
    }
    int64_t const* const parts = share.GetTensorData<int64_t>();
    settings.ratioNum = parts[0];
    settings.ratioDen = parts[1];
    if (parts[0] < 0 || parts[1] < 1 || parts[1] > 1000000 || parts[0] > parts[1] / 2)
    {
        refuse("share must be from 0 to 1/2");
    }
    return settings;
}

// Sizes of one call.
struct Sizes
{
    int64_t batch;
    int64_t tokens;
    int64_t features;
    int64_t metricFeatures;
};

// Sizes of the inputs x, metric and size. Throws Ort::Exception where they do not fit together.
inline Sizes readSizes(Ort::ConstValue const& x, Ort::ConstValue const& metric, Ort::ConstValue const& size)
{
    std::vector<int64_t> const shape = x.GetTensorTypeAndShapeInfo().GetShape();
    std::vector<int64_t> const compared = metric.GetTensorTypeAndShapeInfo().GetShape();
    if (shape.size() != 3 || compared.size() != 3 || compared[0] != shape[0] || compared[1] != shape[1]
        || size.GetTensorTypeAndShapeInfo().GetShape() != std::vector<int64_t>{shape[0], shape[1]})
    {
        refuse("x [B, N, D], metric [B, N, Dm] and size [B, N] differ in B or N");
    }
    return Sizes{shape[0], shape[1], shape[2], compared[2]};
}

} // namespace tsmerge
