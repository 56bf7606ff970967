// A tokenizer held against its reference rows; failures are Catch2 assertions.
// Thread rule: the test's main thread.
#pragma once

#include <filesystem>

#include "engine/text/tokenizer.h"

namespace fastgen::testing {

// golden.jsonl: ids with and without added tokens, and the decoded text with and without special
// tokens, of every row.
void CheckEncodings(const Tokenizer& tokenizer, const std::filesystem::path& golden,
                    bool parse_special);

// What of a stream row's pieces must be equal, besides their concatenation.
enum class StreamPieces {
  kEqual,    // each
  kNoLater,  // none comes later than in the reference, which waits for the end of a run of bytes
};

// stream.jsonl: the text that comes out after every id.
void CheckStreams(const Tokenizer& tokenizer, const std::filesystem::path& stream,
                  StreamPieces expected = StreamPieces::kEqual);

}  // namespace fastgen::testing
