// The operators as ONNX Runtime's custom operators: tsmerge::LocalMerge and tsmerge::DynamicMerge on the CPU.
#include "attributes.h"
#include "custom_op.h"
#include "match.h"
#include "run.h"

#include <algorithm>
#include <limits>
#include <vector>

namespace tsmerge
{

namespace
{

// How many tokens merge: LocalMerge knows it from the length.
class ByLength
{
public:
    explicit ByLength(Ort::ConstKernelInfo const&) {}

    static constexpr bool kFromRanks = false;

    int64_t removed(Problem const& problem, Match const*) const
    {
        return removedTokens(problem.settings, problem.tokens);
    }
};

// DynamicMerge: the mean over the rows of how many ranks exceed a threshold, rounded down.
class ByThreshold
{
public:
    explicit ByThreshold(Ort::ConstKernelInfo const& info)
        : mLimit(rankLimit(info.GetAttribute<float>("threshold")))
    {
    }

    static constexpr bool kFromRanks = true;

    // Without ranks: the most that it may be.
    int64_t removed(Problem const& problem, Match const* matching) const
    {
        int64_t const most = problem.batch == 0 ? 0 : mostRemoved(problem.settings, problem.tokens);
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
    static constexpr bool kTakesShare = !Count::kFromRanks;

    explicit Kernel(OrtKernelInfo const* info)
        : mSettings(readSettings(Ort::ConstKernelInfo{info}, !Count::kFromRanks))
        , mCount(Ort::ConstKernelInfo{info})
    {
    }

    void compute(Ort::KernelContext const& context) const
    {
        Ort::ConstValue const x = context.GetInput(0);
        Ort::ConstValue const metric = context.GetInput(1);
        Ort::ConstValue const size = context.GetInput(2);
        Sizes const sizes = readSizes(x, metric, size);
        if (sizes.tokens > std::numeric_limits<int32_t>::max())
        {
            refuse("a row has more than 2^31 - 1 tokens");
        }
        Settings const settings = kTakesShare ? settingsOf(mSettings, context) : mSettings;
        Problem const problem{size.GetTensorData<float>(), sizes.batch, sizes.tokens, sizes.features, settings};
        if (mCount.removed(problem, nullptr) == 0)
        {
            return copyAll(context, problem, x);
        }
        std::vector<float> storage;
        float const* const features
            = asFloats(metric, sizes.batch * sizes.tokens * sizes.metricFeatures, storage);
        Match matching(features, problem.size, problem.batch, problem.tokens, sizes.metricFeatures, settings);
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

private:
    Settings mSettings;
    Count mCount;
};

Ort::CustomOpDomain makeDomain()
{
    static std::vector<Operator<Kernel<ByLength>>> local;
    static std::vector<Operator<Kernel<ByThreshold>>> dynamic;
    Ort::CustomOpDomain domain{"tsmerge"};
    add(domain, local, "LocalMerge", nullptr);
    add(domain, dynamic, "DynamicMerge", nullptr);
    return domain;
}

} // namespace

} // namespace tsmerge

extern "C" __attribute__((visibility("default"))) OrtStatus* ORT_API_CALL RegisterCustomOps(
    OrtSessionOptions* options, OrtApiBase const* base)
{
    return tsmerge::registerDomain(options, base,
        []() -> Ort::CustomOpDomain&
        {
            static Ort::CustomOpDomain domain = tsmerge::makeDomain();
            return domain;
        });
}
