// The merge rules of a vocabulary as BpeMerges wants them: pairs of symbols, each with its rank.
//
// A file may list them (tokenizer.json, GGUF), or they follow from the pieces: any two neighbours
// whose joint text is a piece may merge, and the piece's id (tekken) or score (sentencepiece) says
// how early. The latter takes time in the square of a piece's length, so the pieces' lengths are
// bounded all together.
// A rule that leads to a special token is left out: it would be open to whoever types its text.
// Thread rule: any thread.
// Tested by tests/engine/text/bpe_tokenizer_test.cc and bpe_oracle_test.cc.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/text/bpe_merges.h"
#include "engine/text/token_table.h"
#include "engine/text/tokenizer.h"

namespace fastgen {

using PieceIds = absl::flat_hash_map<absl::string_view, int32_t>;

// The pieces by their text; of equal ones the first. The keys lie in `source`.
PieceIds IndexPieces(const TokenizerSource& source);

// The symbol of a text, -1 where none is: a piece's id, or what stands for a character without one.
using SymbolOf = std::function<int32_t(std::string_view)>;

// Of source.merges. INVALID_ARGUMENT naming the rule and the piece that the vocabulary lacks.
absl::Status AddListedMerges(const TokenizerSource& source, const PieceIds& ids,
                             const TokenTable& tokens, BpeMerges* merges);

// Of the pieces named by `candidates`, in source.merge_order. INVALID_ARGUMENT for pieces that are
// too long and scores that are missing or not numbers.
absl::Status AddImpliedMerges(const TokenizerSource& source, absl::Span<const int32_t> candidates,
                              const SymbolOf& symbol_of, BpeMerges* merges);

}  // namespace fastgen
