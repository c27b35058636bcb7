// Launches of a merge: match, select, combine.
#include "local_merge.h"

#include "combine.cuh"
#include "count.cuh"
#include "launch.cuh"
#include "match.cuh"
#include "select.cuh"
#include "series.cuh"

#include <algorithm>
#include <climits>

namespace tsmerge
{
namespace
{

constexpr int64_t kNearMost = 4;         // up to this k: matchNear

// Sizes that follow from the settings and N.
struct Plan
{
    int64_t left;
    int64_t countA;  // 0 when nothing is merged
    int64_t countB;
    int64_t tilesA;
    bool near;
};

// `free` of the tokens take part in merging: all that are unprotected, or none.
Plan planFor(Settings const& settings, int64_t left, int64_t free)
{
    Plan plan{};
    plan.left = left;
    plan.countA = (free + 1) / 2;
    plan.countB = free / 2;
    plan.tilesA = (plan.countA + kTileA - 1) / kTileA;
    plan.near = settings.k >= 1 && settings.k <= kNearMost;
    return plan;
}

int64_t splitsFor(Settings const& settings, Plan const& plan, int64_t batch)
{
    if (plan.near || plan.countA == 0)
    {
        return 1;
    }
    int64_t const reach
        = settings.k == 0 ? plan.countB : std::min<int64_t>(plan.countB, kTileA + 2 * settings.k - 2);
    return splitsOf(batch * plan.tilesA, reach);
}

// Scratch memory, as offsets. Entries of best are rounded up so that the total never falls when batch or tokens grow.
struct Workspace
{
    size_t best;
    size_t into;
    size_t slots;
    size_t largest;
    size_t keys;
    size_t bytes;   // of these; behind them what SeriesMerge knows of its rows:
    size_t free;
    size_t removed;
    size_t seriesBytes;
};

Workspace workspaceFor(Settings const& settings, int64_t batch, int64_t tokens)
{
    auto const rows = static_cast<size_t>(std::max<int64_t>(batch, 0));
    auto const most = static_cast<size_t>((std::max<int64_t>(tokens, 0) + 1) / 2);  // a's, and pairs
    bool const near = settings.k >= 1 && settings.k <= kNearMost;
    size_t const tiles = (most + kTileA - 1) / kTileA;
    size_t const entries = near ? rows * most : (kTargetBlocks + rows * tiles) * kTileA;
    Workspace space{};
    space.into = aligned(entries * sizeof(unsigned long long));
    space.slots = space.into + aligned(rows * most * sizeof(int));
    space.largest = space.slots + aligned(rows * static_cast<size_t>(std::max<int64_t>(tokens, 0)) * sizeof(Slot));
    space.keys = space.largest + aligned(rows * sizeof(unsigned));
    space.bytes = space.keys + (most > kKeysOnChip ? aligned(rows * most * sizeof(unsigned)) : 0);
    space.free = space.bytes;
    space.removed = space.free + aligned(rows * sizeof(int));
    space.seriesBytes = space.removed + aligned(rows * sizeof(int));
    return space;
}

// One merge: what every launch needs.
struct Call
{
    Problem const& problem;
    Plan plan;
    Layout layout;
    int64_t splits;
    unsigned long long* best;
    int* into;
    Slot* slots;
    unsigned* largest;
    unsigned* keys;
    cudaStream_t stream;
};

Call callFor(Settings const& settings, Problem const& problem, int64_t left, int64_t free, void* workspace,
    cudaStream_t stream)
{
    Plan const plan = planFor(settings, left, free);
    Workspace const space = workspaceFor(settings, problem.batch, problem.tokens);
    auto* const base = static_cast<unsigned char*>(workspace);
    Layout layout{};
    layout.tokens = problem.tokens;
    layout.left = static_cast<int>(left);
    layout.first = static_cast<int>(free == 0 ? problem.tokens : settings.protectFirst);
    layout.countA = static_cast<int>(plan.countA);
    layout.countB = static_cast<int>(plan.countB);
    layout.k = static_cast<int>(std::min<int64_t>(settings.k, kTokensMost));
    layout.similarity = settings.similarity;
    layout.causal = settings.causal;
    return Call{problem, plan, layout, splitsFor(settings, plan, problem.batch),
        reinterpret_cast<unsigned long long*>(base + space.best), reinterpret_cast<int*>(base + space.into),
        reinterpret_cast<Slot*>(base + space.slots), reinterpret_cast<unsigned*>(base + space.largest),
        reinterpret_cast<unsigned*>(base + space.keys), stream};
}

// Every row loses `removed` tokens; where that is 0, there is nothing to compare.
Call evenCall(
    Settings const& settings, Problem const& problem, int64_t removed, void* workspace, cudaStream_t stream)
{
    int64_t const free = removed == 0 ? 0 : unprotected(settings, problem.tokens);
    return callFor(settings, problem, problem.tokens - removed, free, workspace, stream);
}

// Every row loses its own; numbers of the rows are in the workspace.
struct SeriesCall
{
    Call call;
    int* free;
    int* removed;
};

SeriesCall seriesCall(
    Settings const& settings, Problem const& problem, int64_t left, void* workspace, cudaStream_t stream)
{
    Workspace const space = workspaceFor(settings, problem.batch, problem.tokens);
    auto* const base = static_cast<unsigned char*>(workspace);
    Call call = callFor(settings, problem, left, unprotected(settings, problem.tokens), workspace, stream);
    auto* const free = reinterpret_cast<int*>(base + space.free);
    auto* const removed = reinterpret_cast<int*>(base + space.removed);
    call.layout.freeOf = free;
    call.layout.removedOf = removed;
    return SeriesCall{call, free, removed};
}

template <typename T, int W>
cudaError_t launchLargest(Call const& call)
{
    Problem const& problem = call.problem;
    cudaError_t const status
        = cudaMemsetAsync(call.largest, 0, static_cast<size_t>(problem.batch) * sizeof(unsigned), call.stream);
    if (status != cudaSuccess)
    {
        return status;
    }
    unsigned const lanes = lanesFor(problem.metricFeatures / W);
    int64_t const perBlock = kMatchThreads / lanes;
    int64_t const groups = problem.batch * (call.plan.countA + call.plan.countB);
    return launch(&findLargest<T, W>, (groups + perBlock - 1) / perBlock, kMatchThreads, 0, call.stream,
        static_cast<T const*>(problem.metric), problem.size, call.largest, call.layout, problem.batch,
        problem.metricFeatures, lanes);
}

template <typename T, int W>
cudaError_t launchNear(Call const& call)
{
    Problem const& problem = call.problem;
    unsigned const lanes = lanesFor(problem.metricFeatures / W);
    int64_t const perBlock = kMatchThreads / lanes;
    int64_t const blocks = (problem.batch * call.layout.countA + perBlock - 1) / perBlock;
    return launch(&matchNear<T, W>, blocks, kMatchThreads, 0, call.stream, static_cast<T const*>(problem.metric),
        problem.size, call.largest, call.best, call.layout, problem.batch, problem.metricFeatures, lanes);
}

template <typename T>
cudaError_t launchMatch(Call const& call)
{
    Problem const& problem = call.problem;
    bool const whole = wholePacks(problem.metric, problem.metricFeatures, sizeof(T));
    if (call.layout.similarity != Similarity::kCosine)
    {
        cudaError_t const status = whole ? launchLargest<T, kPackWidth<T>>(call) : launchLargest<T, 1>(call);
        if (status != cudaSuccess)
        {
            return status;
        }
    }
    if (call.plan.near)
    {
        return whole ? launchNear<T, kPackWidth<T>>(call) : launchNear<T, 1>(call);
    }
    return launch(&matchTiles<T>, problem.batch * call.plan.tilesA * call.splits, kTileThreads, sizeof(TileShared),
        call.stream, static_cast<T const*>(problem.metric), problem.size, call.largest, call.best, call.layout,
        problem.metricFeatures, call.splits, whole);
}

template <typename Index>
cudaError_t launchSelect(Call const& call)
{
    Problem const& problem = call.problem;
    int64_t const countA = call.plan.countA;
    int64_t const each = (std::max<int64_t>(countA / 2, 1) + kWarp - 1) / kWarp * kWarp;
    int64_t const threads = std::min<int64_t>(kSelectThreads, std::max<int64_t>(each, 64));
    size_t const onChip = countA <= kKeysOnChip ? static_cast<size_t>(countA) : 0;
    return launch(&selectBest<Index>, problem.batch, threads, sizeof(SelectShared) + onChip * sizeof(unsigned),
        call.stream, problem.size, call.best, call.keys, call.into, call.slots, static_cast<Index*>(problem.kept),
        static_cast<Index*>(problem.target), call.layout, call.splits);
}

cudaError_t matchAll(Call const& call)
{
    return withType(call.problem.metricType,
        [&](auto* type) { return launchMatch<std::remove_pointer_t<decltype(type)>>(call); });
}

cudaError_t placeAll(Call const& call)
{
    cudaError_t const status = call.problem.wideIndex ? launchSelect<int64_t>(call) : launchSelect<int32_t>(call);
    if (status != cudaSuccess)
    {
        return status;
    }
    return launchCombine<false>(call.problem, call.layout, nullptr, call.into, call.slots, call.stream);
}

}  // namespace

size_t workspaceBytes(Settings const& settings, int64_t batch, int64_t tokens) noexcept
{
    return workspaceFor(settings, batch, tokens).bytes;
}

cudaError_t launchLocalMerge(
    Settings const& settings, Problem const& problem, void* workspace, cudaStream_t stream) noexcept
{
    cudaError_t status;
    if (settled(problem, status))
    {
        return status;
    }
    Call const call = evenCall(settings, problem, removedTokens(settings, problem.tokens), workspace, stream);
    status = call.plan.countA > 0 ? matchAll(call) : cudaSuccess;
    return status == cudaSuccess ? placeAll(call) : status;
}

cudaError_t launchCount(Settings const& settings, Problem const& problem, float limit, unsigned long long* exceeding,
    void* workspace, cudaStream_t stream) noexcept
{
    cudaError_t status = cudaMemsetAsync(exceeding, 0, sizeof(*exceeding), stream);
    if (status != cudaSuccess || settled(problem, status))
    {
        return status;
    }
    Call const call = evenCall(settings, problem, mostRemoved(settings, problem.tokens), workspace, stream);
    if (call.plan.countA == 0)
    {
        return cudaSuccess;
    }
    status = matchAll(call);
    if (status != cudaSuccess)
    {
        return status;
    }
    return launch(&countExceeding, problem.batch, kCountThreads, 0, stream, problem.size, call.best, exceeding,
        call.layout, call.splits, limit);
}

cudaError_t launchPlace(Settings const& settings, Problem const& problem, int64_t removed, void* workspace,
    cudaStream_t stream) noexcept
{
    cudaError_t status;
    if (settled(problem, status))
    {
        return status;
    }
    return placeAll(evenCall(settings, problem, removed, workspace, stream));
}

size_t seriesWorkspaceBytes(Settings const& settings, int64_t batch, int64_t tokens) noexcept
{
    return workspaceFor(settings, batch, tokens).seriesBytes;
}

cudaError_t launchSeriesCount(Settings const& settings, Problem const& problem, float limit, int* longest,
    void* workspace, cudaStream_t stream) noexcept
{
    cudaError_t status = cudaMemsetAsync(longest, 0, sizeof(*longest), stream);
    if (status != cudaSuccess || settled(problem, status))
    {
        return status;
    }
    auto const [call, free, removed] = seriesCall(settings, problem, problem.tokens, workspace, stream);
    status = launch(&findFree, (problem.batch + kFreeRows - 1) / kFreeRows, kFreeRows * kWarp, 0, stream, problem.size,
        free, call.layout, problem.batch);
    if (status == cudaSuccess && call.plan.countA > 0)
    {
        status = matchAll(call);
    }
    if (status != cudaSuccess)
    {
        return status;
    }
    return launch(&countSeries, problem.batch, kCountThreads, sizeof(CountShared), stream, problem.size, call.best,
        removed, longest, call.layout, call.splits, limit, settings.minTokens);
}

cudaError_t launchSeriesPlace(Settings const& settings, Problem const& problem, int64_t left, void* workspace,
    cudaStream_t stream) noexcept
{
    cudaError_t status;
    if (settled(problem, status))
    {
        return status;
    }
    return placeAll(seriesCall(settings, problem, left, workspace, stream).call);
}

}  // namespace tsmerge
