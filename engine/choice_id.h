// How the choices of one request are numbered as sequences: id = request number * kMaxChoices +
// choice.
//
// The leader (choice 0) has the request's own number, so that a sequence's request and choice
// follow from its id alone, without a table. Request numbers start at 1 and are never used again:
// no sequence has id 0. Thread rule: pure functions. Tested by tests/engine/choices_test.cc.
#pragma once

#include <cstdint>

#include "engine/request.h"

namespace fastgen {

// Choices that a request may have; a power of two.
inline constexpr int32_t kMaxChoices = 128;

inline SequenceId LeaderId(uint64_t request_number) { return request_number * kMaxChoices; }
inline SequenceId LeaderOf(SequenceId id) { return id - id % kMaxChoices; }
inline int32_t ChoiceOf(SequenceId id) { return static_cast<int32_t>(id % kMaxChoices); }

}  // namespace fastgen
