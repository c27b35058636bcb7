// A merge operator as ONNX Runtime's custom operator, for any execution provider, and the registration of several.
#pragma once

#include "ort.h"

#include <algorithm>
#include <exception>
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

// x, metric and size in, and of kernels that take it the share; y, size, kept and target out. provider is null for the CPU.
template <typename Kernel>
class Operator : public Ort::CustomOpBase<Operator<Kernel>, Guarded<Kernel>, true>
{
public:
    Operator(char const* name, char const* provider, ONNXTensorElementDataType x, ONNXTensorElementDataType metric)
        : mName(name)
        , mProvider(provider)
        , mX(x)
        , mMetric(metric)
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
        return Kernel::kTakesShare ? 4 : 3;
    }
    ONNXTensorElementDataType GetInputType(size_t index) const
    {
        return index == 0 ? mX
            : index == 1  ? mMetric
            : index == 2  ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
                          : ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
    }
    OrtCustomOpInputOutputCharacteristic GetInputCharacteristic(size_t index) const
    {
        return index == 3 ? INPUT_OUTPUT_OPTIONAL : INPUT_OUTPUT_REQUIRED;
    }
    // The lengths of the outputs follow from the share: it is read before anything is launched.
    OrtMemType GetInputMemoryType(size_t index) const
    {
        return index == 3 ? OrtMemTypeCPUInput : OrtMemTypeDefault;
    }
    size_t GetOutputTypeCount() const
    {
        return 4;
    }
    ONNXTensorElementDataType GetOutputType(size_t index) const
    {
        return index == 0 ? mX
            : index == 1  ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
                          : ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
    }

private:
    char const* mName;
    char const* mProvider;
    ONNXTensorElementDataType mX;
    ONNXTensorElementDataType mMetric;
};

// Adds an operator for every pair of types of x and metric to a domain. ONNX Runtime keeps pointers to the operators: they
// must live as long as any session.
template <typename Kernel>
void add(Ort::CustomOpDomain& domain, std::vector<Operator<Kernel>>& operators, char const* name, char const* provider)
{
    auto const types = {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16};
    operators.reserve(operators.size() + types.size() * types.size());
    size_t const before = operators.size();
    for (auto const x : types)
    {
        for (auto const metric : types)
        {
            operators.emplace_back(name, provider, x, metric);
        }
    }
    for (size_t at = before; at < operators.size(); ++at)
    {
        domain.Add(&operators[at]);
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
