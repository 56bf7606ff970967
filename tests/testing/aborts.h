// Aborts: tests of what a CHECK must catch.
// Thread rule: the test's main thread. The misuse must not need other threads: it runs in a fork.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>

namespace fastgen::testing {

// True when `misuse` ends the process by a CHECK.
template <typename Misuse>
bool Aborts(Misuse misuse) {
  const pid_t child = fork();
  if (child == 0) {
    if (std::freopen("/dev/null", "w", stderr) == nullptr) _exit(1);
    std::signal(SIGABRT, SIG_DFL);  // Catch2 would report it
    misuse();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

}  // namespace fastgen::testing
