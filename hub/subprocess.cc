#include "hub/subprocess.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "absl/strings/str_cat.h"

namespace fastgen {

namespace {

// Our signals are blocked for a thread that waits for them, and SIGPIPE is ignored: the program
// inherits neither, so that Ctrl-C in the terminal ends it with us.
void ResetSignals(posix_spawnattr_t* attributes) {
  sigset_t none, ours;
  sigemptyset(&none);
  sigemptyset(&ours);
  for (int number : {SIGINT, SIGTERM, SIGPIPE}) sigaddset(&ours, number);
  posix_spawnattr_setsigmask(attributes, &none);
  posix_spawnattr_setsigdefault(attributes, &ours);
  posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
}

}  // namespace

absl::Status RunProgram(const std::vector<std::string>& argv) {
  std::vector<char*> arguments;
  for (const std::string& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  ResetSignals(&attributes);
  pid_t pid = 0;
  const int error =
      posix_spawnp(&pid, arguments[0], &actions, &attributes, arguments.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return absl::NotFoundError(absl::StrCat(argv[0], ": not found on this machine"));
  int state = 0;
  while (waitpid(pid, &state, 0) < 0) {
    if (errno != EINTR) return absl::UnavailableError(absl::StrCat(argv[0], ": lost its process"));
  }
  if (WIFEXITED(state) && WEXITSTATUS(state) == 0) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat(argv[0], WIFEXITED(state) ? " ended with exit code " : " was stopped by signal ",
                   WIFEXITED(state) ? WEXITSTATUS(state) : WTERMSIG(state)));
}

}  // namespace fastgen
