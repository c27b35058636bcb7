// The operators as ONNX Runtime's custom operators: tsmerge::LocalMerge, tsmerge::DynamicMerge and tsmerge::SeriesMerge on
// the CPU.
#include "amounts.h"
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
        Problem problem{size.GetTensorData<float>(), sizes.batch, sizes.tokens, sizes.features, settings, {}};
        for (int64_t row = 0; row < sizes.batch; ++row)
        {
            problem.free.push_back(Count::free(settings, problem.size + row * sizes.tokens, sizes.tokens));
        }
        if (unchanged(problem, mCount.amounts(problem, nullptr)))
        {
            return copyAll(context, problem, x);
        }
        std::vector<float> storage;
        float const* const features
            = asFloats(metric, sizes.batch * sizes.tokens * sizes.metricFeatures, storage);
        Match matching(features, sizes.metricFeatures, problem);
        if (Count::kFromRanks)
        {
            match(context, problem, matching);
        }
        Amounts const amounts = mCount.amounts(problem, &matching);
        if (unchanged(problem, amounts))
        {
            return copyAll(context, problem, x);
        }
        merge(context, problem, x, matching, amounts, Count::kFromRanks);
    }

private:
    // Of a row that loses some and is filled up again, R7.9, the length alone does not tell.
    static bool unchanged(Problem const& problem, Amounts const& amounts)
    {
        auto const& removed = amounts.removed;
        return amounts.left == problem.tokens
            && std::all_of(removed.begin(), removed.end(), [](int64_t count) { return count == 0; });
    }

    Settings mSettings;
    Count mCount;
};

Ort::CustomOpDomain makeDomain()
{
    static Operators<Kernel<ByLength>> local;
    static Operators<Kernel<ByThreshold>> dynamic;
    static Operators<Kernel<BySeries>> series;
    Ort::CustomOpDomain domain{"tsmerge"};
    add(domain, local, "LocalMerge", nullptr);
    add(domain, dynamic, "DynamicMerge", nullptr);
    add(domain, series, "SeriesMerge", nullptr);
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
