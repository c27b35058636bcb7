// The TensorRT plugin "LocalMerge", version 1, namespace "": (x, metric, size) -> (y, size_out, kept, target).
#pragma once

#include "local_merge.h"

#include <NvInferRuntime.h>

#include <array>
#include <string>
#include <vector>

namespace tsmerge
{

// The settings, and the type of the two outputs of indices.
struct PluginSettings
{
    Settings merge;
    bool wideIndex{true};  // int64; else int32
};

// Reads fields of any order, int32 or int64. Returns an empty string, or what is wrong in one line.
std::string parseFields(nvinfer1::PluginFieldCollection const* fields, PluginSettings& settings);

class LocalMergePlugin final : public nvinfer1::IPluginV3,
                               public nvinfer1::IPluginV3OneCore,
                               public nvinfer1::IPluginV3OneBuild,
                               public nvinfer1::IPluginV3OneRuntime
{
public:
    explicit LocalMergePlugin(PluginSettings const& settings);
    // Field data point into the object itself and are made anew for a copy.
    LocalMergePlugin(LocalMergePlugin const& other);
    LocalMergePlugin& operator=(LocalMergePlugin const&) = delete;
    ~LocalMergePlugin() override = default;

    // IPluginV3
    nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;
    nvinfer1::IPluginV3* clone() noexcept override;

    // IPluginV3OneCore
    char const* getPluginName() const noexcept override;
    char const* getPluginVersion() const noexcept override;
    char const* getPluginNamespace() const noexcept override;

    // IPluginV3OneBuild
    int32_t getNbOutputs() const noexcept override;
    int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const* in, int32_t nbInputs,
        nvinfer1::DynamicPluginTensorDesc const* out, int32_t nbOutputs) noexcept override;
    bool supportsFormatCombination(int32_t pos, nvinfer1::DynamicPluginTensorDesc const* inOut, int32_t nbInputs,
        int32_t nbOutputs) noexcept override;
    int32_t getOutputDataTypes(nvinfer1::DataType* outputTypes, int32_t nbOutputs,
        nvinfer1::DataType const* inputTypes, int32_t nbInputs) const noexcept override;
    int32_t getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t nbInputs,
        nvinfer1::DimsExprs const* shapeInputs, int32_t nbShapeInputs, nvinfer1::DimsExprs* outputs, int32_t nbOutputs,
        nvinfer1::IExprBuilder& exprBuilder) noexcept override;
    size_t getWorkspaceSize(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t nbInputs,
        nvinfer1::DynamicPluginTensorDesc const* outputs, int32_t nbOutputs) const noexcept override;

    // IPluginV3OneRuntime
    int32_t onShapeChange(nvinfer1::PluginTensorDesc const* in, int32_t nbInputs,
        nvinfer1::PluginTensorDesc const* out, int32_t nbOutputs) noexcept override;
    int32_t enqueue(nvinfer1::PluginTensorDesc const* inputDesc, nvinfer1::PluginTensorDesc const* outputDesc,
        void const* const* inputs, void* const* outputs, void* workspace, cudaStream_t stream) noexcept override;
    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* context) noexcept override;
    nvinfer1::PluginFieldCollection const* getFieldsToSerialize() noexcept override;

private:
    static constexpr size_t kFieldCount = 8;

    void makeFields();

    PluginSettings mSettings;
    std::array<int32_t, kFieldCount> mValues{};
    std::array<nvinfer1::PluginField, kFieldCount> mFields{};
    nvinfer1::PluginFieldCollection mCollection{};
};

class LocalMergeCreator final : public nvinfer1::IPluginCreatorV3One
{
public:
    LocalMergeCreator();
    ~LocalMergeCreator() override = default;

    nvinfer1::IPluginV3* createPlugin(char const* name, nvinfer1::PluginFieldCollection const* fc,
        nvinfer1::TensorRTPhase phase) noexcept override;
    nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override;
    char const* getPluginName() const noexcept override;
    char const* getPluginVersion() const noexcept override;
    char const* getPluginNamespace() const noexcept override;

private:
    std::vector<nvinfer1::PluginField> mFields;
    nvinfer1::PluginFieldCollection mCollection{};
};

// Where errors go: the logger of TensorRT once it gave one, else stderr.
void setLoggerSource(nvinfer1::ILoggerFinder* finder) noexcept;

}  // namespace tsmerge
