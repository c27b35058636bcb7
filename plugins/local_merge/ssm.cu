// Launches of token reduction for state-space models: importance, order, match, place, combine.
#include "ssm.h"

#include "links_launch.cuh"
#include "ssm.cuh"

namespace tsmerge
{
namespace
{

struct Space
{
    Span span;
    int64_t removed;
    Lists lists;
    int64_t splits;
    float* sums;
    unsigned* largest;
    unsigned* rank;
    int* order;
    unsigned long long* best;
    unsigned* keys;
    float* weight;
    float* residual;
    int* into;
    Slot* slots;
    size_t bytes;

    Space(Settings const& settings, int64_t batch, int64_t tokens, void* memory)
        : span{spanOf(settings, tokens)}
        , removed{removedTokens(settings, tokens)}
        , lists{}
    {
        lists.countA = span.count / 2;  // R9.4
        lists.countB = span.count - lists.countA;
        lists.startA = lists.countB;
        lists.step = 1;
        lists.byIndex = true;
        splits = splitsOf(tilesOf(batch, lists.countA), lists.countB);
        Parts parts{memory};
        int64_t const all = batch * span.count;
        sums = parts.take<float>(all);
        largest = parts.take<unsigned>(batch);
        rank = parts.take<unsigned>(all);
        order = parts.take<int>(all);
        best = parts.take<unsigned long long>(batch * lists.countA * splits);
        keys = parts.take<unsigned>(span.count > kKeysOnChip ? all : 0);
        weight = parts.take<float>(batch * tokens);
        residual = parts.take<float>(batch * tokens);
        into = parts.take<int>(batch * tokens);
        slots = parts.take<Slot>(batch * (tokens - removed));
        bytes = parts.bytes();
        lists.order = order;
    }
};

template <typename T, int W>
cudaError_t launchSums(Space const& space, Problem const& problem, cudaStream_t stream)
{
    unsigned const lanes = lanesFor(problem.metricFeatures / W);
    int64_t const perBlock = kWeighThreads / lanes;
    int64_t const all = problem.batch * space.span.count;
    return launch(&sumPositive<T, W>, (all + perBlock - 1) / perBlock, kWeighThreads, 0, stream,
        static_cast<T const*>(problem.metric), problem.size, space.sums, space.largest, space.span, all,
        problem.metricFeatures, lanes);
}

cudaError_t launchImportance(Space const& space, Problem const& problem, cudaStream_t stream)
{
    cudaError_t status
        = cudaMemsetAsync(space.largest, 0, static_cast<size_t>(problem.batch) * sizeof(unsigned), stream);
    if (status != cudaSuccess)
    {
        return status;
    }
    status = withType(problem.metricType,
        [&](auto* type)
        {
            using T = std::remove_pointer_t<decltype(type)>;
            return wholePacks(problem.metric, problem.metricFeatures, sizeof(T))
                ? launchSums<T, kPackWidth<T>>(space, problem, stream)
                : launchSums<T, 1>(space, problem, stream);
        });
    if (status != cudaSuccess)
    {
        return status;
    }
    int64_t const all = problem.batch * space.span.count;
    return launch(&rankImportance, (all + kImportanceThreads - 1) / kImportanceThreads, kImportanceThreads, 0, stream,
        problem.size, space.sums, space.largest, space.rank, space.span, all);
}

template <typename Index>
cudaError_t launchPlaces(Space const& space, Pruning const& pruning, Problem const& problem, cudaStream_t stream)
{
    size_t const onChip = space.span.count <= kKeysOnChip ? static_cast<size_t>(space.span.count) : 0;
    return launch(&placeLinks<Index>, problem.batch, threadsFor(problem.tokens),
        sizeof(SelectShared) + onChip * sizeof(unsigned), stream, problem.size, space.best, space.keys, space.weight,
        pruning.residual.den == 0 ? nullptr : space.residual, space.into, space.slots,
        static_cast<Index*>(problem.kept), static_cast<Index*>(problem.target), space.span, space.lists, pruning,
        problem.tokens - space.removed, space.splits);
}

cudaError_t launchBranches(Space const& space, Problem const& problem, Layout const& layout, cudaStream_t stream)
{
    return withType(problem.xType,
        [&](auto* ofX)
        {
            using T = std::remove_pointer_t<decltype(ofX)>;
            return withType(problem.metricType,
                [&](auto* ofMetric)
                {
                    using M = std::remove_pointer_t<decltype(ofMetric)>;
                    unsigned const lanes = lanesFor(problem.features);
                    int64_t const perBlock = kCombineThreads / lanes;
                    int64_t const blocks = (problem.batch * layout.left + perBlock - 1) / perBlock;
                    return launch(&combineBranches<T, M>, blocks, kCombineThreads, 0, stream,
                        static_cast<T const*>(problem.x), static_cast<M const*>(problem.metric), problem.size,
                        space.weight, space.residual, space.into, space.slots, static_cast<T*>(problem.y),
                        problem.sizeOut, layout, problem.batch, problem.features, lanes);
                });
        });
}

}  // namespace

size_t ssmWorkspaceBytes(Settings const& settings, int64_t batch, int64_t tokens) noexcept
{
    return std::max(Space{settings, batch, tokens, nullptr}.bytes, workspaceBytes(settings, batch, tokens));
}

cudaError_t launchSsm(Settings const& settings, Pruning const& pruning, Problem const& problem, void* workspace,
    cudaStream_t stream) noexcept
{
    cudaError_t status;
    if (settled(problem, status))
    {
        return status;
    }
    bool const branches = pruning.residual.den != 0;
    if (branches && problem.features != problem.metricFeatures)
    {
        return cudaErrorInvalidValue;
    }
    Space const space{settings, problem.batch, problem.tokens, workspace};
    if (space.removed == 0)
    {
        return launchPlace(settings, problem, 0, workspace, stream);
    }
    status = launchImportance(space, problem, stream);
    if (status == cudaSuccess)
    {
        status = launchOrder(space.rank, space.order, space.span, problem.batch, stream);
    }
    if (status == cudaSuccess)
    {
        status = launchLists(problem, space.span, space.lists, space.splits, space.best, stream);
    }
    if (status == cudaSuccess)
    {
        status = problem.wideIndex ? launchPlaces<int64_t>(space, pruning, problem, stream)
                                   : launchPlaces<int32_t>(space, pruning, problem, stream);
    }
    if (status != cudaSuccess)
    {
        return status;
    }
    Layout const layout = layoutOf(problem.tokens, problem.tokens - space.removed);
    return branches ? launchBranches(space, problem, layout, stream)
                    : launchCombine<true>(problem, layout, space.weight, space.into, space.slots, stream);
}

}  // namespace tsmerge
