// libtsmerge_trt_registered.so: the plugin registers itself when the library is loaded. ONNX Runtime's TensorRT provider
// opens the libraries of trt_extra_plugin_lib_paths and nothing more. Needs getPluginRegistry of libnvinfer.
#include "plugin.h"

namespace
{
using tsmerge::LocalMergeCreator;
REGISTER_TENSORRT_PLUGIN(LocalMergeCreator);
}  // namespace

extern "C" __attribute__((visibility("default"))) int32_t tsmergeTensorRTMajor()
{
    return NV_TENSORRT_MAJOR;
}
