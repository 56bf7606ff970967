// RunDaemon: the life of a daemon process, for fastgend and fgserve: start, loading bar, memory plan, ready lines,
// signals, drain, exit code.
//
// Signals: the first SIGTERM or SIGINT drains (new requests answer UNAVAILABLE, streams finish, exit 0), the second
// stops at once (exit 1). A signal while loading ends the process with exit 1: nothing was served that could be
// drained. Admin.Drain does what the first signal does. A start-up failure or an engine that failed is one line on stderr and exit 1. Everything is written to stderr.
// Thread rule: main thread, before any other thread was started: the signals are blocked here and every thread
// inherits that.
// Tested by tests/e2e/test_lifecycle.py.
#pragma once

#include <string>

#include "server/in_process.h"

namespace fastgen {

// `program` opens every message; `effective_options` is printed first. Returns the exit code.
int RunDaemon(const std::string& program, const DaemonOptions& options,
              const std::string& effective_options);

}  // namespace fastgen
