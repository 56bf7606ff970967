# fastgen_library(NAME SOURCES a.cc ... [DEPS target ...] [PRIVATE_DEPS target ...]): one library a folder, warnings as errors.
set(FASTGEN_WARNINGS -Wall -Wextra -Werror -Wno-unused-parameter)

function(fastgen_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_compile_options(${name} PRIVATE ${FASTGEN_WARNINGS})
  target_link_libraries(${name} PUBLIC ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS})
endfunction()

# fastgen_program(NAME SOURCES a.cc ... DEPS target ...): an executable in build/bin.
function(fastgen_program name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_compile_options(${name} PRIVATE ${FASTGEN_WARNINGS})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS})
endfunction()

# fastgen_test(NAME SOURCES a_test.cc ... DEPS target ...): a Catch2 executable; ctest sees each case, labelled with its
# folder: "core" for base, kernels, engine and sim, which also run under sanitizers. FASTGEN_SOURCE_DIR is the
# repository's root inside tests.
function(fastgen_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_compile_options(${name} PRIVATE ${FASTGEN_WARNINGS})
  target_compile_definitions(${name} PRIVATE FASTGEN_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  target_link_libraries(${name} PRIVATE fastgen_test_main ${ARG_DEPS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  file(RELATIVE_PATH label ${CMAKE_SOURCE_DIR}/tests ${CMAKE_CURRENT_SOURCE_DIR})
  if(label MATCHES "^(base|kernels|engine|sim)")
    add_dependencies(core_tests ${name})
    set(label core)
  endif()
  # Label first, so that a case's name is unique among all executables.
  catch_discover_tests(${name} TEST_PREFIX "${name}: " PROPERTIES LABELS ${label} TIMEOUT 300
    SKIP_RETURN_CODE 77)
endfunction()
