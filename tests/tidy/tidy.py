#!/usr/bin/env python3
"""The house rules that a compiler does not check.

    tests/tidy/tidy.py [--build DIR] [--root DIR]

Prints one line a violation, "file:line: rule: what", and exits 1 if there is any. With --build, the build directory's
compile_commands.json tells which sources are built and how a header is compiled alone; results of that are kept in
DIR/tidy_cache.json by content, so that only what changed is compiled again.

The rules, by name:
  include           a project include that the table below does not allow
  third-party       an include of a library, or of a system header, that the folder may not use
  first-comment     a header's first line is not a // comment
  pragma-once       a header without #pragma once
  alone             a header does not compile alone (what x.cc includes first is proved by building x.cc)
  not-built         a source that the build does not compile, or a header that nobody includes
  unregistered      a test that is in no CMakeLists.txt above it
  todo              a note for later without an issue's number
  name              a file or a type with a word in its name that says nothing
  lock              a lock, or a wait, from elsewhere than base/mutex.h
  detach            a detached thread
  sleep             sleeping as synchronisation, outside tests
  file-length       more lines than MAX_FILE_LINES
  function-length   in FUNCTION_LIMITS' folders
"""
import argparse
import concurrent.futures
import fnmatch
import hashlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

# Folder -> patterns of project includes that it may have. "a/" is the folder and all below it, "a/*" that folder only.
# The longest folder that holds a file decides.
PROJECT_INCLUDES = {
    "base": ["base/"],
    "kernels": ["kernels/*", "base/"],
    "kernels/cpu": ["kernels/*", "kernels/cpu/", "base/"],
    "kernels/cuda": ["kernels/*", "kernels/cuda/", "base/"],
    "engine": ["engine/", "kernels/*", "base/"],
    "engine/schedule": ["engine/schedule/", "engine/request.h", "engine/token_constraint.h", "base/"],
    "engine/text": ["engine/text/", "engine/request.h", "engine/token_constraint.h", "base/"],
    "engine/model": ["engine/model/", "engine/schedule/step_plan.h", "engine/request.h", "engine/token_constraint.h",
                     "kernels/*", "base/"],
    "hub": ["hub/", "base/"],
    "server": ["server/*", "server/transport/", "engine/*", "fastgen/v1/*", "base/"],
    "server/transport": ["server/transport/", "base/"],
    "server/gateway": ["server/gateway/", "server/transport/", "fastgen/v1/*", "base/"],
    "clients": ["clients/", "server/in_process.h", "server/transport/channel_tls.h", "server/options.h", "server/run_daemon.h", "server/loading_bar.h",
                "fastgen/v1/*", "base/"],
    "tests": ["*"],
}
# What single files may include beyond their folder's row: they put the parts together.
MORE_PROJECT_INCLUDES = {
    "kernels/make_backend.cc": ["kernels/cpu/", "kernels/cuda/"],
    "server/in_process.cc": ["kernels/make_backend.h", "hub/", "server/gateway/http_server.h"],
    "server/daemon.cc": ["kernels/make_backend.h", "hub/", "server/gateway/http_server.h"],
    "server/daemon_parts.h": ["server/gateway/http_server.h"],
}

# Library -> what its headers look like. The first match decides; a header with a slash or an ".h" that matches none is
# reported, so that a new library is a decision.
LIBRARIES = [
    ("absl", ["absl/*"]),
    ("spdlog", ["spdlog/*"]),
    ("utf8proc", ["utf8proc.h"]),
    ("grpc", ["grpc/*", "grpcpp/*"]),
    ("protobuf", ["google/*", "*.pb.h"]),
    ("boost.json", ["boost/json.hpp", "boost/json/*"]),
    ("boost", ["boost/*"]),
    ("cli11", ["CLI/*"]),
    ("sentencepiece", ["sentencepiece*"]),
    ("pcre2", ["pcre2.h"]),
    ("xgrammar", ["xgrammar/*"]),
    ("curl", ["curl/*"]),
    ("openssl", ["openssl/*"]),
    ("editline", ["editline/*"]),
    ("prometheus", ["prometheus/*"]),
    ("systemd", ["systemd/*"]),
    ("catch2", ["catch2/*"]),
    ("intrinsics", ["*mmintrin.h", "immintrin.h", "cpuid.h"]),
    ("nccl", ["nccl.h"]),
    ("cupti", ["cupti*"]),
    ("cuda", ["cuda*", "cublas*", "nvtx*"]),
    ("threads", ["thread", "mutex", "shared_mutex", "condition_variable", "chrono", "atomic", "future", "semaphore",
                 "latch", "barrier", "stop_token", "pthread.h"]),
    ("posix", ["sys/*", "linux/*", "netinet/*", "arpa/*", "unistd.h", "fcntl.h", "poll.h", "sched.h", "netdb.h",
               "spawn.h", "malloc.h", "signal.h", "time.h", "dirent.h", "termios.h", "dlfcn.h", "fenv.h"]),
    ("standard", ["[a-z_0-9]*"]),
]
EVERYWHERE = ["standard", "threads", "posix"]
# Folder -> libraries ("absl" or, narrower, patterns of its headers).
THIRD_PARTY = {
    "base": EVERYWHERE + ["absl"],
    # absl/strings: what an absl::Status says is made with StrCat.
    "kernels": EVERYWHERE + ["absl/status/*", "absl/types/*", "absl/strings/*"],
    "kernels/cuda": EVERYWHERE + ["absl/status/*", "absl/types/*", "absl/strings/*", "cuda"],
    "engine": EVERYWHERE + ["absl"],
    # Pure: no thread, no clock. absl::Status is for admission.h alone.
    "engine/schedule": ["standard", "absl/container/*", "absl/status/*", "absl/strings/*"],
    "engine/text": EVERYWHERE + ["absl"],
    "engine/model": EVERYWHERE + ["absl"],
    "hub": EVERYWHERE + ["absl", "curl", "boost.json", "openssl"],
    "server": EVERYWHERE + ["absl", "grpc", "protobuf", "cli11", "systemd"],
    "server/transport": EVERYWHERE + ["absl"],
    "server/gateway": EVERYWHERE + ["absl", "grpc", "protobuf", "boost.json", "boost"],
    "clients": EVERYWHERE + ["absl", "grpc", "protobuf", "cli11", "editline"],
    "tests": [name for name, _ in LIBRARIES],
}
# A library that a folder uses in these files only.
MORE_THIRD_PARTY = {
    "base/log.cc": ["spdlog"],
    "base/unicode.cc": ["utf8proc"],
    "kernels/cpu/gemm_*": ["intrinsics"],
    "kernels/cpu/attention*": ["intrinsics"],
    "kernels/cpu/*_path.h": ["intrinsics"],
    "kernels/cpu/avx2_int8.h": ["intrinsics"],
    "kernels/cpu/cpu_features.cc": ["intrinsics"],
    "kernels/cpu/tile_permission.cc": ["intrinsics"],
    "kernels/cuda/nccl_group.cc": ["nccl"],
    "kernels/cuda/cupti_trace.cc": ["cupti"],
    "server/gateway/main.cc": ["cli11"],
    "server/api_keys.cc": ["openssl"],
    "server/metrics.cc": ["prometheus"],
    "clients/fgbench/http_target.*": ["curl"],
    "clients/fgbench/completion_events.cc": ["boost.json"],
    "clients/fgbench/report.cc": ["boost.json"],
    "server/transport/channel_tls.*": ["grpc"],
    "server/transport/tls_source.cc": ["openssl"],
    "server/gateway/tls_stream.cc": ["openssl"],
    "engine/text/sentencepiece_*.cc": ["sentencepiece"],
    "engine/text/split_regex.cc": ["pcre2"],
    "engine/text/tokenizer_json*.cc": ["boost.json"],
    "engine/text/tokenizer_config.cc": ["boost.json"],
    "engine/text/tekken.cc": ["boost.json"],
    "engine/text/json_node.*": ["boost.json"],
    "engine/text/jinja_json.cc": ["boost.json"],
    "engine/text/grammar.cc": ["xgrammar"],
    "engine/text/json_schema.*": ["boost.json"],
    "engine/text/structural_tag.cc": ["boost.json"],
    "engine/model/config_fields.*": ["boost.json"],
    "engine/model/hf_config.cc": ["boost.json"],
    "engine/model/hf_rope.cc": ["boost.json"],
    "engine/model/safetensors.cc": ["boost.json"],
}

# Compiled in some builds only: it is enough that a CMakeLists.txt above names them.
NOT_IN_EVERY_BUILD = ["tests/fuzz/*", "kernels/no_cuda.cc", "kernels/cuda/*", "kernels/cpu/gemm_*"]

BANNED_WORDS = {"util", "utils", "helper", "helpers", "manager", "managers", "common", "misc", "impl", "processor"}
MAX_FILE_LINES = 700
FUNCTION_LIMITS = {"engine/schedule": 70}

# Rules by pattern on the code without its comments and strings: (rule, expression, files it does not bind, what).
CODE_RULES = [
    ("lock", r"\bstd::(recursive_|timed_|recursive_timed_|shared_|shared_timed_)?mutex\b|\bstd::condition_variable"
             r"|\bstd::(lock_guard|unique_lock|scoped_lock|shared_lock)\b"
             r"|\babsl::(Mutex|MutexLock|CondVar|Notification|BlockingCounter)\b",
     ["base/mutex.h"], "is not one of base/mutex.h's"),
    ("detach", r"(\.|->)\s*detach\s*\(\s*\)", [], "leaves a thread that nobody joins"),
    ("sleep", r"\bsleep_(for|until)\b|\babsl::SleepFor\b|\b(usleep|nanosleep)\s*\(|(?<![\w.>:])sleep\s*\(",
     ["tests/*"], "waits for time instead of an event"),
]

TOP_FOLDERS = ["base", "proto", "kernels", "engine", "hub", "server", "clients", "tests", "cmake"]
SKIPPED_FOLDERS = {"__pycache__", "testdata", "node_modules", "venv", ".venv"}
CPP_SUFFIXES = {".h", ".cc", ".cu", ".cuh"}
HEADER_SUFFIXES = {".h", ".cuh"}
READ_SUFFIXES = CPP_SUFFIXES | {".py", ".proto", ".cmake"}

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', re.M)
LATER = re.compile(r"\b(TO" r"DO|FIX" r"ME)\b(?!\(#\d+\))")
TYPE_NAME = re.compile(r"\b(?:class|struct|union|enum(?:\s+class)?)\s+(?:\[\[\w+\]\]\s*)?([A-Z]\w*)")
COMMENT_OR_LITERAL = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"([^()\\\s]{0,16})\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|(?<!\w)\'(?:\\.|[^\'\\\n])+\'', re.S)


class Source:
    """One file: its path from the root, its text, and the text without comments and literals."""

    def __init__(self, root, path):
        self.path = path
        self.text = (root / path).read_text(encoding="utf-8", errors="replace")
        self.name = pathlib.PurePosixPath(path).name
        self.suffix = pathlib.PurePosixPath(path).suffix
        self.is_cpp = self.suffix in CPP_SUFFIXES
        self.includes = []  # (line, header)
        self.code = ""
        if self.is_cpp:
            self.includes = [(self.line_of(m.start(1)), m.group(2)) for m in INCLUDE.finditer(self.text)]
            self.code = COMMENT_OR_LITERAL.sub(lambda m: "\n" * m.group().count("\n"), self.text)

    def line_of(self, offset):
        return self.text.count("\n", 0, offset) + 1


class Report:
    def __init__(self):
        self.lines = []

    def add(self, path, line, rule, what):
        self.lines.append((path, line, rule, what))

    def print(self):
        for path, line, rule, what in sorted(self.lines):
            print(f"{path}:{line}: {rule}: {what}")


def read_sources(root):
    """Every source file below the top folders, by path."""
    sources = {}
    for top in TOP_FOLDERS:
        for folder, folders, names in os.walk(root / top):
            folders[:] = sorted(f for f in folders if f not in SKIPPED_FOLDERS)
            for name in sorted(names):
                path = (pathlib.Path(folder) / name).relative_to(root).as_posix()
                if pathlib.PurePosixPath(name).suffix in READ_SUFFIXES or name == "CMakeLists.txt":
                    sources[path] = Source(root, path)
    return sources


def folder_of(path, table):
    """The longest folder of `table` that holds `path`; None if there is none."""
    holders = [folder for folder in table if path.startswith(folder + "/")]
    return max(holders, key=len, default=None)


def allows(pattern, header):
    if pattern.endswith("/"):
        return header.startswith(pattern)
    if pattern.endswith("/*"):
        return header.rpartition("/")[0] == pattern[:-2]
    return fnmatch.fnmatchcase(header, pattern)


def more_for(path, table):
    return [entry for pattern, entries in table.items() if fnmatch.fnmatchcase(path, pattern) for entry in entries]


def library_of(header):
    for library, patterns in LIBRARIES[:-1]:
        if any(fnmatch.fnmatchcase(header, pattern) for pattern in patterns):
            return library
    is_standard = "/" not in header and "." not in header
    return "standard" if is_standard else None


def is_project(header):
    return header.startswith("fastgen/") or header.split("/")[0] in TOP_FOLDERS and "/" in header


def check_includes(source, report):
    folder = folder_of(source.path, PROJECT_INCLUDES)
    libraries_folder = folder_of(source.path, THIRD_PARTY)
    for line, header in source.includes:
        if is_project(header):
            allowed = PROJECT_INCLUDES.get(folder, []) + more_for(source.path, MORE_PROJECT_INCLUDES)
            if not any(allows(pattern, header) for pattern in allowed):
                report.add(source.path, line, "include", f"{folder or 'this folder'} may not include {header}")
            continue
        library = library_of(header)
        allowed = THIRD_PARTY.get(libraries_folder, []) + more_for(source.path, MORE_THIRD_PARTY)
        if library in allowed or any("/" in entry and allows(entry, header) for entry in allowed):
            continue
        report.add(source.path, line, "third-party",
                   f"{libraries_folder or 'this folder'} may not include {header} ({library or 'unknown library'})")


def check_header_form(source, report):
    if source.suffix not in HEADER_SUFFIXES:
        return
    if not source.text.startswith("//"):
        report.add(source.path, 1, "first-comment", "a header opens with a // comment that says what it owns")
    if not re.search(r"^#pragma once$", source.text, re.M):
        report.add(source.path, 1, "pragma-once", "a header has #pragma once")


def words_of(name):
    """snake_case and CamelCase alike, in lower case."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def check_names(source, report):
    for part in pathlib.PurePosixPath(source.path).parts:
        for word in BANNED_WORDS.intersection(words_of(part)):
            report.add(source.path, 1, "name", f"'{word}' in {part} does not say what is in it")
    for match in TYPE_NAME.finditer(source.code):
        for word in BANNED_WORDS.intersection(words_of(match.group(1))):
            line = source.code.count("\n", 0, match.start()) + 1
            report.add(source.path, line, "name", f"'{word}' in {match.group(1)} does not say what it is")


def check_code(source, report):
    for rule, expression, unbound, what in CODE_RULES:
        if any(fnmatch.fnmatchcase(source.path, pattern) for pattern in unbound):
            continue
        for match in re.finditer(expression, source.code):
            line = source.code.count("\n", 0, match.start()) + 1
            report.add(source.path, line, rule, f"{match.group().strip()} {what}")


def check_lengths(source, report):
    num_lines = source.text.count("\n")
    if num_lines > MAX_FILE_LINES and (source.is_cpp or source.suffix == ".py"):
        report.add(source.path, MAX_FILE_LINES + 1, "file-length", f"{num_lines} lines, at most {MAX_FILE_LINES}")
    limit = FUNCTION_LIMITS.get(folder_of(source.path, FUNCTION_LIMITS))
    if limit is None or not source.is_cpp:
        return
    begin = None
    # As clang-format leaves it: what begins in the first column and closes there.
    for number, line in enumerate(source.code.split("\n"), 1):
        if line.startswith("}"):
            if begin is not None and number - begin + 1 > limit:
                report.add(source.path, begin, "function-length", f"{number - begin + 1} lines, at most {limit}")
            begin = None
        elif re.match(r"\w", line):
            begin = None if re.match(r"(namespace|class|struct|union|enum)\b", line) else number


def check_later(source, report):
    for match in LATER.finditer(source.text):
        word = match.group(1)
        report.add(source.path, source.line_of(match.start()), "todo", f"{word} without an issue: {word}(#123)")


def cmake_above(sources, path):
    """The texts of the CMakeLists.txt in the folder of `path` and above."""
    parents = [parent.as_posix() for parent in pathlib.PurePosixPath(path).parents]
    names = [("" if parent == "." else parent + "/") + "CMakeLists.txt" for parent in parents]
    return "\n".join(sources[name].text for name in names if name in sources)


def is_named(sources, path):
    """Whether a CMakeLists.txt above names this file; its stem is enough, as in foreach and functions."""
    stem = re.escape(pathlib.PurePosixPath(path).stem)
    return re.search(rf"(?<!\w){stem}(?!\w)", cmake_above(sources, path)) is not None


def check_registered(sources, report):
    for path, source in sources.items():
        if source.suffix == ".cc" and source.name.endswith("_test.cc") and not is_named(sources, path):
            report.add(path, 1, "unregistered", "no CMakeLists.txt above names this test")


def check_built(sources, commands, report):
    included = {header for source in sources.values() for _, header in source.includes}
    for path, source in sources.items():
        if source.suffix in HEADER_SUFFIXES and path not in included:
            report.add(path, 1, "not-built", "nobody includes this header")
        if source.suffix not in (".cc", ".cu") or path in commands or path in included:
            continue
        is_elsewhere = any(fnmatch.fnmatchcase(path, pattern) for pattern in NOT_IN_EVERY_BUILD)
        if not (is_elsewhere and is_named(sources, path)):
            report.add(path, 1, "not-built", "the build does not compile this source")


def read_commands(root, build):
    """Source path -> (directory, arguments) from compile_commands.json."""
    commands = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        file = pathlib.Path(entry["directory"], entry["file"]).resolve()
        if file.is_relative_to(root):
            arguments = entry.get("arguments") or shlex.split(entry["command"])
            commands[file.relative_to(root).as_posix()] = (entry["directory"], arguments)
    return commands


def flags_alone(arguments):
    """A source's command line, turned into one that reads a source from standard input and writes nothing."""
    while arguments and pathlib.PurePath(arguments[0]).name in ("ccache", "sccache"):
        arguments = arguments[1:]
    kept = [arguments[0]]
    skips = False
    for argument in arguments[1:]:
        if skips:
            skips = False
        elif argument in ("-o", "-c", "-MF", "-MT", "-MQ"):
            skips = True
        elif argument not in ("-MD", "-MMD", "-Werror"):
            kept.append(argument)
    return kept + ["-fsyntax-only", "-x", "c++", "-"]


def command_for(header, sources, commands):
    """How to compile `header`: as a source that includes it, else as one of its folder, else as any."""
    folder = pathlib.PurePosixPath(header).parent
    users = [path for path in commands
             if path in sources and any(name == header for _, name in sources[path].includes)]
    near = [path for path in users if pathlib.PurePosixPath(path).parent == folder]
    neighbours = [path for path in commands if pathlib.PurePosixPath(path).parent == folder]
    below_root = list(commands)
    for candidates in (near, users, neighbours, below_root):
        if candidates:
            return commands[min(candidates)]
    return None


def content_key(header, sources, command):
    """A hash of all that decides whether `header` compiles: the command and every project file that it reads."""
    digest = hashlib.sha256(json.dumps(command).encode())
    seen = set()
    pending = [header]
    while pending:
        path = pending.pop()
        if path in seen:
            continue
        seen.add(path)
        if path.endswith(".pb.h"):  # made from the proto
            path = "proto/" + re.sub(r"(\.grpc)?\.pb\.h$", ".proto", path)
        if path in sources:
            digest.update(path.encode() + b"\0" + sources[path].text.encode())
            pending.extend(name for _, name in sorted(sources[path].includes))
    return digest.hexdigest()


def proved_by_build(header, sources, commands):
    """x.cc that includes x.h before all else compiles only if x.h does alone."""
    source = str(pathlib.PurePosixPath(header).with_suffix(".cc"))
    if source not in commands or source not in sources:
        return False
    return [name for _, name in sources[source].includes[:1]] == [header]


def compile_alone(header, command):
    """The first error of `header` alone: (file, line, message), or None."""
    directory, arguments = command
    run = subprocess.run(arguments, cwd=directory, input=f'#include "{header}"\n', text=True,
                         capture_output=True, env=dict(os.environ, LC_ALL="C"))
    if run.returncode == 0:
        return None
    match = re.search(r"^([^\s:]+):(\d+):(?:\d+:)? (?:fatal )?error: (.*)$", run.stderr, re.M)
    return match.groups() if match else (header, "1", run.stderr.strip()[:200] or "the compiler failed")


def check_alone(root, build, sources, commands, report):
    cache_path = build / "tidy_cache.json"
    try:
        cache = set(json.loads(cache_path.read_text()))
    except (OSError, ValueError):
        cache = set()
    keys = {}
    for path, source in sources.items():
        command = command_for(path, sources, commands)
        is_cuda = source.suffix == ".cuh" or path.startswith("kernels/cuda/")
        if source.suffix in HEADER_SUFFIXES and not is_cuda and command is not None:
            if not proved_by_build(path, sources, commands):
                command = (command[0], flags_alone(command[1]))
                keys[path] = (content_key(path, sources, command), command)
    pending = {path: command for path, (key, command) in keys.items() if key not in cache}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        errors = dict(zip(pending, pool.map(lambda item: compile_alone(*item), pending.items())))
    for path, error in errors.items():
        if error is None:
            continue
        file, line, message = error
        at = pathlib.Path(file)
        what = f"{path} does not compile alone: {message}"
        if at.is_absolute() and at.is_relative_to(root):
            report.add(at.relative_to(root).as_posix(), int(line), "alone", what)
        else:  # inside a library: the header that led there
            report.add(path, 1, "alone", what)
    good = sorted(key for path, (key, _) in keys.items() if errors.get(path) is None)
    cache_path.write_text(json.dumps(good))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[2])
    parser.add_argument("--build", type=pathlib.Path, help="a build directory with compile_commands.json")
    options = parser.parse_args()
    root = options.root.resolve()
    sources = read_sources(root)
    if not sources:
        sys.exit(f"{root} holds none of the folders {', '.join(TOP_FOLDERS)}")
    report = Report()
    for source in sources.values():
        check_names(source, report)
        check_later(source, report)
        check_lengths(source, report)
        if source.is_cpp:
            check_includes(source, report)
            check_header_form(source, report)
            check_code(source, report)
    check_registered(sources, report)
    if options.build is not None:
        build = options.build.resolve()
        commands = read_commands(root, build)
        check_built(sources, commands, report)
        check_alone(root, build, sources, commands, report)
    report.print()
    num_headers = sum(source.suffix in HEADER_SUFFIXES for source in sources.values())
    print(f"tidy: {len(sources)} files, {num_headers} headers, {len(report.lines)} violations", file=sys.stderr)
    return 1 if report.lines else 0


if __name__ == "__main__":
    sys.exit(main())
