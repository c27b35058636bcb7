#include "plugin.h"

#include "fields.h"

#include <exception>
#include <memory>

using nvinfer1::DataType;
using nvinfer1::DimensionOperation;

namespace tsmerge
{
namespace
{

constexpr int32_t kInputs = 3;
constexpr int32_t kOutputs = 4;
bool elementOf(DataType type, Element& element)
{
    switch (type)
    {
    case DataType::kFLOAT: element = Element::kFLOAT32; return true;
    case DataType::kHALF: element = Element::kFLOAT16; return true;
    case DataType::kBF16: element = Element::kBFLOAT16; return true;
    default: return false;
    }
}

bool sameShapes(nvinfer1::Dims const& x, nvinfer1::Dims const& metric, nvinfer1::Dims const& size)
{
    if (x.nbDims != 3 || metric.nbDims != 3 || size.nbDims != 2)
    {
        return false;
    }
    for (int32_t axis = 0; axis < 2; ++axis)
    {
        if (x.d[axis] != metric.d[axis] || x.d[axis] != size.d[axis])
        {
            return false;
        }
    }
    return true;
}

}  // namespace

LocalMergePlugin::LocalMergePlugin(PluginSettings const& settings)
    : mSettings{settings}
{
    makeFields();
}

LocalMergePlugin::LocalMergePlugin(LocalMergePlugin const& other)
    : nvinfer1::IPluginV3{other}
    , nvinfer1::IPluginV3OneCore{other}
    , nvinfer1::IPluginV3OneBuild{other}
    , nvinfer1::IPluginV3OneRuntime{other}
    , mSettings{other.mSettings}
{
    makeFields();
}

void LocalMergePlugin::makeFields()
{
    size_t n = 0;
    for (FieldRange const& range : kRanges)
    {
        mValues[n] = static_cast<int32_t>(mSettings.merge.*range.member);
        mFields[n] = nvinfer1::PluginField{range.name, &mValues[n], nvinfer1::PluginFieldType::kINT32, 1};
        ++n;
    }
    mValues[n] = mSettings.wideIndex ? 64 : 32;
    mFields[n] = nvinfer1::PluginField{kIndexBits, &mValues[n], nvinfer1::PluginFieldType::kINT32, 1};
    mCollection.nbFields = static_cast<int32_t>(kFieldCount);
    mCollection.fields = mFields.data();
}

nvinfer1::IPluginCapability* LocalMergePlugin::getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept
{
    switch (type)
    {
    case nvinfer1::PluginCapabilityType::kCORE: return static_cast<nvinfer1::IPluginV3OneCore*>(this);
    case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
    case nvinfer1::PluginCapabilityType::kRUNTIME: return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    return nullptr;
}

nvinfer1::IPluginV3* LocalMergePlugin::clone() noexcept
{
    try
    {
        return new LocalMergePlugin{*this};
    }
    catch (std::exception const& error)
    {
        logError(std::string{"LocalMerge: clone: "} + error.what());
        return nullptr;
    }
}

char const* LocalMergePlugin::getPluginName() const noexcept
{
    return kName;
}

char const* LocalMergePlugin::getPluginVersion() const noexcept
{
    return kVersion;
}

char const* LocalMergePlugin::getPluginNamespace() const noexcept
{
    return kNamespace;
}

int32_t LocalMergePlugin::getNbOutputs() const noexcept
{
    return kOutputs;
}

int32_t LocalMergePlugin::configurePlugin(nvinfer1::DynamicPluginTensorDesc const* in, int32_t nbInputs,
    nvinfer1::DynamicPluginTensorDesc const* /*out*/, int32_t nbOutputs) noexcept
{
    if (in == nullptr || nbInputs != kInputs || nbOutputs != kOutputs)
    {
        logError("LocalMerge: needs the inputs x, metric, size and gives 4 outputs");
        return -1;
    }
    return 0;
}

bool LocalMergePlugin::supportsFormatCombination(
    int32_t pos, nvinfer1::DynamicPluginTensorDesc const* inOut, int32_t nbInputs, int32_t nbOutputs) noexcept
{
    if (inOut == nullptr || nbInputs != kInputs || nbOutputs != kOutputs || pos < 0 || pos >= kInputs + kOutputs)
    {
        return false;
    }
    nvinfer1::PluginTensorDesc const& desc = inOut[pos].desc;
    if (desc.format != nvinfer1::TensorFormat::kLINEAR)
    {
        return false;
    }
    Element element{};
    switch (pos)
    {
    case 0:  // x
    case 1:  // metric, of a type of its own
        return elementOf(desc.type, element);
    case 3:  // y
        return desc.type == inOut[0].desc.type;
    case 2:  // size
    case 4:  // size_out
        return desc.type == DataType::kFLOAT;
    default:  // kept, target
        return desc.type == (mSettings.wideIndex ? DataType::kINT64 : DataType::kINT32);
    }
}

int32_t LocalMergePlugin::getOutputDataTypes(
    DataType* outputTypes, int32_t nbOutputs, DataType const* inputTypes, int32_t nbInputs) const noexcept
{
    if (outputTypes == nullptr || inputTypes == nullptr || nbInputs != kInputs || nbOutputs != kOutputs)
    {
        logError("LocalMerge: needs the inputs x, metric, size and gives 4 outputs");
        return -1;
    }
    Element element{};
    if (!elementOf(inputTypes[0], element) || !elementOf(inputTypes[1], element) || inputTypes[2] != DataType::kFLOAT)
    {
        logError("LocalMerge: x and metric must be float32, float16 or bfloat16, size float32");
        return -1;
    }
    outputTypes[0] = inputTypes[0];
    outputTypes[1] = DataType::kFLOAT;
    outputTypes[2] = outputTypes[3] = mSettings.wideIndex ? DataType::kINT64 : DataType::kINT32;
    return 0;
}

int32_t LocalMergePlugin::getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t nbInputs,
    nvinfer1::DimsExprs const* /*shapeInputs*/, int32_t /*nbShapeInputs*/, nvinfer1::DimsExprs* outputs,
    int32_t nbOutputs, nvinfer1::IExprBuilder& exprBuilder) noexcept
{
    if (inputs == nullptr || outputs == nullptr || nbInputs != kInputs || nbOutputs != kOutputs
        || inputs[0].nbDims != 3 || inputs[1].nbDims != 3 || inputs[2].nbDims != 2)
    {
        logError("LocalMerge: shapes must be x [B, N, D], metric [B, N, Dm], size [B, N]");
        return -1;
    }
    auto const whole = [&](int64_t value) { return exprBuilder.constant(value); };
    auto const apply = [&](DimensionOperation operation, nvinfer1::IDimensionExpr const* one,
                           nvinfer1::IDimensionExpr const* other)
    { return exprBuilder.operation(operation, *one, *other); };
    Settings const& merge = mSettings.merge;
    auto const* const batch = inputs[0].d[0];
    auto const* const tokens = inputs[0].d[1];
    // removedTokens(), R2.4, as an expression of N alone.
    auto const* const wanted = merge.ratioNum > 0
        ? apply(DimensionOperation::kFLOOR_DIV,
            apply(DimensionOperation::kPROD, tokens, whole(merge.ratioNum)), whole(merge.ratioDen))
        : whole(merge.r);
    auto const* const free = apply(DimensionOperation::kMAX,
        apply(DimensionOperation::kSUB, tokens, whole(merge.protectFirst + merge.protectLast)), whole(0));
    auto const* const pairs = apply(DimensionOperation::kFLOOR_DIV, free, whole(2));
    auto const* const spare = apply(
        DimensionOperation::kMAX, apply(DimensionOperation::kSUB, tokens, whole(merge.minTokens)), whole(0));
    auto const* const removed
        = apply(DimensionOperation::kMIN, wanted, apply(DimensionOperation::kMIN, pairs, spare));
    auto const* const left = apply(DimensionOperation::kSUB, tokens, removed);

    outputs[0].nbDims = 3;
    outputs[0].d[0] = batch;
    outputs[0].d[1] = left;
    outputs[0].d[2] = inputs[0].d[2];
    for (int32_t n = 1; n < kOutputs; ++n)
    {
        outputs[n].nbDims = 2;
        outputs[n].d[0] = batch;
        outputs[n].d[1] = n == 3 ? tokens : left;
    }
    return 0;
}

size_t LocalMergePlugin::getWorkspaceSize(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t nbInputs,
    nvinfer1::DynamicPluginTensorDesc const* /*outputs*/, int32_t /*nbOutputs*/) const noexcept
{
    if (inputs == nullptr || nbInputs != kInputs)
    {
        return 0;
    }
    return workspaceBytes(mSettings.merge, inputs[0].max.d[0], inputs[0].max.d[1]);
}

int32_t LocalMergePlugin::onShapeChange(nvinfer1::PluginTensorDesc const* in, int32_t nbInputs,
    nvinfer1::PluginTensorDesc const* /*out*/, int32_t nbOutputs) noexcept
{
    if (in == nullptr || nbInputs != kInputs || nbOutputs != kOutputs
        || !sameShapes(in[0].dims, in[1].dims, in[2].dims))
    {
        logError("LocalMerge: x [B, N, D], metric [B, N, Dm] and size [B, N] must have the same B and N");
        return -1;
    }
    return 0;
}

int32_t LocalMergePlugin::enqueue(nvinfer1::PluginTensorDesc const* inputDesc,
    nvinfer1::PluginTensorDesc const* outputDesc, void const* const* inputs, void* const* outputs, void* workspace,
    cudaStream_t stream) noexcept
{
    if (inputDesc == nullptr || outputDesc == nullptr || inputs == nullptr || outputs == nullptr)
    {
        return -1;
    }
    Problem problem{};
    problem.x = inputs[0];
    problem.metric = inputs[1];
    problem.size = static_cast<float const*>(inputs[2]);
    problem.y = outputs[0];
    problem.sizeOut = static_cast<float*>(outputs[1]);
    problem.kept = outputs[2];
    problem.target = outputs[3];
    problem.batch = inputDesc[0].dims.d[0];
    problem.tokens = inputDesc[0].dims.d[1];
    problem.features = inputDesc[0].dims.d[2];
    problem.metricFeatures = inputDesc[1].dims.d[2];
    problem.wideIndex = outputDesc[2].type == DataType::kINT64;
    if (!elementOf(inputDesc[0].type, problem.xType) || !elementOf(inputDesc[1].type, problem.metricType))
    {
        return -1;
    }
    cudaError_t const status = launchLocalMerge(mSettings.merge, problem, workspace, stream);
    if (status != cudaSuccess)
    {
        logError(std::string{"LocalMerge: launch failed: "} + cudaGetErrorString(status));
        return -1;
    }
    return 0;
}

nvinfer1::IPluginV3* LocalMergePlugin::attachToContext(nvinfer1::IPluginResourceContext* /*context*/) noexcept
{
    return clone();
}

nvinfer1::PluginFieldCollection const* LocalMergePlugin::getFieldsToSerialize() noexcept
{
    return &mCollection;
}

}  // namespace tsmerge
