# pymimic._cuda, where PYMIMIC_CUDA and the machine's nvcc say so. Knows no GPU and no driver: cudart is linked statically.
set(least_nvcc 12.5)  # cudaGetDriverEntryPointByVersion

string(TOUPPER "${PYMIMIC_CUDA}" wanted)
if(NOT wanted MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "PYMIMIC_CUDA: expected AUTO, ON or OFF, got ${PYMIMIC_CUDA}")
endif()
if(wanted STREQUAL "OFF")
  message(STATUS "No CUDA kernels: PYMIMIC_CUDA is OFF")
  return()
endif()
if(wanted STREQUAL "AUTO")
  # The driver of NVIDIA's GPUs, or a file that stands for it.
  find_file(PYMIMIC_DRIVER NAMES version libcuda.so.1 NO_DEFAULT_PATH PATHS /proc/driver/nvidia /usr/lib/wsl/lib /usr/lib64
    /usr/lib/x86_64-linux-gnu /usr/lib/aarch64-linux-gnu)
  set(why "")
  if(PYMIMIC_SANITIZE)
    set(why "the sanitizers are the host's")
  elseif(NOT PYMIMIC_DRIVER)
    set(why "no GPU's driver on this machine; PYMIMIC_CUDA=ON builds them wherever nvcc is")
  endif()
  if(why)
    message(STATUS "No CUDA kernels: ${why}")
    return()
  endif()
endif()

# Looking for nvcc first keeps machines without it from trying compilers.
find_program(PYMIMIC_NVCC NAMES nvcc HINTS ENV CUDACXX ENV CUDA_PATH PATH_SUFFIXES bin PATHS /usr/local/cuda/bin)
set(why "")
if(NOT PYMIMIC_NVCC AND NOT DEFINED ENV{CUDACXX} AND NOT CMAKE_CUDA_COMPILER)
  set(why "no nvcc on this machine")
else()
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    set(CMAKE_CUDA_COMPILER ${PYMIMIC_NVCC})
  endif()
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES "80;90a-real")  # code for both, and PTX of the first for what comes later
  endif()
  # A configuration of its own, as a compiler that does not work would end this one.
  set(probe ${CMAKE_BINARY_DIR}/cuda-probe)
  file(WRITE ${probe}/CMakeLists.txt
    "cmake_minimum_required(VERSION 3.22...3.31)\nproject(probe LANGUAGES CUDA)\n"
    "if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS ${least_nvcc})\n"
    "  message(FATAL_ERROR \"nvcc \${CMAKE_CUDA_COMPILER_VERSION} is older than ${least_nvcc}\")\nendif()\n"
    "set(CMAKE_CUDA_STANDARD 17)\ninclude_directories(${CMAKE_CURRENT_SOURCE_DIR}/csrc ${CMAKE_CURRENT_SOURCE_DIR}/kernels)\nadd_library(probe STATIC ${CMAKE_CURRENT_SOURCE_DIR}/kernels/layers/dropout.cu)\n")
  execute_process(
    COMMAND ${CMAKE_COMMAND} -S ${probe} -B ${probe}/build -G ${CMAKE_GENERATOR} -DCMAKE_MAKE_PROGRAM=${CMAKE_MAKE_PROGRAM}
      -DCMAKE_CUDA_COMPILER=${CMAKE_CUDA_COMPILER} "-DCMAKE_CUDA_ARCHITECTURES=${CMAKE_CUDA_ARCHITECTURES}"
    RESULT_VARIABLE status OUTPUT_VARIABLE said ERROR_VARIABLE said)
  if(status EQUAL 0)
    execute_process(COMMAND ${CMAKE_COMMAND} --build ${probe}/build RESULT_VARIABLE status OUTPUT_VARIABLE said ERROR_VARIABLE said)
  endif()
  if(NOT status EQUAL 0)
    set(why "${CMAKE_CUDA_COMPILER} does not compile them")
    file(WRITE ${CMAKE_BINARY_DIR}/cuda-probe.log "${said}")
  endif()
endif()
if(why)
  unset(CMAKE_CUDA_COMPILER)
  if(wanted STREQUAL "ON")
    message(FATAL_ERROR "PYMIMIC_CUDA is ON, but there is ${why} (${CMAKE_BINARY_DIR}/cuda-probe.log)\n${said}")
  endif()
  message(STATUS "No CUDA kernels: ${why}")
  return()
endif()

enable_language(CUDA)
find_package(CUDAToolkit ${least_nvcc} REQUIRED)
message(STATUS "CUDA kernels: nvcc ${CMAKE_CUDA_COMPILER_VERSION}, architectures ${CMAKE_CUDA_ARCHITECTURES}")
add_subdirectory(kernels)

pybind11_add_module(_cuda MODULE NO_EXTRAS csrc/bindings/blas.cpp csrc/bindings/cuda.cpp csrc/bindings/cuda_arrays.cpp
  csrc/bindings/cuda_layers.cpp csrc/bindings/cuda_predictor.cpp csrc/bindings/device.cpp kernels/tile/recent.cpp $<TARGET_OBJECTS:kernels>)
set_target_properties(_cuda PROPERTIES CUDA_RUNTIME_LIBRARY Static LINKER_LANGUAGE CXX)
target_include_directories(_cuda PRIVATE csrc kernels)
target_link_libraries(_cuda PRIVATE warnings CUDA::cudart_static ${CMAKE_DL_LIBS})
install(TARGETS _cuda LIBRARY DESTINATION pymimic)
