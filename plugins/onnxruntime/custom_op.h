// An operator as ONNX Runtime's custom operator, for any execution provider, and the registration of several.
#pragma once

#include "ort.h"

#include <algorithm>
#include <deque>
#include <exception>
#include <utility>
#include <vector>

namespace tsmerge
{

// The oldest ONNX Runtime that has what is used here, 1.17; with newer headers too.
constexpr uint32_t kApi = std::min(ORT_API_VERSION, 17);

// Kernel has a constructor of OrtKernelInfo const* and compute(Ort::KernelContext const&) const; both may throw. Its
// kTakesShare says whether a share that is chosen at run time may be the fourth input.
template <typename Kernel>
struct Guarded
{
    explicit Guarded(OrtKernelInfo const* info)
        : kernel{info}
    {
    }

    OrtStatusPtr ComputeV2(OrtKernelContext* raw) noexcept
    {
        try
        {
            kernel.compute(Ort::KernelContext{raw});
        }
        catch (std::exception const& error)
        {
            return Ort::Status(error.what(), ORT_FAIL).release();
        }
        return nullptr;
    }

    Kernel kernel;
};

// One input or output. `onHost` is read before anything is launched: lengths of outputs follow from it.
struct Port
{
    ONNXTensorElementDataType type;
    bool optional{false};
    bool onHost{false};
};

struct Signature
{
    std::vector<Port> inputs;
    std::vector<Port> outputs;
};

// provider is null for the CPU.
template <typename Kernel>
class Operator : public Ort::CustomOpBase<Operator<Kernel>, Guarded<Kernel>, true>
{
public:
    Operator(char const* name, char const* provider, Signature signature)
        : mName(name)
        , mProvider(provider)
        , mSignature(std::move(signature))
    {
        OrtCustomOp::version = kApi;
    }

    OrtStatusPtr CreateKernelV2(OrtApi const&, OrtKernelInfo const* info, void** kernel) const noexcept
    {
        try
        {
            *kernel = new Guarded<Kernel>(info);
        }
        catch (std::exception const& error)
        {
            return Ort::Status(error.what(), ORT_INVALID_ARGUMENT).release();
        }
        return nullptr;
    }

    char const* GetName() const
    {
        return mName;
    }
    char const* GetExecutionProviderType() const
    {
        return mProvider;
    }
    size_t GetInputTypeCount() const
    {
        return mSignature.inputs.size();
    }
    ONNXTensorElementDataType GetInputType(size_t index) const
    {
        return mSignature.inputs[index].type;
    }
    OrtCustomOpInputOutputCharacteristic GetInputCharacteristic(size_t index) const
    {
        return mSignature.inputs[index].optional ? INPUT_OUTPUT_OPTIONAL : INPUT_OUTPUT_REQUIRED;
    }
    OrtMemType GetInputMemoryType(size_t index) const
    {
        return mSignature.inputs[index].onHost ? OrtMemTypeCPUInput : OrtMemTypeDefault;
    }
    size_t GetOutputTypeCount() const
    {
        return mSignature.outputs.size();
    }
    ONNXTensorElementDataType GetOutputType(size_t index) const
    {
        return mSignature.outputs[index].type;
    }

private:
    char const* mName;
    char const* mProvider;
    Signature mSignature;
};

// The operators of a kernel, one for each combination of types. ONNX Runtime keeps pointers to them: they must live as
// long as any session, and a deque does not move them.
template <typename Kernel>
using Operators = std::deque<Operator<Kernel>>;

template <typename Kernel>
void addOne(Ort::CustomOpDomain& domain, Operators<Kernel>& operators, char const* name, char const* provider,
    Signature signature)
{
    operators.emplace_back(name, provider, std::move(signature));
    domain.Add(&operators.back());
}

// A merge operator: x, metric and size in, and of kernels that take it the share; y, size, kept and target out.
template <typename Kernel>
void add(Ort::CustomOpDomain& domain, Operators<Kernel>& operators, char const* name, char const* provider)
{
    constexpr auto kSize = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    constexpr auto kIndex = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
    auto const types = {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16};
    for (auto const x : types)
    {
        for (auto const metric : types)
        {
            Signature signature{{{x}, {metric}, {kSize}}, {{x}, {kSize}, {kIndex}, {kIndex}}};
            if (Kernel::kTakesShare)
            {
                signature.inputs.push_back({kIndex, true, true});
            }
            addOne(domain, operators, name, provider, std::move(signature));
        }
    }
}

// The body of RegisterCustomOps: domain() makes the library's domain, once.
template <typename Domain>
OrtStatus* registerDomain(OrtSessionOptions* options, OrtApiBase const* base, Domain domain) noexcept
{
    OrtApi const* const api = base->GetApi(kApi);
    if (api == nullptr)
    {
        return base->GetApi(1)->CreateStatus(ORT_FAIL, "it needs ONNX Runtime 1.17 or newer");
    }
    Ort::InitApi(api);
    try
    {
        Ort::UnownedSessionOptions{options}.Add(domain());
    }
    catch (std::exception const& error)
    {
        return api->CreateStatus(ORT_FAIL, error.what());
    }
    return nullptr;
}

} // namespace tsmerge
