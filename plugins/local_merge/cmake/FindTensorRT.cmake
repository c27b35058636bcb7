# Finds TensorRT 10 or 11 below TensorRT_ROOT (a tar archive, a Debian package, or a folder with its headers alone).
#
# TensorRT_FOUND, TensorRT_VERSION[_MAJOR], the target TensorRT::headers, and TensorRT::nvinfer where the library is.
find_path(TensorRT_INCLUDE_DIR NvInferRuntime.h
          HINTS "${TensorRT_ROOT}" ENV TensorRT_ROOT
          PATH_SUFFIXES include include/tensorrt tensorrt . "include/${CMAKE_LIBRARY_ARCHITECTURE}")

if(TensorRT_INCLUDE_DIR)
  file(STRINGS "${TensorRT_INCLUDE_DIR}/NvInferVersion.h" _tensorrt_lines REGEX "#define .*(MAJOR|MINOR|PATCH)")
  foreach(_part MAJOR MINOR PATCH)
    set(TensorRT_VERSION_${_part} "")
    foreach(_line IN LISTS _tensorrt_lines)
      # TensorRT 10.14 and later define NV_TENSORRT_MAJOR by way of TRT_MAJOR_ENTERPRISE.
      if(_line MATCHES "#define (NV_TENSORRT_${_part}|TRT_${_part}_ENTERPRISE) +([0-9]+)")
        set(TensorRT_VERSION_${_part} "${CMAKE_MATCH_2}")
      endif()
    endforeach()
  endforeach()
  set(TensorRT_VERSION "${TensorRT_VERSION_MAJOR}.${TensorRT_VERSION_MINOR}.${TensorRT_VERSION_PATCH}")
  find_library(TensorRT_LIBRARY "libnvinfer.so.${TensorRT_VERSION_MAJOR}"
               HINTS "${TensorRT_ROOT}" ENV TensorRT_ROOT
               PATH_SUFFIXES lib lib64 "lib/${CMAKE_LIBRARY_ARCHITECTURE}" "targets/x86_64-linux-gnu/lib")
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  TensorRT REQUIRED_VARS TensorRT_INCLUDE_DIR TensorRT_VERSION_MAJOR VERSION_VAR TensorRT_VERSION
  REASON_FAILURE_MESSAGE "give the folder of TensorRT 10 or 11 with -DTensorRT_ROOT=")
mark_as_advanced(TensorRT_INCLUDE_DIR TensorRT_LIBRARY)

if(TensorRT_FOUND)
  if(TensorRT_VERSION_MAJOR LESS 10)
    message(FATAL_ERROR "TensorRT ${TensorRT_VERSION} is too old: the plugin is an IPluginV3, which needs 10 or later")
  endif()
  if(NOT TARGET TensorRT::headers)
    add_library(TensorRT::headers INTERFACE IMPORTED)
    target_include_directories(TensorRT::headers SYSTEM INTERFACE "${TensorRT_INCLUDE_DIR}")
  endif()
  if(TensorRT_LIBRARY AND NOT TARGET TensorRT::nvinfer)
    add_library(TensorRT::nvinfer SHARED IMPORTED)
    set_target_properties(TensorRT::nvinfer PROPERTIES IMPORTED_LOCATION "${TensorRT_LIBRARY}")
  endif()
endif()
