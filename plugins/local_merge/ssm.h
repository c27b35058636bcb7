// Token reduction for state-space models on the GPU: arXiv 2410.14725, section 4. The specification is
// tsmerge_export/methods/ssm/reference.py.
#pragma once

#include "local_merge.h"

namespace tsmerge
{

// num / den, at most 1; den = 0: none.
struct Share
{
    int64_t num{0};
    int64_t den{0};
};

// Of the tokens that go, which share is pruned. With `residual` x is the sum of the metric (then `pruned` is its share) and
// of a residual, which are reduced apart.
struct Pruning
{
    Share pruned;
    Share residual;
};

// Scratch memory of one call, aligned to 256 bytes. Of the settings only r(N) and the protected ends count.
size_t ssmWorkspaceBytes(Settings const& settings, int64_t batch, int64_t tokens) noexcept;

// removed = removedTokens(settings, tokens). Six kernels on the stream; no allocation, no synchronisation. With `residual`
// features and metricFeatures are the same.
cudaError_t launchSsm(Settings const& settings, Pruning const& pruning, Problem const& problem, void* workspace,
    cudaStream_t stream) noexcept;

}  // namespace tsmerge
