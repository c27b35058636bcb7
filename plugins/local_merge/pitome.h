// PiToMe on the GPU: arXiv 2405.16148, section 3. The specification is tsmerge_export/methods/pitome/reference.py.
#pragma once

#include "local_merge.h"

namespace tsmerge
{

// What a token's energy is summed from.
struct Energy
{
    float margin{0.0F};
    float alpha{1.0F};
    bool gaussian{false};  // without alpha
};

// Scratch memory of one call, aligned to 256 bytes. Of the settings only r(N) and the protected ends count.
size_t pitomeWorkspaceBytes(Settings const& settings, int64_t batch, int64_t tokens) noexcept;

// removed = removedTokens(settings, tokens). Six kernels on the stream; no allocation, no synchronisation.
cudaError_t launchPitome(Settings const& settings, Energy const& energy, Problem const& problem, void* workspace,
    cudaStream_t stream) noexcept;

}  // namespace tsmerge
