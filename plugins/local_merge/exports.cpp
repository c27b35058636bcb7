// Entry points of libtsmerge_trt.so, which trtexec (--dynamicPlugins), Polygraphy (--plugins) and
// IPluginRegistry::loadLibrary look for. No symbol of libnvinfer is needed to load it.
#include "plugin.h"

#if defined(_WIN32)
#define TSMERGE_EXPORT __declspec(dllexport)
#else
#define TSMERGE_EXPORT __attribute__((visibility("default")))
#endif

extern "C" TSMERGE_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder)
{
    tsmerge::setLoggerSource(finder);
}

extern "C" TSMERGE_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& nbCreators)
{
    static tsmerge::LocalMergeCreator creator;
    static nvinfer1::IPluginCreatorInterface* const creators[] = {&creator};
    nbCreators = 1;
    return creators;
}

// Read by tsmerge-export before it hands the library to TensorRT: the ABI differs from one major version to the next.
extern "C" TSMERGE_EXPORT int32_t tsmergeTensorRTMajor()
{
    return NV_TENSORRT_MAJOR;
}
