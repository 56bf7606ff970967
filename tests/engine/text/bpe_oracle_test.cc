// Our BPE against one that is written from the rule alone: over texts, not ids, looking at every
// pair at every step.
#include <catch2/catch.hpp>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/unicode.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/tokenizer.h"
#include "tests/engine/text/random_text.h"
#include "tests/engine/text/real_tokenizers.h"
#include "tests/engine/text/tokenizer_files.h"
#include "tests/testing/testdata.h"

namespace fastgen {
namespace {

using testing::RandomText;
using Ids = std::vector<int32_t>;

class Oracle {
 public:
  explicit Oracle(const TokenizerSource& source) : source_(source) {
    for (size_t id = 0; id < source.pieces.size(); ++id) {
      if (source.pieces[id].empty() || IsSpecial(static_cast<int32_t>(id))) continue;
      ids_.try_emplace(source.pieces[id], static_cast<int32_t>(id));
    }
    for (size_t rank = 0; rank < source.merges.size(); ++rank) {
      const auto& [left, right] = source.merges[rank];
      listed_[left + '\n' + right] = static_cast<double>(rank);
    }
  }

  Ids Encode(const std::string& word) const {
    if (source_.ignore_merges) {
      const auto whole = ids_.find(Join(Symbols(word)));
      if (whole != ids_.end()) return {whole->second};
    }
    std::vector<std::string> symbols = Symbols(word);
    while (true) {
      double lowest = std::numeric_limits<double>::infinity();
      size_t at = 0;
      for (size_t i = 0; i + 1 < symbols.size(); ++i) {
        const std::optional<double> rank = Rank(symbols[i], symbols[i + 1]);
        if (!rank.has_value() || *rank >= lowest) continue;
        lowest = *rank;
        at = i;
      }
      if (lowest == std::numeric_limits<double>::infinity()) break;
      symbols[at] += symbols[at + 1];
      symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(at) + 1);
    }
    Ids ids;
    for (const std::string& symbol : symbols) Append(symbol, &ids);
    return ids;
  }

 private:
  bool IsSpecial(int32_t id) const {
    for (const AddedToken& token : source_.added_tokens) {
      if (token.id == id) return token.special;
    }
    return false;
  }

  bool IsByteLevel() const { return source_.model == TokenizerSource::Model::kByteLevelBpe; }

  std::vector<std::string> Symbols(const std::string& word) const {
    std::vector<std::string> symbols;
    for (size_t pos = 0; pos < word.size();) {
      if (IsByteLevel()) {
        symbols.push_back(source_.pieces_are_bytes
                              ? word.substr(pos, 1)
                              : AlphabetCharacter(static_cast<uint8_t>(word[pos])));
        if (ids_.count(symbols.back()) == 0) symbols.pop_back();  // the vocabulary lacks the byte
        ++pos;
      } else {
        const size_t num_bytes = DecodeUtf8(word, pos).num_bytes;
        symbols.push_back(word.substr(pos, num_bytes));
        pos += num_bytes;
      }
    }
    return symbols;
  }

  static std::string Join(const std::vector<std::string>& symbols) {
    std::string text;
    for (const std::string& symbol : symbols) text += symbol;
    return text;
  }

  // Lower goes first.
  std::optional<double> Rank(const std::string& left, const std::string& right) const {
    const auto joint = ids_.find(left + right);
    if (joint == ids_.end()) return std::nullopt;
    const size_t id = static_cast<size_t>(joint->second);
    switch (source_.merge_order) {
      case TokenizerSource::MergeOrder::kListed: {
        const auto rank = listed_.find(left + '\n' + right);
        return rank == listed_.end() ? std::nullopt : std::optional<double>(rank->second);
      }
      case TokenizerSource::MergeOrder::kById:
        return static_cast<double>(id);
      case TokenizerSource::MergeOrder::kByScore:
        return -static_cast<double>(source_.scores[id]);
    }
    return std::nullopt;
  }

  void Append(const std::string& symbol, Ids* ids) const {
    const auto id = ids_.find(symbol);
    if (id != ids_.end()) {
      ids->push_back(id->second);
      return;
    }
    for (const char c : symbol) {
      char name[8];
      std::snprintf(name, sizeof(name), "<0x%02X>", static_cast<uint8_t>(c));
      ids->push_back(ids_.at(name));
    }
  }

  const TokenizerSource& source_;
  std::unordered_map<std::string, int32_t> ids_;
  std::unordered_map<std::string, double> listed_;
};

// Words of pieces and of anything: they must not touch added tokens.
std::string RandomWord(RandomText* random, const std::vector<std::string>& pieces) {
  std::string word = random->Below(4) == 0 ? random->Unicode(1 + random->Below(24))
                                           : random->FromPieces(pieces, 1 + random->Below(10));
  return IsValidUtf8(word) ? word : random->Unicode(1 + random->Below(24));
}

}  // namespace

TEST_CASE("words merge as the rule says, in every vocabulary", "[text][property]") {
  for (const std::string& name : testing::TokenizerNames()) {
    const std::unique_ptr<Tokenizer> whole = testing::LoadByName(name);
    std::vector<std::string> pieces;
    for (int32_t id = 0; id < whole->vocab_size(); ++id) {
      const std::string piece(whole->TokenBytes(id));
      if (!piece.empty() && !whole->IsSpecial(id)) pieces.push_back(piece);
    }
    // The merges alone: a text is one word.
    TokenizerSource source = testing::SourceByName(name);
    if (source.model == TokenizerSource::Model::kUnigram) continue;  // merges nothing
    source.splits.clear();
    source.normalizer.clear();
    source.metaspace.reset();
    std::erase_if(source.added_tokens, [](const AddedToken& token) { return !token.special; });
    const auto tokenizer = MakeTokenizer(source);
    REQUIRE(tokenizer.ok());
    const Oracle oracle(source);
    for (const uint64_t seed : {11, 12, 13}) {
      RandomText random(seed);
      for (int i = 0; i < 300; ++i) {
        const std::string word = RandomWord(&random, pieces);
        const auto ids =
            (*tokenizer)->Encode(word, {.add_special_tokens = false, .parse_special = false});
        REQUIRE(ids.ok());
        const Ids expected = oracle.Encode(word);
        if (*ids == expected) continue;
        CAPTURE(name, seed, i, word);
        CHECK(*ids == expected);
      }
    }
  }
}

TEST_CASE("our BPE gives the ids of the sentencepiece library", "[text][property]") {
  std::vector<std::filesystem::path> models = {testing::SourceTestdata() / "tokenizer" /
                                               "sentencepiece.model"};
  if (const auto shared = testing::SharedTestdata()) {
    models.push_back(*shared / "tokenizers" / "mistral_v3" /
                     "mistral_instruct_tokenizer_240323.model.v3");
  }
  for (const std::filesystem::path& model : models) {
    const auto ours = testing::LoadSentencePiece(model, testing::SentencePieceBy::kChoice);
    const auto library = testing::LoadSentencePiece(model, testing::SentencePieceBy::kLibrary);
    std::vector<std::string> pieces;
    for (int32_t id = 0; id < library->vocab_size(); ++id) {
      CHECK(ours->TokenBytes(id) == library->TokenBytes(id));
      CHECK(ours->IsSpecial(id) == library->IsSpecial(id));
      const std::string piece(library->TokenBytes(id));
      if (!piece.empty()) pieces.push_back(piece);
    }
    for (const uint64_t seed : {21, 22, 23}) {
      RandomText random(seed);
      for (int i = 0; i < 500; ++i) {
        const std::string text = RandomWord(&random, pieces);
        const EncodeOptions options = {.parse_special = random.Below(2) == 0};
        const auto expected = library->Encode(text, options);
        const auto ids = ours->Encode(text, options);
        REQUIRE(expected.ok());
        REQUIRE(ids.ok());
        if (*ids == *expected) continue;
        CAPTURE(model, seed, i, text);
        CHECK(*ids == *expected);
      }
    }
  }
}

}  // namespace fastgen
