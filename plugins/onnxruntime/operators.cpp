// The operators as ONNX Runtime's custom operators: tsmerge::LocalMerge and tsmerge::DynamicMerge on the CPU.
#include "match.h"
#include "ort.h"
#include "run.h"
#include "settings.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>
#include <string>
#include <vector>

namespace tsmerge
{

namespace
{

// The oldest ONNX Runtime that has what is used here, 1.17; with newer headers too.
constexpr uint32_t kApi = std::min(ORT_API_VERSION, 17);

// Upper ends of the ranges of the schema.
constexpr int64_t kMost = 1000000000;
constexpr int64_t kRatioMost = 1000000;

[[noreturn]] void refuse(std::string const& why)
{
    throw Ort::Exception(std::string(why), ORT_INVALID_ARGUMENT);
}

// An attribute from least to most; an optional one that is absent is 0.
int64_t integer(
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

Settings readSettings(Ort::ConstKernelInfo const& info)
{
    Settings settings;
    settings.k = integer(info, "k", 0, kMost);
    settings.minTokens = integer(info, "min_tokens", 0, kMost);
    settings.first = integer(info, "protect_first", 0, kMost);
    settings.last = integer(info, "protect_last", 0, kMost);
    settings.similarity = static_cast<Similarity>(integer(info, "similarity", 0, 2, true));
    settings.causal = integer(info, "causal", 0, 1, true) != 0;
    if (settings.causal && (settings.k != 1 || settings.first < 1))
    {
        refuse("causal needs k = 1 and protect_first >= 1");
    }
    return settings;
}

// How many tokens merge: LocalMerge knows it from the length.
class ByLength
{
public:
    explicit ByLength(Ort::ConstKernelInfo const& info)
        : mAmount{integer(info, "r", 0, kMost), integer(info, "ratio_num", 0, kRatioMost),
              integer(info, "ratio_den", 1, kRatioMost)}
    {
        if (2 * mAmount.ratioNum > mAmount.ratioDen || (mAmount.ratioNum > 0 && mAmount.r > 0))
        {
            refuse("a ratio must be at most 1/2, and excludes r");
        }
    }

    static constexpr bool kFromRanks = false;

    int64_t removed(Problem const& problem, Match const*) const
    {
        return mAmount.of(problem.tokens, problem.settings);
    }

private:
    Amount mAmount;
};

// DynamicMerge: the mean over the rows of how many ranks exceed a threshold, rounded down.
class ByThreshold
{
public:
    explicit ByThreshold(Ort::ConstKernelInfo const& info)
    {
        float const steps = std::nearbyint(info.GetAttribute<float>("threshold") * kSteps);
        // Sums of floats may put the cosine of equal tokens a step or two above 1 (those of products.cpp do not: dot
        // and norms add in one order); there only padding may count.
        mLimit = steps >= kSteps ? 1.5F * kSteps : steps;
    }

    static constexpr bool kFromRanks = true;

    // Without ranks: the most that it may be.
    int64_t removed(Problem const& problem, Match const* matching) const
    {
        int64_t const most = problem.batch == 0 ? 0 : problem.settings.most(problem.tokens);
        if (matching == nullptr)
        {
            return most;
        }
        int64_t exceeding = 0;
        for (int64_t row = 0; row < problem.batch; ++row)
        {
            float const* const ranks = matching->ranks(row);
            exceeding += std::count_if(ranks, ranks + matching->countA(), [&](float rank) { return rank > mLimit; });
        }
        return std::min(exceeding / problem.batch, most);
    }

private:
    float mLimit;
};

template <typename Count>
class Kernel
{
public:
    explicit Kernel(OrtKernelInfo const* info)
        : mSettings(readSettings(Ort::ConstKernelInfo{info}))
        , mCount(Ort::ConstKernelInfo{info})
    {
    }

    OrtStatusPtr ComputeV2(OrtKernelContext* raw) noexcept
    {
        try
        {
            compute(Ort::KernelContext{raw});
        }
        catch (std::exception const& error)
        {
            return Ort::Status(error.what(), ORT_FAIL).release();
        }
        return nullptr;
    }

private:
    void compute(Ort::KernelContext const& context) const
    {
        Ort::ConstValue const x = context.GetInput(0);
        Ort::ConstValue const metric = context.GetInput(1);
        Ort::ConstValue const size = context.GetInput(2);
        std::vector<int64_t> const shape = x.GetTensorTypeAndShapeInfo().GetShape();
        std::vector<int64_t> const compared = metric.GetTensorTypeAndShapeInfo().GetShape();
        if (shape.size() != 3 || compared.size() != 3 || compared[0] != shape[0] || compared[1] != shape[1]
            || size.GetTensorTypeAndShapeInfo().GetShape() != std::vector<int64_t>{shape[0], shape[1]})
        {
            refuse("x [B, N, D], metric [B, N, Dm] and size [B, N] differ in B or N");
        }
        if (shape[1] > std::numeric_limits<int32_t>::max())
        {
            refuse("a row has more than 2^31 - 1 tokens");
        }
        Problem const problem{size.GetTensorData<float>(), shape[0], shape[1], shape[2], mSettings};
        if (mCount.removed(problem, nullptr) == 0)
        {
            return copyAll(context, problem, x);
        }
        std::vector<float> storage;
        float const* const features = asFloats(metric, compared[0] * compared[1] * compared[2], storage);
        Match matching(features, problem.size, problem.batch, problem.tokens, compared[2], mSettings);
        if (Count::kFromRanks)
        {
            match(context, problem, matching);
        }
        int64_t const removed = mCount.removed(problem, &matching);
        if (removed == 0)
        {
            return copyAll(context, problem, x);
        }
        merge(context, problem, x, matching, removed, Count::kFromRanks);
    }

    Settings mSettings;
    Count mCount;
};

template <typename Count>
class Operator : public Ort::CustomOpBase<Operator<Count>, Kernel<Count>, true>
{
public:
    Operator(char const* name, ONNXTensorElementDataType x, ONNXTensorElementDataType metric)
        : mName(name)
        , mX(x)
        , mMetric(metric)
    {
        OrtCustomOp::version = kApi;
    }

    OrtStatusPtr CreateKernelV2(OrtApi const&, OrtKernelInfo const* info, void** kernel) const noexcept
    {
        try
        {
            *kernel = new Kernel<Count>(info);
        }
        catch (std::exception const& error)
        {
            return Ort::Status(error.what(), ORT_INVALID_ARGUMENT).release();
        }
        return nullptr;
    }

    char const* GetName() const
    {
        return mName;
    }
    size_t GetInputTypeCount() const
    {
        return 3;
    }
    ONNXTensorElementDataType GetInputType(size_t index) const
    {
        return index == 0 ? mX : index == 1 ? mMetric : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    }
    size_t GetOutputTypeCount() const
    {
        return 4;
    }
    ONNXTensorElementDataType GetOutputType(size_t index) const
    {
        return index == 0 ? mX
            : index == 1  ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
                          : ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
    }

private:
    char const* mName;
    ONNXTensorElementDataType mX;
    ONNXTensorElementDataType mMetric;
};

// An operator for every pair of types of x and metric.
template <typename Count>
std::vector<Operator<Count>> operators(char const* name)
{
    std::vector<Operator<Count>> made;
    auto const types = {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16};
    for (auto const x : types)
    {
        for (auto const metric : types)
        {
            made.emplace_back(name, x, metric);
        }
    }
    return made;
}

} // namespace

} // namespace tsmerge

extern "C" __attribute__((visibility("default"))) OrtStatus* ORT_API_CALL RegisterCustomOps(
    OrtSessionOptions* options, OrtApiBase const* base)
{
    OrtApi const* const api = base->GetApi(tsmerge::kApi);
    if (api == nullptr)
    {
        return base->GetApi(1)->CreateStatus(ORT_FAIL, "it needs ONNX Runtime 1.17 or newer");
    }
    Ort::InitApi(api);
    try
    {
        // ONNX Runtime keeps pointers to both for as long as any session lives.
        static auto const local = tsmerge::operators<tsmerge::ByLength>("LocalMerge");
        static auto const dynamic = tsmerge::operators<tsmerge::ByThreshold>("DynamicMerge");
        static Ort::CustomOpDomain domain = []
        {
            Ort::CustomOpDomain made{"tsmerge"};
            for (auto const& each : local)
            {
                made.Add(&each);
            }
            for (auto const& each : dynamic)
            {
                made.Add(&each);
            }
            return made;
        }();
        Ort::UnownedSessionOptions{options}.Add(domain);
    }
    catch (std::exception const& error)
    {
        return api->CreateStatus(ORT_FAIL, error.what());
    }
    return nullptr;
}
