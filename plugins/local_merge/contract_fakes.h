// Stand-ins for what TensorRT hands to a plugin, and short ways to call one. For contract_test.cpp alone.
#pragma once

#include "plugin.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <vector>

extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& nbCreators);
extern "C" void setLoggerFinder(nvinfer1::ILoggerFinder* finder);

namespace
{

using namespace nvinfer1;

int failures = 0;

void check(bool holds, std::string const& what)
{
    if (!holds)
    {
        ++failures;
        std::printf("FAILED %s\n", what.c_str());
    }
}

// Expressions of one variable, N, evaluated at once.
class FakeExpression final : public IDimensionExpr, public apiv::VDimensionExpr
{
public:
    FakeExpression(int64_t value_, bool constant_)
        : value{value_}
        , constant{constant_}
    {
        mImpl = this;
    }
    bool isConstant() const override
    {
        return constant;
    }
    int64_t getConstantValue() const override
    {
        return value;
    }
    bool isSizeTensor() const override
    {
        return false;
    }

    int64_t value;
    bool constant;
};

class FakeBuilder final : public IExprBuilder, public apiv::VExprBuilder
{
public:
    FakeBuilder()
    {
        mImpl = this;
    }
    IDimensionExpr const* constant(int64_t value) override
    {
        return &made.emplace_back(value, true);
    }
    IDimensionExpr const* operation(
        DimensionOperation operation, IDimensionExpr const& first, IDimensionExpr const& second) override
    {
        auto const& one = static_cast<FakeExpression const&>(first);
        auto const& other = static_cast<FakeExpression const&>(second);
        int64_t const a = one.value;
        int64_t const b = other.value;
        int64_t value = 0;
        switch (operation)
        {
        case DimensionOperation::kSUM: value = a + b; break;
        case DimensionOperation::kPROD: value = a * b; break;
        case DimensionOperation::kMAX: value = a > b ? a : b; break;
        case DimensionOperation::kMIN: value = a < b ? a : b; break;
        case DimensionOperation::kSUB: value = a - b; break;
        case DimensionOperation::kFLOOR_DIV:
            check(a >= 0 && b > 0, "division of non-negative numbers only");
            value = a / b;
            break;
        default: check(false, "unexpected operation on dims"); break;
        }
        return &made.emplace_back(value, one.constant && other.constant);
    }
    IDimensionExpr const* declareSizeTensor(int32_t, IDimensionExpr const&, IDimensionExpr const&) override
    {
        check(false, "no output has a length that depends on data");
        return nullptr;
    }
    IDimensionExpr const* variable(int64_t value)
    {
        return &made.emplace_back(value, false);
    }

    std::deque<FakeExpression> made;
};

class Logger final : public ILogger
{
public:
    void log(Severity severity, char const* message) noexcept override
    {
        check(severity == Severity::kERROR, "only errors are logged");
        last = message;
    }
    std::string last;
};

class Finder final : public ILoggerFinder
{
public:
    explicit Finder(Logger& logger_)
        : logger{logger_}
    {
    }
    ILogger* findLogger() override
    {
        return &logger;
    }

private:
    Logger& logger;
};

IPluginCreatorV3One& creator()
{
    int32_t count = 0;
    IPluginCreatorInterface* const* const creators = getCreators(count);
    check(count == 1, "one creator");
    return *static_cast<IPluginCreatorV3One*>(creators[0]);
}

// Owns the values that its fields point to.
struct Fields
{
    void add(char const* name, int32_t value)
    {
        values.push_back(value);
        fields.emplace_back(name, &values.back(), PluginFieldType::kINT32, 1);
    }
    PluginFieldCollection collection()
    {
        return {static_cast<int32_t>(fields.size()), fields.data()};
    }

    std::deque<int32_t> values;
    std::vector<PluginField> fields;
};

using Plugin = std::unique_ptr<IPluginV3>;

Plugin create(PluginFieldCollection const& collection, TensorRTPhase phase = TensorRTPhase::kBUILD)
{
    return Plugin{creator().createPlugin("layer", &collection, phase)};
}

template <typename T>
T& capability(IPluginV3& plugin, PluginCapabilityType type)
{
    return *static_cast<T*>(plugin.getCapabilityInterface(type));
}

IPluginV3OneBuild& build(IPluginV3& plugin)
{
    return capability<IPluginV3OneBuild>(plugin, PluginCapabilityType::kBUILD);
}

IPluginV3OneRuntime& runtime(IPluginV3& plugin)
{
    return capability<IPluginV3OneRuntime>(plugin, PluginCapabilityType::kRUNTIME);
}

Dims dims(std::vector<int64_t> const& values)
{
    Dims result{};
    result.nbDims = static_cast<int32_t>(values.size());
    for (size_t axis = 0; axis < values.size(); ++axis)
    {
        result.d[axis] = values[axis];
    }
    return result;
}

PluginTensorDesc tensor(std::vector<int64_t> const& shape, DataType type)
{
    PluginTensorDesc desc{};
    desc.dims = dims(shape);
    desc.type = type;
    desc.format = TensorFormat::kLINEAR;
    return desc;
}

std::vector<unsigned char> bytesOf(std::vector<float> const& values, DataType type)
{
    size_t const each = type == DataType::kFLOAT ? 4 : 2;
    std::vector<unsigned char> bytes(values.size() * each);
    for (size_t n = 0; n < values.size(); ++n)
    {
        __half const half = __float2half(values[n]);
        __nv_bfloat16 const brain = __float2bfloat16(values[n]);
        void const* const source = type == DataType::kFLOAT ? static_cast<void const*>(&values[n])
            : type == DataType::kHALF                      ? static_cast<void const*>(&half)
                                                            : static_cast<void const*>(&brain);
        std::memcpy(bytes.data() + n * each, source, each);
    }
    return bytes;
}

std::vector<DataType> const kFloats{DataType::kFLOAT, DataType::kHALF, DataType::kBF16};

}  // namespace
