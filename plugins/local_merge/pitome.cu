// Launches of PiToMe: energies, order, match, place, combine.
#include "pitome.h"

#include "links_launch.cuh"
#include "pitome.cuh"

namespace tsmerge
{
namespace
{

struct Space
{
    Span span;
    int64_t removed;
    int64_t splits;       // of energies
    int64_t matchSplits;  // of the best b's
    EnergySum* sums;
    unsigned* rank;
    int* order;
    unsigned long long* best;
    int* into;
    Slot* slots;
    size_t bytes;

    Space(Settings const& settings, int64_t batch, int64_t tokens, void* memory)
        : span{spanOf(settings, tokens)}
        , removed{removedTokens(settings, tokens)}
        , splits{splitsOf(tilesOf(batch, span.count), span.count)}
        , matchSplits{splitsOf(tilesOf(batch, removed), removed)}
    {
        Parts parts{memory};
        int64_t const all = batch * span.count;
        sums = parts.take<EnergySum>(all * splits);
        rank = parts.take<unsigned>(all);
        order = parts.take<int>(all);
        best = parts.take<unsigned long long>(batch * removed * matchSplits);
        into = parts.take<int>(batch * tokens);
        slots = parts.take<Slot>(batch * (tokens - removed));
        bytes = parts.bytes();
    }
};

cudaError_t launchEnergies(Space const& space, Energy const& energy, Problem const& problem, cudaStream_t stream)
{
    cudaError_t const status = withType(problem.metricType,
        [&](auto* type)
        {
            using T = std::remove_pointer_t<decltype(type)>;
            return launch(&sumEnergies<T>, tilesOf(problem.batch, space.span.count) * space.splits, kTileThreads,
                sizeof(TileShared), stream, static_cast<T const*>(problem.metric), problem.size, space.sums,
                space.span, energy, problem.metricFeatures, space.splits,
                wholePacks(problem.metric, problem.metricFeatures, sizeof(T)));
        });
    if (status != cudaSuccess)
    {
        return status;
    }
    int64_t const all = problem.batch * space.span.count;
    return launch(&rankEnergies, (all + kRankThreads - 1) / kRankThreads, kRankThreads, 0, stream, problem.size,
        space.sums, space.rank, space.span, all, space.splits);
}

template <typename Index>
cudaError_t launchPlaces(Space const& space, Lists const& lists, Problem const& problem, cudaStream_t stream)
{
    return launch(&placePairs<Index>, problem.batch, threadsFor(problem.tokens), kWarp * sizeof(unsigned), stream,
        space.best, space.into, space.slots, static_cast<Index*>(problem.kept), static_cast<Index*>(problem.target),
        space.span, lists, problem.tokens - space.removed, space.matchSplits);
}

}  // namespace

size_t pitomeWorkspaceBytes(Settings const& settings, int64_t batch, int64_t tokens) noexcept
{
    return std::max(Space{settings, batch, tokens, nullptr}.bytes, workspaceBytes(settings, batch, tokens));
}

cudaError_t launchPitome(Settings const& settings, Energy const& energy, Problem const& problem, void* workspace,
    cudaStream_t stream) noexcept
{
    cudaError_t status;
    if (settled(problem, status))
    {
        return status;
    }
    Space const space{settings, problem.batch, problem.tokens, workspace};
    if (space.removed == 0)
    {
        return launchPlace(settings, problem, 0, workspace, stream);
    }
    status = launchEnergies(space, energy, problem, stream);
    if (status == cudaSuccess)
    {
        status = launchOrder(space.rank, space.order, space.span, problem.batch, stream);
    }
    auto const each = static_cast<int>(space.removed);
    Lists const lists{space.order, each, each, 0, 1, 2, false};
    if (status == cudaSuccess)
    {
        status = launchLists(problem, space.span, lists, space.matchSplits, space.best, stream);
    }
    if (status == cudaSuccess)
    {
        status = problem.wideIndex ? launchPlaces<int64_t>(space, lists, problem, stream)
                                   : launchPlaces<int32_t>(space, lists, problem, stream);
    }
    if (status != cudaSuccess)
    {
        return status;
    }
    Layout const layout = layoutOf(problem.tokens, problem.tokens - space.removed);
    return launchCombine<false>(problem, layout, nullptr, space.into, space.slots, stream);
}

}  // namespace tsmerge
