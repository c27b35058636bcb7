#include "run.h"

#include "combine.h"
#include "place.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

namespace tsmerge
{

namespace
{

// From this many rows on a row is a piece of work; where there are fewer, so many of its tokens are.
constexpr int64_t kManyRows = 8;
constexpr int64_t kRange = 256;

// Runs work(piece) for pieces 0 to count on ONNX Runtime's threads. No work may throw: it runs on foreign stacks.
template <typename Work>
void parallel(Ort::KernelContext const& context, int64_t count, Work& work)
{
    if (count <= 1)
    {
        if (count == 1)
        {
            work(0);
        }
        return;
    }
    auto const call = [](void* data, size_t piece) { (*static_cast<Work*>(data))(static_cast<int64_t>(piece)); };
    context.ParallelFor(call, static_cast<size_t>(count), 0, &work);
}

// The same over ranges of `length` of every row: work(row, begin, end).
template <typename Work>
void parallelRanges(Ort::KernelContext const& context, int64_t rows, int64_t length, Work& work)
{
    int64_t const each = (length + kRange - 1) / kRange;
    auto piece = [&](int64_t at)
    {
        int64_t const begin = at % each * kRange;
        work(at / each, begin, std::min(begin + kRange, length));
    };
    parallel(context, rows * each, piece);
}

template <typename T>
std::vector<float> widened(T const* values, int64_t count)
{
    std::vector<float> out(count);
    for (int64_t i = 0; i < count; ++i)
    {
        out[i] = toFloat(values[i]);
    }
    return out;
}

// The outputs, and the memory that place needs beside them.
struct Outputs
{
    Ort::UnownedValue y;
    float* size;
    int64_t* kept;
    int64_t* target;
    std::vector<int32_t> head;
    std::vector<int32_t> next;
    std::vector<uint64_t> keys;
    std::vector<int32_t> gone;
    int64_t most; // that a row removes
    int64_t countA;
    int64_t left;

    Outputs(Ort::KernelContext const& context, Problem const& problem, Amounts const& amounts, int64_t countA)
        : head(problem.batch * amounts.left)
        , next(problem.batch * problem.tokens)
        , keys(problem.batch * countA)
        , most(std::accumulate(amounts.removed.begin(), amounts.removed.end(), int64_t{0},
              [](int64_t a, int64_t b) { return std::max(a, b); }))
        , countA(countA)
        , left(amounts.left)
    {
        gone.resize(problem.batch * (most + 1));
        int64_t const yShape[] = {problem.batch, left, problem.features};
        int64_t const targetShape[] = {problem.batch, problem.tokens};
        y = context.GetOutput(0, yShape, 3);
        size = context.GetOutput(1, yShape, 2).GetTensorMutableData<float>();
        kept = context.GetOutput(2, yShape, 2).GetTensorMutableData<int64_t>();
        target = context.GetOutput(3, targetShape, 2).GetTensorMutableData<int64_t>();
    }

    Places row(int64_t row, int64_t tokens)
    {
        return Places{size + row * left, kept + row * left, target + row * tokens, head.data() + row * left,
            next.data() + row * tokens, keys.data() + row * countA, gone.data() + row * (most + 1)};
    }
};

} // namespace

float const* asFloats(Ort::ConstValue const& metric, int64_t count, std::vector<float>& storage)
{
    switch (metric.GetTensorTypeAndShapeInfo().GetElementType())
    {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: return metric.GetTensorData<float>();
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16:
        storage = widened(metric.GetTensorData<Ort::Float16_t>(), count);
        return storage.data();
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16:
        storage = widened(metric.GetTensorData<Ort::BFloat16_t>(), count);
        return storage.data();
    default: throw Ort::Exception("metric must be float32, float16 or bfloat16", ORT_INVALID_ARGUMENT);
    }
}

void copyAll(Ort::KernelContext const& context, Problem const& problem, Ort::ConstValue const& x)
{
    Outputs out(context, problem, Amounts{{}, problem.tokens}, 0);
    bool const wide = x.GetTensorTypeAndShapeInfo().GetElementType() == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    int64_t const bytes = wide ? sizeof(float) : sizeof(Ort::Float16_t);
    std::memcpy(out.y.GetTensorMutableRawData(), x.GetTensorRawData(),
        problem.batch * problem.tokens * problem.features * bytes);
    std::memcpy(out.size, problem.size, problem.batch * problem.tokens * sizeof(float));
    for (int64_t row = 0; row < problem.batch; ++row)
    {
        for (int64_t n = 0; n < problem.tokens; ++n)
        {
            out.kept[row * problem.tokens + n] = out.target[row * problem.tokens + n] = n;
        }
    }
}

void match(Ort::KernelContext const& context, Problem const& problem, Match& matching)
{
    auto measure = [&](int64_t row, int64_t begin, int64_t end) { matching.measure(row, begin, end); };
    parallelRanges(context, problem.batch, matching.countA(), measure);
    for (int64_t row = 0; row < problem.batch; ++row)
    {
        matching.findScales(row);
    }
    auto rank = [&](int64_t row, int64_t begin, int64_t end) { matching.rank(row, begin, end); };
    parallelRanges(context, problem.batch, matching.countA(), rank);
}

namespace
{

// Where there are many rows without ranks, each is matched just before it is merged, which finds its tokens in the
// caches.
template <typename T>
void mergeRows(Ort::KernelContext const& context, Problem const& problem, T const* x, Match& matching,
    Amounts const& amounts, bool matched)
{
    Outputs out(context, problem, amounts, matching.countA());
    T* const y = out.y.GetTensorMutableData<T>();
    auto const placed = [&](int64_t row)
    { place(matching, problem, row, amounts, out.row(row, problem.tokens)); };
    auto combined = [&](int64_t row, int64_t begin, int64_t end)
    {
        combine(x + row * problem.tokens * problem.features, problem.size + row * problem.tokens, problem.features,
            out.row(row, problem.tokens), begin, end, y + row * out.left * problem.features);
    };
    if (!matched && problem.batch >= kManyRows)
    {
        auto whole = [&](int64_t row)
        {
            matching.measure(row, 0, matching.countA());
            matching.findScales(row);
            matching.rank(row, 0, matching.countA());
            placed(row);
            combined(row, 0, out.left);
        };
        parallel(context, problem.batch, whole);
        return;
    }
    if (!matched)
    {
        match(context, problem, matching);
    }
    auto places = [&](int64_t row) { placed(row); };
    parallel(context, problem.batch, places);
    parallelRanges(context, problem.batch, out.left, combined);
}

} // namespace

void merge(Ort::KernelContext const& context, Problem const& problem, Ort::ConstValue const& x, Match& matching,
    Amounts const& amounts, bool matched)
{
    switch (x.GetTensorTypeAndShapeInfo().GetElementType())
    {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
        return mergeRows(context, problem, x.GetTensorData<float>(), matching, amounts, matched);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16:
        return mergeRows(context, problem, x.GetTensorData<Ort::Float16_t>(), matching, amounts, matched);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16:
        return mergeRows(context, problem, x.GetTensorData<Ort::BFloat16_t>(), matching, amounts, matched);
    default: throw Ort::Exception("x must be float32, float16 or bfloat16", ORT_INVALID_ARGUMENT);
    }
}

} // namespace tsmerge
