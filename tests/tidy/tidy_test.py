#!/usr/bin/env python3
"""tidy.py finds each planted violation at its line, and nothing in a tree that keeps the rules."""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

TIDY = pathlib.Path(__file__).with_name("tidy.py")
LATER = "TO" + "DO"

# The smallest tree that keeps the rules.
GOOD = {
    "CMakeLists.txt": "",
    "base/CMakeLists.txt": "add_library(b clock.cc)\n",
    "base/clock.h": "// Clock: what time it is.\n#pragma once\n#include <cstdint>\nint64_t Now();\n",
    "base/clock.cc": '#include "base/clock.h"\n\n#include "base/units.h"\nint64_t Now() { return kUnit; }\n',
    "base/units.h": "// Units.\n#pragma once\ninline constexpr int kUnit = 1;\n",
    "tests/base/CMakeLists.txt": "fastgen_test(base_tests SOURCES clock_test.cc)\n",
    "tests/base/clock_test.cc": '#include "base/clock.h"\n',
}


class TidyTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name, "tree")
        self.build = pathlib.Path(folder.name, "build")
        self.build.mkdir()
        for path, text in GOOD.items():
            self.write(path, text)
        self.compiled = [path for path in GOOD if path.endswith(".cc")]

    def write(self, path, text):
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def run_tidy(self, *arguments):
        run = subprocess.run([sys.executable, str(TIDY), "--root", str(self.root), *arguments],
                             text=True, capture_output=True, check=False)
        self.assertIn(run.returncode, (0, 1), run.stderr)
        lines = run.stdout.splitlines()
        self.assertEqual(run.returncode, 1 if lines else 0, run.stdout)
        return lines

    def run_with_build(self):
        entries = [{"directory": str(self.build), "file": str(self.root / path),
                    "command": f"ccache g++ -I{self.root} -std=c++20 -Werror -o {path}.o -c {self.root / path}"}
                   for path in self.compiled]
        (self.build / "compile_commands.json").write_text(json.dumps(entries))
        return self.run_tidy("--build", str(self.build))

    def assert_only(self, lines, begins_with):
        self.assertEqual([line[:len(begins_with)] for line in lines], [begins_with], lines)

    def plant(self, path, text, begins_with):
        """The file, alone, makes tidy report one line that begins so."""
        self.write(path, text)
        self.assert_only(self.run_tidy(), begins_with)

    def header(self, text=""):
        return "// A header.\n#pragma once\n" + text

    def test_a_tree_that_keeps_the_rules_passes(self):
        self.assertEqual(self.run_tidy(), [])
        self.assertEqual(self.run_with_build(), [])

    # The include table.

    def test_the_floor_includes_nothing_above(self):
        self.plant("base/log.cc", '#include "base/clock.h"\n#include "engine/engine.h"\n', "base/log.cc:2: include:")

    def test_kernels_do_not_know_their_backends(self):
        self.plant("kernels/backend.h", self.header('#include "kernels/cpu/gemm.h"\n'),
                   "kernels/backend.h:3: include:")

    def test_make_backend_alone_knows_the_backends(self):
        self.write("kernels/make_backend.cc", '#include "kernels/cpu/cpu_backend.h"\n')
        self.assertEqual(self.run_tidy(), [])

    def test_the_scheduler_does_not_know_the_model(self):
        self.plant("engine/schedule/scheduler.cc", '#include "engine/model/executor.h"\n',
                   "engine/schedule/scheduler.cc:1: include:")

    def test_the_model_knows_the_step_plan_only(self):
        self.write("engine/model/a.cc", '#include "engine/schedule/step_plan.h"\n#include "engine/request.h"\n')
        self.assertEqual(self.run_tidy(), [])
        self.plant("engine/model/a.cc", '#include "engine/schedule/scheduler.h"\n', "engine/model/a.cc:1: include:")

    def test_text_may_read_requests(self):
        self.write("engine/text/a.cc", '#include "engine/request.h"\n')
        self.assertEqual(self.run_tidy(), [])
        self.plant("engine/text/a.cc", '#include "engine/engine.h"\n', "engine/text/a.cc:1: include:")

    def test_the_gateway_knows_nothing_of_the_server(self):
        self.write("server/gateway/a.cc", '#include "fastgen/v1/inference.pb.h"\n')
        self.assertEqual(self.run_tidy(), [])
        self.plant("server/gateway/a.cc", '#include "server/options.h"\n', "server/gateway/a.cc:1: include:")

    def test_in_process_alone_starts_the_gateway(self):
        self.write("server/in_process.cc", '#include "server/gateway/http_server.h"\n')
        self.assertEqual(self.run_tidy(), [])
        self.plant("server/main.cc", '#include "server/gateway/http_server.h"\n', "server/main.cc:1: include:")

    def test_the_server_sees_the_facade_only(self):
        self.plant("server/a.cc", '#include "engine/engine.h"\n#include "engine/schedule/scheduler.h"\n',
                   "server/a.cc:2: include:")

    # Libraries.

    def test_libraries_stay_in_their_file(self):
        self.write("base/log.cc", "#include <spdlog/spdlog.h>\n")
        self.assertEqual(self.run_tidy(), [])
        self.plant("base/clock.cc", "#include <spdlog/spdlog.h>\n", "base/clock.cc:1: third-party:")

    def test_the_scheduler_has_no_thread_and_no_clock(self):
        for header in ("<thread>", "<mutex>", "<chrono>", "<atomic>", '"absl/time/time.h"', "<unistd.h>"):
            with self.subTest(header):
                self.plant("engine/schedule/a.cc", f"#include <vector>\n#include {header}\n",
                           "engine/schedule/a.cc:2: third-party:")

    def test_kernels_have_only_part_of_absl(self):
        self.write("kernels/a.cc", '#include "absl/status/status.h"\n')
        self.assertEqual(self.run_tidy(), [])
        self.plant("kernels/a.cc", '#include "absl/time/clock.h"\n', "kernels/a.cc:1: third-party:")

    def test_grpc_stays_out_of_the_engine(self):
        self.plant("engine/a.cc", "#include <grpcpp/grpcpp.h>\n", "engine/a.cc:1: third-party:")

    def test_an_unknown_library_is_reported(self):
        self.plant("engine/a.cc", "#include <nlohmann/json.hpp>\n", "engine/a.cc:1: third-party:")
        self.plant("engine/a.cc", "#include <jansson.h>\n", "engine/a.cc:1: third-party:")

    def test_intrinsics_stay_in_their_files(self):
        self.write("kernels/cpu/gemm_avx2.cc", "#include <immintrin.h>\n")
        self.assertEqual(self.run_tidy(), [])
        self.plant("kernels/cpu/cpu_backend.cc", "#include <immintrin.h>\n",
                   "kernels/cpu/cpu_backend.cc:1: third-party:")

    # The form of a header.

    def test_a_header_opens_with_a_comment(self):
        self.plant("base/a.h", "#pragma once\n// Late.\n", "base/a.h:1: first-comment:")

    def test_a_header_has_pragma_once(self):
        self.plant("base/a.h", "// A.\n", "base/a.h:1: pragma-once:")

    def test_a_header_compiles_alone(self):
        self.write("base/units.h", self.header("\ninline std::vector<int> kUnits;\n"))
        self.assert_only(self.run_with_build(), "base/units.h:4: alone: base/units.h")

    def test_a_header_is_compiled_again_when_what_it_includes_changed(self):
        self.write("base/units.h", self.header('#include "base/scale.h"\ninline int Unit() { return kScale; }\n'))
        self.write("base/scale.h", self.header("inline constexpr int kScale = 1;\n"))
        self.assertEqual(self.run_with_build(), [])
        self.assertEqual(self.run_with_build(), [])
        self.write("base/scale.h", self.header())
        self.assert_only(self.run_with_build(), "base/units.h:4: alone:")

    def test_a_broken_header_is_reported_each_time(self):
        self.write("base/units.h", self.header("int Broken(\n"))
        self.assertEqual(len(self.run_with_build()), 1)
        self.assertEqual(len(self.run_with_build()), 1)

    # Nothing is left out.

    def test_a_source_that_is_not_built_is_reported(self):
        self.write("base/forgotten.cc", "")
        self.assert_only(self.run_with_build(), "base/forgotten.cc:1: not-built:")

    def test_a_header_that_nobody_includes_is_reported(self):
        self.write("base/forgotten.h", self.header())
        self.assert_only(self.run_with_build(), "base/forgotten.h:1: not-built:")

    def test_a_fuzzer_needs_its_name_in_cmake(self):
        self.write("tests/fuzz/a_fuzzer.cc", "")
        self.assert_only(self.run_with_build(), "tests/fuzz/a_fuzzer.cc:1: not-built:")
        self.write("tests/fuzz/CMakeLists.txt", "fastgen_fuzzer(a_fuzzer fastgen_base)\n")
        self.assertEqual(self.run_with_build(), [])

    def test_an_unregistered_test_is_reported(self):
        self.plant("tests/base/units_test.cc", "", "tests/base/units_test.cc:1: unregistered:")

    def test_another_name_that_contains_the_tests_does_not_register_it(self):
        self.write("tests/base/CMakeLists.txt", "fastgen_test(base_tests SOURCES wall_clock_test.cc)\n")
        self.assert_only(self.run_tidy(), "tests/base/clock_test.cc:1: unregistered:")

    # Words.

    def test_a_note_for_later_needs_an_issue(self):
        self.write("base/a.cc", f"// {LATER}(#12): later.\n")
        self.assertEqual(self.run_tidy(), [])
        self.plant("base/a.cc", f"\n// {LATER}: later.\n", "base/a.cc:2: todo:")

    def test_words_that_say_nothing_are_banned_from_files(self):
        for name in ("utils.cc", "string_util.cc", "test_helper.cc", "misc.py"):
            with self.subTest(name):
                self.write("base/" + name, "")
                self.assert_only(self.run_tidy(), f"base/{name}:1: name:")
                (self.root / "base" / name).unlink()

    def test_words_that_say_nothing_are_banned_from_types(self):
        for name in ("BlockManager", "RequestProcessor", "EngineImpl"):
            with self.subTest(name):
                self.plant("base/a.cc", f"\nclass {name} {{}};\n", "base/a.cc:2: name:")

    def test_a_banned_word_inside_another_is_fine(self):
        self.write("base/utility_bill.cc", "class Commonwealth {};\nstruct Simple {};\n// class Manager\n")
        self.assertEqual(self.run_tidy(), [])

    # Code.

    def test_locks_are_ours(self):
        for lock in ("std::mutex m;", "std::lock_guard<Mutex> l(m);", "absl::Mutex m;", "absl::Notification n;"):
            with self.subTest(lock):
                self.plant("engine/a.cc", f"\n{lock}\n", "engine/a.cc:2: lock:")

    def test_threads_are_joined(self):
        self.plant("engine/a.cc", "\nworker.detach();\n", "engine/a.cc:2: detach:")

    def test_nobody_sleeps_outside_tests(self):
        self.write("tests/a.cc", "std::this_thread::sleep_for(ms);\n")
        self.assertEqual(self.run_tidy(), [])
        for call in ("std::this_thread::sleep_for(ms);", "absl::SleepFor(ms);", "usleep(10);", "sleep(1);"):
            with self.subTest(call):
                self.plant("engine/a.cc", f"\n{call}\n", "engine/a.cc:2: sleep:")

    def test_comments_and_strings_are_not_code(self):
        self.write("engine/a.cc", '// std::mutex\n/* x.detach()\n */ auto s = "std::mutex"; auto r = R"(sleep(1);)";\n'
                                  "int n = 1'000'000; char c = '\"';\n")
        self.assertEqual(self.run_tidy(), [])

    def test_a_violation_after_a_comment_keeps_its_line(self):
        self.plant("engine/a.cc", "/* one\n two\n*/\nstd::mutex m;\n", "engine/a.cc:4: lock:")

    # Size.

    def test_a_file_has_its_limit(self):
        self.write("engine/a.cc", "\n" * 700)
        self.assertEqual(self.run_tidy(), [])
        self.plant("engine/a.cc", "\n" * 701, "engine/a.cc:701: file-length:")

    def test_a_function_of_the_scheduler_has_its_limit(self):
        body = "  Step();\n"
        self.write("engine/schedule/a.cc", "\n" + "void Run() {\n" + body * 68 + "}\n")
        self.assertEqual(self.run_tidy(), [])
        self.plant("engine/schedule/a.cc", "\nvoid Run(int a,\n         int b) {\n" + body * 68 + "}\n",
                   "engine/schedule/a.cc:2: function-length:")


if __name__ == "__main__":
    unittest.main()
