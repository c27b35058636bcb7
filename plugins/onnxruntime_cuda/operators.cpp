// The operators of domain tsmerge for ONNX Runtime's CUDA provider, on the kernels of ../local_merge.
//
// With TSMERGE_EMULATED the same source makes a library for the CPU provider whose kernels run under ../emulation: so
// all of it is tested by a real ONNX Runtime, without a GPU.
#include "custom_op.h"
#include "gathers.h"
#include "linked.h"
#include "merges.h"

namespace tsmerge
{

namespace
{

#ifdef TSMERGE_EMULATED
constexpr char const* kProviders[] = {nullptr};
#else
// The provider of onnxruntime-gpu, and that of the plug-in form that it will come in.
constexpr char const* kProviders[] = {"CUDAExecutionProvider", "CudaPluginExecutionProvider"};
#endif

Ort::CustomOpDomain makeDomain()
{
    static Operators<LocalMerge> local;
    static Operators<DynamicMerge> dynamic;
    static Operators<SeriesMerge> series;
    static Operators<PitomeMerge> pitome;
    static Operators<SsmMerge> ssm;
    static Operators<Unmerge> unmerge;
    static Operators<GatherPairs> pairs;
    static Operators<DistancePlane> planes;
    Ort::CustomOpDomain domain{"tsmerge"};
    for (char const* const provider : kProviders)
    {
        add(domain, local, "LocalMerge", provider);
        add(domain, dynamic, "DynamicMerge", provider);
        add(domain, series, "SeriesMerge", provider);
        add(domain, pitome, "PitomeMerge", provider);
        add(domain, ssm, "SsmMerge", provider);
        for (auto const type : kAny)
        {
            addOne(domain, unmerge, "Unmerge", provider, Unmerge::signature(type));
            addOne(domain, pairs, "GatherPairs", provider, GatherPairs::signature(type));
            addOne(domain, planes, "DistancePlane", provider, DistancePlane::signature(type));
        }
    }
    return domain;
}

}  // namespace

}  // namespace tsmerge

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
