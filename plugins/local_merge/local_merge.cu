// Launches of local merging: match, select, combine.
#include "local_merge.h"

#include "combine.cuh"
#include "match.cuh"
#include "select.cuh"

#include <algorithm>
#include <climits>

namespace tsmerge
{
namespace
{

constexpr int64_t kNearMost = 4;         // up to this k: matchNear
constexpr int64_t kTargetBlocks = 256;   // matchTiles splits its b's until there are so many blocks
constexpr int64_t kSplitsMost = 16;
constexpr int64_t kTokensMost = 1 << 30;

// Sizes that follow from the settings and N.
struct Plan
{
    int64_t removed;
    int64_t left;
    int64_t countA;  // 0 when nothing is merged
    int64_t countB;
    int64_t tilesA;
    bool near;
};

Plan planFor(Settings const& settings, int64_t tokens)
{
    Plan plan{};
    plan.removed = removedTokens(settings, tokens);
    plan.left = tokens - plan.removed;
    int64_t const free = plan.removed == 0 ? 0 : tokens - settings.protectFirst - settings.protectLast;
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
    int64_t const tilesB = (reach + kTileB - 1) / kTileB;
    int64_t const wanted = (kTargetBlocks + batch * plan.tilesA - 1) / std::max<int64_t>(1, batch * plan.tilesA);
    return std::max<int64_t>(1, std::min({wanted, tilesB, kSplitsMost}));
}

size_t aligned(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

// Scratch memory, as offsets. Entries of best are rounded up so that the total never falls when batch or tokens grow.
struct Workspace
{
    size_t best;
    size_t into;
    size_t slots;
    size_t keys;
    size_t bytes;
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
    space.keys = space.slots + aligned(rows * static_cast<size_t>(std::max<int64_t>(tokens, 0)) * sizeof(Slot));
    space.bytes = space.keys + (most > kKeysOnChip ? aligned(rows * most * sizeof(unsigned)) : 0);
    return space;
}

// Lanes for a row of so many packs: a power of two up to a warp.
unsigned lanesFor(int64_t packs)
{
    unsigned lanes = 1;
    while (lanes < kWarp && static_cast<int64_t>(lanes) < packs)
    {
        lanes *= 2;
    }
    return lanes;
}

bool wholePacks(void const* pointer, int64_t features, size_t elementBytes)
{
    return reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && static_cast<size_t>(features) * elementBytes % 16 == 0;
}

template <typename... Arguments, typename... Given>
cudaError_t launch(void (*kernel)(Arguments...), int64_t blocks, int64_t threads, size_t sharedBytes,
    cudaStream_t stream, Given... given)
{
    if (blocks > INT_MAX)
    {
        return cudaErrorInvalidConfiguration;
    }
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(blocks));
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.dynamicSmemBytes = sharedBytes;
    config.stream = stream;
    return cudaLaunchKernelEx(&config, kernel, static_cast<Arguments>(given)...);
}

template <typename T, int W>
cudaError_t launchNear(Problem const& problem, Layout const& layout, unsigned long long* best, cudaStream_t stream)
{
    unsigned const lanes = lanesFor(problem.metricFeatures / W);
    int64_t const perBlock = kMatchThreads / lanes;
    int64_t const blocks = (problem.batch * layout.countA + perBlock - 1) / perBlock;
    return launch(&matchNear<T, W>, blocks, kMatchThreads, 0, stream, static_cast<T const*>(problem.metric),
        problem.size, best, layout, problem.batch, problem.metricFeatures, lanes);
}

template <typename T>
cudaError_t launchMatch(Problem const& problem, Plan const& plan, Layout const& layout, int64_t splits,
    unsigned long long* best, cudaStream_t stream)
{
    bool const whole = wholePacks(problem.metric, problem.metricFeatures, sizeof(T));
    if (plan.near)
    {
        return whole ? launchNear<T, kPackWidth<T>>(problem, layout, best, stream)
                     : launchNear<T, 1>(problem, layout, best, stream);
    }
    return launch(&matchTiles<T>, problem.batch * plan.tilesA * splits, kMatchThreads, sizeof(TileShared), stream,
        static_cast<T const*>(problem.metric), problem.size, best, layout, problem.metricFeatures, splits, whole);
}

template <typename T, int W>
cudaError_t launchCombine(
    Problem const& problem, Layout const& layout, int64_t left, int const* into, Slot const* slots, cudaStream_t stream)
{
    unsigned const lanes = lanesFor(problem.features / W);
    int64_t const perBlock = kCombineThreads / lanes;
    int64_t const blocks = (problem.batch * left + perBlock - 1) / perBlock;
    return launch(&combineTokens<T, W>, blocks, kCombineThreads, 0, stream, static_cast<T const*>(problem.x),
        problem.size, into, slots, static_cast<T*>(problem.y), problem.sizeOut, layout, problem.batch, left,
        problem.features, lanes);
}

template <typename T>
cudaError_t launchCombine(
    Problem const& problem, Layout const& layout, int64_t left, int const* into, Slot const* slots, cudaStream_t stream)
{
    bool const whole = wholePacks(problem.x, problem.features, sizeof(T))
        && wholePacks(problem.y, problem.features, sizeof(T));
    return whole ? launchCombine<T, kPackWidth<T>>(problem, layout, left, into, slots, stream)
                 : launchCombine<T, 1>(problem, layout, left, into, slots, stream);
}

template <typename Index>
cudaError_t launchSelect(Problem const& problem, Plan const& plan, Layout const& layout, int64_t splits,
    unsigned long long const* best, unsigned* keys, int* into, Slot* slots, cudaStream_t stream)
{
    int64_t const each = (std::max<int64_t>(plan.countA / 2, 1) + kWarp - 1) / kWarp * kWarp;
    int64_t const threads = std::min<int64_t>(kSelectThreads, std::max<int64_t>(each, 64));
    size_t const onChip = plan.countA <= kKeysOnChip ? static_cast<size_t>(plan.countA) : 0;
    return launch(&selectBest<Index>, problem.batch, threads, sizeof(SelectShared) + onChip * sizeof(unsigned), stream,
        problem.size, best, keys, into, slots, static_cast<Index*>(problem.kept), static_cast<Index*>(problem.target),
        layout, splits, plan.removed);
}

// Calls visit with a null pointer of the element type.
template <typename Visit>
cudaError_t withType(Element type, Visit visit)
{
    switch (type)
    {
    case Element::kFLOAT32: return visit(static_cast<float*>(nullptr));
    case Element::kFLOAT16: return visit(static_cast<__half*>(nullptr));
    case Element::kBFLOAT16: return visit(static_cast<__nv_bfloat16*>(nullptr));
    }
    return cudaErrorInvalidValue;
}

}  // namespace

int64_t removedTokens(Settings const& settings, int64_t tokens) noexcept
{
    int64_t const wanted
        = settings.ratioNum > 0 ? tokens * settings.ratioNum / settings.ratioDen : std::max<int64_t>(settings.r, 0);
    int64_t const pairs = std::max<int64_t>(tokens - settings.protectFirst - settings.protectLast, 0) / 2;
    return std::min({wanted, pairs, std::max<int64_t>(tokens - settings.minTokens, 0)});
}

size_t workspaceBytes(Settings const& settings, int64_t batch, int64_t tokens) noexcept
{
    return workspaceFor(settings, batch, tokens).bytes;
}

cudaError_t launchLocalMerge(
    Settings const& settings, Problem const& problem, void* workspace, cudaStream_t stream) noexcept
{
    if (problem.batch <= 0 || problem.tokens <= 0)
    {
        return cudaSuccess;
    }
    if (problem.tokens > kTokensMost || problem.metricFeatures < 1 || problem.features < 1
        || problem.metricFeatures > INT_MAX || problem.features > INT_MAX)
    {
        return cudaErrorInvalidValue;
    }
    Plan const plan = planFor(settings, problem.tokens);
    Workspace const space = workspaceFor(settings, problem.batch, problem.tokens);
    auto* const base = static_cast<unsigned char*>(workspace);
    auto* const best = reinterpret_cast<unsigned long long*>(base + space.best);
    auto* const into = reinterpret_cast<int*>(base + space.into);
    auto* const slots = reinterpret_cast<Slot*>(base + space.slots);
    auto* const keys = reinterpret_cast<unsigned*>(base + space.keys);
    Layout layout{};
    layout.tokens = problem.tokens;
    layout.first = static_cast<int>(plan.removed == 0 ? problem.tokens : settings.protectFirst);
    layout.countA = static_cast<int>(plan.countA);
    layout.countB = static_cast<int>(plan.countB);
    layout.k = static_cast<int>(std::min<int64_t>(settings.k, kTokensMost));
    int64_t const splits = splitsFor(settings, plan, problem.batch);

    cudaError_t status = cudaSuccess;
    if (plan.removed > 0)
    {
        status = withType(problem.metricType,
            [&](auto* type)
            {
                using T = std::remove_pointer_t<decltype(type)>;
                return launchMatch<T>(problem, plan, layout, splits, best, stream);
            });
    }
    if (status == cudaSuccess)
    {
        status = problem.wideIndex
            ? launchSelect<int64_t>(problem, plan, layout, splits, best, keys, into, slots, stream)
            : launchSelect<int32_t>(problem, plan, layout, splits, best, keys, into, slots, stream);
    }
    if (status == cudaSuccess)
    {
        status = withType(problem.xType,
            [&](auto* type)
            {
                using T = std::remove_pointer_t<decltype(type)>;
                return launchCombine<T>(problem, layout, plan.left, into, slots, stream);
            });
    }
    return status;
}

}  // namespace tsmerge
