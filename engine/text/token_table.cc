#include "engine/text/token_table.h"

#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "base/unicode.h"

namespace fastgen {
namespace {

absl::Status CheckAddedToken(const AddedToken& token) {
  const std::string name =
      absl::StrCat("added token '", absl::CHexEscape(token.content.substr(0, 64)), "'");
  if (token.id < 0 || token.id >= kMaxVocabularySize) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": id ", token.id, " is outside [0, ", kMaxVocabularySize, ")"));
  }
  if (token.content.size() > kMaxAddedTokenBytes) {
    return absl::InvalidArgumentError(absl::StrCat(name, " has ", token.content.size(),
                                                   " bytes, more than ", kMaxAddedTokenBytes));
  }
  if (!IsValidUtf8(token.content))
    return absl::InvalidArgumentError(absl::StrCat(name, " is not UTF-8"));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenTable> TokenTable::Create(std::vector<std::string> bytes,
                                              absl::Span<const AddedToken> added_tokens) {
  if (bytes.size() > static_cast<size_t>(kMaxVocabularySize)) {
    return absl::InvalidArgumentError(absl::StrCat("the vocabulary has ", bytes.size(),
                                                   " pieces, more than ", kMaxVocabularySize));
  }
  TokenTable table;
  table.special_.resize(bytes.size());
  absl::flat_hash_map<int32_t, const AddedToken*> by_id;
  for (const AddedToken& token : added_tokens) {
    RETURN_IF_ERROR(CheckAddedToken(token));
    const auto [other, inserted] = by_id.try_emplace(token.id, &token);
    if (!inserted && other->second->content != token.content) {
      return absl::InvalidArgumentError(absl::StrCat("added tokens '", other->second->content,
                                                     "' and '", token.content,
                                                     "' have the same id ", token.id));
    }
    const size_t id = static_cast<size_t>(token.id);
    if (id >= bytes.size()) {
      bytes.resize(id + 1);
      table.special_.resize(id + 1);
    }
    bytes[id] = token.content;
    table.special_[id] = token.special ? 1 : 0;
  }
  if (bytes.empty()) return absl::InvalidArgumentError("the vocabulary is empty");
  table.begin_.reserve(bytes.size() + 1);
  table.begin_.push_back(0);
  for (const std::string& piece : bytes) {
    table.bytes_ += piece;
    table.begin_.push_back(table.bytes_.size());
  }
  return table;
}

absl::Status CheckText(std::string_view text) {
  if (text.size() > kMaxTextBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("text has ", text.size(), " bytes, more than ", kMaxTextBytes));
  }
  if (!IsValidUtf8(text)) return absl::InvalidArgumentError("text is not valid UTF-8");
  return absl::OkStatus();
}

absl::Status CheckNamedIds(const TokenizerSource& source, const TokenTable& tokens) {
  const auto check = [&](std::string_view name, int32_t id) {
    if (tokens.Contains(id)) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(ToAbsl(name), " ", id, " is outside the vocabulary of ", tokens.size()));
  };
  for (const int32_t id : source.prefix_ids) RETURN_IF_ERROR(check("prefix id", id));
  for (const int32_t id : source.suffix_ids) RETURN_IF_ERROR(check("suffix id", id));
  for (const int32_t id : source.eos_ids) RETURN_IF_ERROR(check("eos id", id));
  if (source.bos_id.has_value()) RETURN_IF_ERROR(check("bos id", *source.bos_id));
  if (source.unknown_id.has_value()) RETURN_IF_ERROR(check("unknown id", *source.unknown_id));
  return absl::OkStatus();
}

}  // namespace fastgen
