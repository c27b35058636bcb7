# Sets ONNXRUNTIME_INCLUDE_DIR. A release archive of ONNX Runtime has its headers in include, distributions in
# include/onnxruntime. No library is linked: ONNX Runtime hands its functions over when it opens this one.
set(ONNXRUNTIME_ROOT "" CACHE PATH "Folder of an ONNX Runtime whose headers are in include")
find_path(ONNXRUNTIME_INCLUDE_DIR onnxruntime_cxx_api.h
          HINTS "${ONNXRUNTIME_ROOT}" ENV ONNXRUNTIME_ROOT
          PATH_SUFFIXES include include/onnxruntime include/onnxruntime/core/session onnxruntime)
if(NOT ONNXRUNTIME_INCLUDE_DIR)
  message(FATAL_ERROR "onnxruntime_cxx_api.h is not found: install libonnxruntime-dev, or unpack a release of ONNX "
                      "Runtime and give its folder, -DONNXRUNTIME_ROOT=FOLDER")
endif()
