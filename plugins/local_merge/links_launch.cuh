// Launches that PiToMe and token reduction for state-space models share.
#pragma once

#include "launch.cuh"
#include "links.cuh"

namespace tsmerge
{

// Parts of a workspace one behind the other; without memory it only counts.
class Parts
{
public:
    explicit Parts(void* memory)
        : mMemory{static_cast<unsigned char*>(memory)}
    {
    }

    template <typename T>
    T* take(int64_t count)
    {
        size_t const from = mBytes;
        mBytes += aligned(static_cast<size_t>(count) * sizeof(T));
        return mMemory == nullptr ? nullptr : reinterpret_cast<T*>(mMemory + from);
    }

    size_t bytes() const
    {
        return mBytes;
    }

private:
    unsigned char* mMemory;
    size_t mBytes{0};
};

inline int64_t tilesOf(int64_t batch, int64_t count)
{
    return batch * ((count + kTileA - 1) / kTileA);
}

inline Span spanOf(Settings const& settings, int64_t tokens)
{
    return Span{
        tokens, static_cast<int>(settings.protectFirst), static_cast<int>(unprotected(settings, tokens))};
}

// Every token may be an a: combineTokens finds members by their token.
inline Layout layoutOf(int64_t tokens, int64_t left)
{
    Layout layout{};
    layout.tokens = tokens;
    layout.left = static_cast<int>(left);
    layout.countA = static_cast<int>(tokens);
    layout.step = 1;
    return layout;
}

// order [batch, count]: indices by falling rank [batch, count], the lowest of equals first.
cudaError_t launchOrder(unsigned const* rank, int* order, Span const& span, int64_t batch, cudaStream_t stream);

// The best b of every a, see matchLists.
cudaError_t launchLists(Problem const& problem, Span const& span, Lists const& lists, int64_t splits,
    unsigned long long* best, cudaStream_t stream);

// Of a block for each row of so many tokens.
inline int64_t threadsFor(int64_t tokens)
{
    return std::min<int64_t>(kSelectThreads, (tokens + kWarp - 1) / kWarp * kWarp);
}

}  // namespace tsmerge
