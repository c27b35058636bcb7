// LocalMerge, DynamicMerge and SeriesMerge: reads a call, launches the kernels of ../local_merge.
#pragma once

#include "attributes.h"
#include "call.h"
#include "local_merge.h"

#include <algorithm>

namespace tsmerge
{

inline Element elementOf(Ort::ConstValue const& value)
{
    switch (value.GetTensorTypeAndShapeInfo().GetElementType())
    {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: return Element::kFLOAT32;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16: return Element::kFLOAT16;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16: return Element::kBFLOAT16;
    default: refuse("x and metric must be float32, float16 or bfloat16");
    }
}

// Sizes and inputs of a call; its outputs are null.
inline Problem problemOf(Ort::ConstValue const& x, Ort::ConstValue const& metric, Ort::ConstValue const& size)
{
    Sizes const sizes = readSizes(x, metric, size);
    Problem problem{};
    problem.x = x.GetTensorRawData();
    problem.metric = metric.GetTensorRawData();
    problem.size = size.GetTensorData<float>();
    problem.batch = sizes.batch;
    problem.tokens = sizes.tokens;
    problem.features = sizes.features;
    problem.metricFeatures = sizes.metricFeatures;
    problem.xType = elementOf(x);
    problem.metricType = elementOf(metric);
    problem.wideIndex = true;
    return problem;
}

inline void makeOutputs(Ort::KernelContext const& context, Problem& problem, int64_t left)
{
    int64_t const yShape[] = {problem.batch, left, problem.features};
    int64_t const targetShape[] = {problem.batch, problem.tokens};
    problem.y = context.GetOutput(0, yShape, 3).GetTensorMutableRawData();
    problem.sizeOut = context.GetOutput(1, yShape, 2).GetTensorMutableData<float>();
    problem.kept = context.GetOutput(2, yShape, 2).GetTensorMutableData<int64_t>();
    problem.target = context.GetOutput(3, targetShape, 2).GetTensorMutableData<int64_t>();
}

class LocalMerge
{
public:
    static constexpr bool kTakesShare = true;

    explicit LocalMerge(OrtKernelInfo const* info)
        : mSettings(readSettings(Ort::ConstKernelInfo{info}, true))
    {
    }

    void compute(Ort::KernelContext const& context) const
    {
        Ort::ConstValue const x = context.GetInput(0);
        Problem problem = problemOf(x, context.GetInput(1), context.GetInput(2));
        Settings const settings = settingsOf(mSettings, context);
        makeOutputs(context, problem, problem.tokens - removedTokens(settings, problem.tokens));
        Scratch const scratch(context, x, workspaceBytes(settings, problem.batch, problem.tokens));
        auto const stream = streamOf(context);
        check(launchLocalMerge(settings, problem, scratch.get(), stream), "LocalMerge");
    }

private:
    Settings mSettings;
};

constexpr size_t kNumberBytes = 256;  // of a number in front of a workspace, which stays aligned

// Lengths of outputs are known on the device first: the one place that waits for the stream.
template <typename Number>
int64_t awaited(Number const* onDevice, cudaStream_t stream, char const* what)
{
    Number number = 0;
    check(cudaMemcpyAsync(&number, onDevice, sizeof(number), cudaMemcpyDeviceToHost, stream), what);
    check(cudaStreamSynchronize(stream), what);
    return static_cast<int64_t>(number);
}

inline float thresholdLimit(OrtKernelInfo const* info)
{
    return rankLimit(real(Ort::ConstKernelInfo{info}, "threshold", -1, 1));
}

class DynamicMerge
{
public:
    static constexpr bool kTakesShare = false;

    explicit DynamicMerge(OrtKernelInfo const* info)
        : mSettings(readSettings(Ort::ConstKernelInfo{info}, false))
        , mLimit(thresholdLimit(info))
    {
    }

    void compute(Ort::KernelContext const& context) const
    {
        Ort::ConstValue const x = context.GetInput(0);
        Problem problem = problemOf(x, context.GetInput(1), context.GetInput(2));
        int64_t const most = problem.batch == 0 ? 0 : mostRemoved(mSettings, problem.tokens);
        auto const stream = streamOf(context);
        Scratch const scratch(
            context, x, kNumberBytes + workspaceBytes(mSettings, problem.batch, problem.tokens));
        auto* const exceeding = static_cast<unsigned long long*>(scratch.get());
        void* const workspace = static_cast<unsigned char*>(scratch.get()) + kNumberBytes;
        int64_t removed = 0;
        if (most > 0)
        {
            check(launchCount(mSettings, problem, mLimit, exceeding, workspace, stream), "DynamicMerge");
            removed = std::min(awaited(exceeding, stream, "DynamicMerge") / problem.batch, most);
        }
        makeOutputs(context, problem, problem.tokens - removed);
        check(launchPlace(mSettings, problem, removed, workspace, stream), "DynamicMerge");
    }

private:
    Settings mSettings;
    float mLimit;
};

class SeriesMerge
{
public:
    static constexpr bool kTakesShare = false;

    explicit SeriesMerge(OrtKernelInfo const* info)
        : mSettings(readSettings(Ort::ConstKernelInfo{info}, false))
        , mLimit(thresholdLimit(info))
    {
    }

    void compute(Ort::KernelContext const& context) const
    {
        Ort::ConstValue const x = context.GetInput(0);
        Problem problem = problemOf(x, context.GetInput(1), context.GetInput(2));
        auto const stream = streamOf(context);
        Scratch const scratch(
            context, x, kNumberBytes + seriesWorkspaceBytes(mSettings, problem.batch, problem.tokens));
        auto* const longest = static_cast<int*>(scratch.get());
        void* const workspace = static_cast<unsigned char*>(scratch.get()) + kNumberBytes;
        check(launchSeriesCount(mSettings, problem, mLimit, longest, workspace, stream), "SeriesMerge");
        int64_t const left
            = std::max(awaited(longest, stream, "SeriesMerge"), leastLeft(mSettings, problem.tokens));
        makeOutputs(context, problem, left);
        check(launchSeriesPlace(mSettings, problem, left, workspace, stream), "SeriesMerge");
    }

private:
    Settings mSettings;
    float mLimit;
};

}  // namespace tsmerge
