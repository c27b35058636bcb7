// Unmerge, GatherPairs and DistancePlane: reads a call, launches the copies of ../local_merge.
#pragma once

#include "attributes.h"
#include "call.h"
#include "custom_op.h"
#include "gather.h"

#include <cstdint>
#include <string>
#include <vector>

namespace tsmerge
{

// All types of a fixed size that models compute in.
constexpr ONNXTensorElementDataType kAny[] = {
    ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16, ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
};

constexpr auto kIndexType = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;

inline int64_t bytesOf(ONNXTensorElementDataType type)
{
    switch (type)
    {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE:
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64:
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64: return 8;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32:
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32: return 4;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16:
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16:
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16:
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16: return 2;
    default: return 1;
    }
}

inline std::vector<int64_t> shapeOf(Ort::ConstValue const& value)
{
    return value.GetTensorTypeAndShapeInfo().GetShape();
}

// The one number of an input that lies in host memory.
inline int64_t number(Ort::ConstValue const& value, char const* name)
{
    if (value.GetTensorTypeAndShapeInfo().GetElementCount() != 1)
    {
        refuse(std::string{name} + " must be [1]");
    }
    return *value.GetTensorData<int64_t>();
}

class Unmerge
{
public:
    static Signature signature(ONNXTensorElementDataType type)
    {
        return {{{type}, {kIndexType}}, {{type}}};
    }

    explicit Unmerge(OrtKernelInfo const*) {}

    void compute(Ort::KernelContext const& context) const
    {
        Ort::ConstValue const y = context.GetInput(0);
        Ort::ConstValue const target = context.GetInput(1);
        std::vector<int64_t> shape = shapeOf(y);
        std::vector<int64_t> const wanted = shapeOf(target);
        if (shape.size() < 2 || wanted.size() != 2 || wanted[0] != shape[0])
        {
            refuse("y [B, M, ...] and target [B, N] differ in B");
        }
        TokenCopies copies{};
        copies.batch = shape[0];
        copies.left = shape[1];
        copies.tokens = wanted[1];
        copies.tokenBytes = bytesOf(y.GetTensorTypeAndShapeInfo().GetElementType());
        for (size_t axis = 2; axis < shape.size(); ++axis)
        {
            copies.tokenBytes *= shape[axis];
        }
        shape[1] = copies.tokens;
        copies.y = y.GetTensorRawData();
        copies.target = target.GetTensorData<int64_t>();
        copies.z = context.GetOutput(0, shape).GetTensorMutableRawData();
        check(launchUnmerge(copies, streamOf(context)), "Unmerge");
    }
};

class GatherPairs
{
public:
    static Signature signature(ONNXTensorElementDataType type)
    {
        Port const number{kIndexType, false, true};
        return {{{type}, {type}, {kIndexType}, number, number}, {{type}}};
    }

    explicit GatherPairs(OrtKernelInfo const* raw)
    {
        Ort::ConstKernelInfo const info{raw};
        mAlways = integer(info, "always", 0, 1, true) != 0;
    }

    void compute(Ort::KernelContext const& context) const
    {
        Ort::ConstValue const value = context.GetInput(0);
        Ort::ConstValue const plane = context.GetInput(1);
        Ort::ConstValue const kept = context.GetInput(2);
        std::vector<int64_t> const whole = shapeOf(value);
        std::vector<int64_t> const flat = shapeOf(plane);
        std::vector<int64_t> const rows = shapeOf(kept);
        if (whole.size() != 4 || whole[0] != 1 || whole[2] != whole[3] || flat.size() != 2 || flat[1] != whole[1]
            || rows.size() != 2)
        {
            refuse("value [1, H, N, N], plane [P, H] and kept [B, M] do not fit together");
        }
        int64_t const bytes = bytesOf(value.GetTensorTypeAndShapeInfo().GetElementType());
        if (rows[1] == whole[2] && !mAlways)  // R11.3
        {
            void* const z = context.GetOutput(0, whole).GetTensorMutableRawData();
            auto const all = static_cast<size_t>(whole[1] * whole[2] * whole[3] * bytes);
            auto const way = cudaMemcpyDeviceToDevice;
            check(cudaMemcpyAsync(z, value.GetTensorRawData(), all, way, streamOf(context)), "GatherPairs");
            return;
        }
        PairCopies copies{};
        copies.plane = plane.GetTensorRawData();
        copies.kept = kept.GetTensorData<int64_t>();
        copies.z = context.GetOutput(0, {rows[0], whole[1], rows[1], rows[1]}).GetTensorMutableRawData();
        copies.rows = flat[0];
        copies.heads = flat[1];
        copies.batch = rows[0];
        copies.left = rows[1];
        copies.stride = number(context.GetInput(3), "stride");
        copies.offset = number(context.GetInput(4), "offset");
        copies.elementBytes = static_cast<size_t>(bytes);
        check(launchPairs(copies, streamOf(context)), "GatherPairs");
    }

private:
    bool mAlways{false};
};

class DistancePlane
{
public:
    static Signature signature(ONNXTensorElementDataType type)
    {
        Port const number{kIndexType, false, true};
        return {{{type}, number, number}, {{type}}};
    }

    explicit DistancePlane(OrtKernelInfo const*) {}

    void compute(Ort::KernelContext const& context) const
    {
        Ort::ConstValue const table = context.GetInput(0);
        std::vector<int64_t> const shape = shapeOf(table);
        int64_t const centre = number(context.GetInput(1), "centre");
        int64_t const tokens = number(context.GetInput(2), "tokens");
        if (shape.size() != 2 || tokens < 0 || centre < tokens || centre > shape[0] - tokens)
        {
            refuse("table [2C, H] must reach from centre by as many distances as there are tokens");
        }
        PairCopies copies{};
        copies.plane = table.GetTensorRawData();
        copies.z = context.GetOutput(0, {shape[1], tokens, tokens}).GetTensorMutableRawData();
        copies.rows = shape[0];
        copies.heads = shape[1];
        copies.batch = 1;
        copies.left = tokens;
        copies.stride = -1;
        copies.offset = centre;
        copies.elementBytes = static_cast<size_t>(bytesOf(table.GetTensorTypeAndShapeInfo().GetElementType()));
        check(launchPairs(copies, streamOf(context)), "DistancePlane");
    }
};

}  // namespace tsmerge
