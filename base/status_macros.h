// RETURN_IF_ERROR and ASSIGN_OR_RETURN: pass an absl::Status up without ceremony.
// Thread rule: any thread.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define RETURN_IF_ERROR(expr)                              \
  do {                                                     \
    absl::Status fastgen_status = (expr);                  \
    if (!fastgen_status.ok()) return fastgen_status;       \
  } while (false)

#define FASTGEN_CONCAT_INNER_(a, b) a##b
#define FASTGEN_CONCAT_(a, b) FASTGEN_CONCAT_INNER_(a, b)

// ASSIGN_OR_RETURN(auto x, Parse(bytes)): `x` is the value, or the enclosing function returns the error.
#define ASSIGN_OR_RETURN(lhs, expr) \
  ASSIGN_OR_RETURN_IMPL_(FASTGEN_CONCAT_(fastgen_statusor_, __LINE__), lhs, expr)
#define ASSIGN_OR_RETURN_IMPL_(tmp, lhs, expr) \
  auto tmp = (expr);                           \
  if (!tmp.ok()) return tmp.status();          \
  lhs = *std::move(tmp)
