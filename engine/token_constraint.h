// TokenConstraint: what an output may be, as the executor sees it: after each token, the set of
// those that may follow.
//
// A constraint is compiled once for a request and shared by its choices; each sequence has a
// matcher of its own, which is fed every output token in order. Where the text and the grammar come
// from is engine/text's business: the executor knows bits only. Thread rule: a constraint is
// immutable, any thread; a matcher belongs to one thread at a time. Tested by
// tests/engine/text/answer_constraint_test.cc and tests/engine/model/mask_filler_test.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace fastgen {

class TokenMatcher {
 public:
  virtual ~TokenMatcher() = default;

  // Sets bit t % 32 of word t / 32 where token t may come next, and clears all others. At the end
  // of a whole output the end tokens are among them, or all that is left. An error says in one
  // sentence why the output cannot go on. `mask` is [ceil(vocab / 32)].
  virtual absl::Status FillMask(absl::Span<uint32_t> mask) = 0;

  // Takes the next output token. An error, as above, when it was not allowed.
  virtual absl::Status Accept(int32_t token) = 0;
};

class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;
  virtual absl::StatusOr<std::unique_ptr<TokenMatcher>> NewMatcher() const = 0;
};

}  // namespace fastgen
