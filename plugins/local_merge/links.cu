// Tokens in the order of a rank, and the best partners of some of them.
#include "links_launch.cuh"

namespace tsmerge
{
namespace
{

constexpr unsigned kOrderThreads = 256;

// Grid: batch * ceil(count / kOrderThreads). rank [batch, count]; order [batch, count]: indices by falling rank, the
// lowest of equals first. A token's place is how many are in front of it.
__global__ void __launch_bounds__(kOrderThreads) findOrder(
    unsigned const* __restrict__ rank, int* __restrict__ order, int count)
{
    unsigned const blocks = (static_cast<unsigned>(count) + kOrderThreads - 1) / kOrderThreads;
    int64_t const row = blockIdx.x / blocks;
    int const u = static_cast<int>(blockIdx.x % blocks * kOrderThreads + threadIdx.x);
    if (u >= count)
    {
        return;
    }
    rank += row * count;
    unsigned const own = rank[u];
    int place = 0;
    for (int v = 0; v < count; ++v)
    {
        place += rank[v] > own || (rank[v] == own && v < u) ? 1 : 0;
    }
    order[row * count + place] = u;
}

}  // namespace

cudaError_t launchOrder(unsigned const* rank, int* order, Span const& span, int64_t batch, cudaStream_t stream)
{
    int64_t const blocks = batch * ((span.count + kOrderThreads - 1) / kOrderThreads);
    return launch(&findOrder, blocks, kOrderThreads, 0, stream, rank, order, span.count);
}

cudaError_t launchLists(Problem const& problem, Span const& span, Lists const& lists, int64_t splits,
    unsigned long long* best, cudaStream_t stream)
{
    return withType(problem.metricType,
        [&](auto* type)
        {
            using T = std::remove_pointer_t<decltype(type)>;
            return launch(&matchLists<T>, tilesOf(problem.batch, lists.countA) * splits, kTileThreads,
                sizeof(TileShared), stream, static_cast<T const*>(problem.metric), problem.size, best, span, lists,
                problem.metricFeatures, splits, wholePacks(problem.metric, problem.metricFeatures, sizeof(T)));
        });
}

}  // namespace tsmerge
