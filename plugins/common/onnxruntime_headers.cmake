# Sets ONNXRUNTIME_INCLUDE_DIR. A release archive of ONNX Runtime has its headers in include, distributions in
# include/onnxruntime. No library is linked: ONNX Runtime hands its functions over when it opens this one.
set(ONNXRUNTIME_ROOT "" CACHE PATH "Folder of an ONNX Runtime whose headers are in include")
option(TSMERGE_FETCH_HEADERS "Bring the headers from Debian's package of them where there are none" OFF)
set(_look onnxruntime_cxx_api.h HINTS "${ONNXRUNTIME_ROOT}" ENV ONNXRUNTIME_ROOT
    PATH_SUFFIXES include include/onnxruntime include/onnxruntime/core/session onnxruntime)
find_path(ONNXRUNTIME_INCLUDE_DIR ${_look})
if(NOT ONNXRUNTIME_INCLUDE_DIR AND TSMERGE_FETCH_HEADERS)
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  execute_process(
    COMMAND "${Python3_EXECUTABLE}" "${CMAKE_CURRENT_LIST_DIR}/../tools/onnxruntime_headers.py"
            "${CMAKE_BINARY_DIR}/onnxruntime"
    ERROR_VARIABLE _why ERROR_STRIP_TRAILING_WHITESPACE OUTPUT_QUIET)
  find_path(ONNXRUNTIME_INCLUDE_DIR ${_look} PATHS "${CMAKE_BINARY_DIR}/onnxruntime")
endif()
if(NOT ONNXRUNTIME_INCLUDE_DIR)
  message(FATAL_ERROR "onnxruntime_cxx_api.h is not found: install libonnxruntime-dev, or unpack a release of ONNX "
                      "Runtime and give its folder, -DONNXRUNTIME_ROOT=FOLDER or the variable of that name. ${_why}")
endif()

# What ONNX Runtime calls is all that a library shows; GCC's clones of functions and templates of the standard library
# do not heed -fvisibility. Other formats than ELF show nothing else by themselves.
function(tsmerge_show_entry_alone library)
  if(UNIX AND NOT APPLE)
    set(_map "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/exports.map")
    target_link_options(${library} PRIVATE "-Wl,--version-script=${_map}")
    set_property(TARGET ${library} APPEND PROPERTY LINK_DEPENDS "${_map}")
  endif()
endfunction()
