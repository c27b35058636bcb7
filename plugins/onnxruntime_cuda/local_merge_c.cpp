// LocalMerge for callers that are no ONNX Runtime, by a plain C interface: tsmerge_export/merge/kernels.py runs it on
// tensors of PyTorch. Nothing is allocated, and nothing synchronised.
#include "local_merge.h"

#include <cuda_runtime.h>

extern "C"
{

// One merge. Only pointers and 64-bit numbers: the caller writes it down by hand.
struct TsmergeLocalMerge
{
    int64_t bytes;  // sizeof(TsmergeLocalMerge): whether both mean the same
    // Attributes of the operator.
    int64_t k, r, ratioNum, ratioDen, minTokens, protectFirst, protectLast, similarity, causal;
    // Sizes, and the types of x and metric: tsmerge::Element.
    int64_t batch, tokens, features, metricFeatures, xType, metricType;
    // As in tsmerge::Problem; kept and target are int64.
    void const* x;
    void const* metric;
    float const* size;
    void* y;
    float* sizeOut;
    int64_t* kept;
    int64_t* target;
    void* workspace;  // aligned to 256 bytes
    void* stream;
};

}  // extern "C"

namespace
{

tsmerge::Settings settingsOf(TsmergeLocalMerge const& call)
{
    tsmerge::Settings settings{};
    settings.k = call.k;
    settings.r = call.r;
    settings.ratioNum = call.ratioNum;
    settings.ratioDen = call.ratioDen;
    settings.minTokens = call.minTokens;
    settings.protectFirst = call.protectFirst;
    settings.protectLast = call.protectLast;
    settings.similarity = static_cast<tsmerge::Similarity>(call.similarity);
    settings.causal = call.causal != 0;
    return settings;
}

}  // namespace

extern "C"
{

// Where its tensors are: 1 on a GPU, 0 where the kernels are emulated.
__attribute__((visibility("default"))) int tsmerge_on_gpu()
{
#ifdef TSMERGE_EMULATED
    return 0;
#else
    return 1;
#endif
}

// Bytes of the workspace of a call, whose pointers are not read; -1 where caller and library differ.
__attribute__((visibility("default"))) int64_t tsmerge_local_merge_workspace(TsmergeLocalMerge const* call)
{
    if (call->bytes != static_cast<int64_t>(sizeof(TsmergeLocalMerge)))
    {
        return -1;
    }
    return static_cast<int64_t>(tsmerge::workspaceBytes(settingsOf(*call), call->batch, call->tokens));
}

// Null, or what went wrong.
__attribute__((visibility("default"))) char const* tsmerge_local_merge(TsmergeLocalMerge const* call)
{
    if (call->bytes != static_cast<int64_t>(sizeof(TsmergeLocalMerge)))
    {
        return "the library is of another version";
    }
    tsmerge::Settings const settings = settingsOf(*call);
    tsmerge::Problem problem{};
    problem.x = call->x;
    problem.metric = call->metric;
    problem.size = call->size;
    problem.y = call->y;
    problem.sizeOut = call->sizeOut;
    problem.kept = call->kept;
    problem.target = call->target;
    problem.batch = call->batch;
    problem.tokens = call->tokens;
    problem.features = call->features;
    problem.metricFeatures = call->metricFeatures;
    problem.xType = static_cast<tsmerge::Element>(call->xType);
    problem.metricType = static_cast<tsmerge::Element>(call->metricType);
    problem.wideIndex = true;
    cudaError_t const status
        = tsmerge::launchLocalMerge(settings, problem, call->workspace, static_cast<cudaStream_t>(call->stream));
    return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}

}  // extern "C"
