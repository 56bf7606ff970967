# Third-party packages. All come from Debian but three, which ./dev setup prepares in FASTGEN_DEPS:
#  - sentencepiece, static: Debian's shared library exports its own protobuf 3.14 and breaks any process that also
#    loads libprotobuf;
#  - xgrammar, static, which Debian does not package (engine/text/grammar_budget.h says what setup changes in it);
#  - google/rpc/*.proto, which Debian does not package.
find_package(Threads REQUIRED)
find_package(absl REQUIRED)
find_package(Protobuf REQUIRED)
find_package(spdlog REQUIRED)
set(Boost_NO_WARN_NEW_VERSIONS ON)
find_package(Boost 1.81 EXACT REQUIRED COMPONENTS json)
find_package(OpenSSL REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(GRPCPP REQUIRED IMPORTED_TARGET grpc++)
find_library(GRPC_REFLECTION grpc++_reflection REQUIRED)  # has no .pc file in Debian
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(CURL REQUIRED IMPORTED_TARGET libcurl)
pkg_check_modules(EDIT REQUIRED IMPORTED_TARGET libedit)
pkg_check_modules(PROMETHEUS REQUIRED IMPORTED_TARGET prometheus-cpp-core)  # without its HTTP server
find_program(PROTOC protoc REQUIRED)
find_program(GRPC_CPP_PLUGIN grpc_cpp_plugin REQUIRED)
find_path(CLI11_INCLUDE CLI/CLI.hpp REQUIRED)

if(NOT EXISTS ${FASTGEN_DEPS}/sentencepiece/lib/libsentencepiece.a
   OR NOT EXISTS ${FASTGEN_DEPS}/xgrammar/lib/libxgrammar.a
   OR NOT EXISTS ${FASTGEN_DEPS}/googleapis/google/rpc/status.proto)
  message(FATAL_ERROR "${FASTGEN_DEPS} lacks sentencepiece, xgrammar or googleapis: run ./dev setup first")
endif()
add_library(sentencepiece_static STATIC IMPORTED)
set_target_properties(sentencepiece_static PROPERTIES
  IMPORTED_LOCATION ${FASTGEN_DEPS}/sentencepiece/lib/libsentencepiece.a
  INTERFACE_INCLUDE_DIRECTORIES ${FASTGEN_DEPS}/sentencepiece/include)
target_link_libraries(sentencepiece_static INTERFACE protobuf::libprotobuf-lite Threads::Threads)
add_library(xgrammar_static STATIC IMPORTED)
set_target_properties(xgrammar_static PROPERTIES
  IMPORTED_LOCATION ${FASTGEN_DEPS}/xgrammar/lib/libxgrammar.a
  INTERFACE_INCLUDE_DIRECTORIES ${FASTGEN_DEPS}/xgrammar/include)
target_link_libraries(xgrammar_static INTERFACE Threads::Threads)
