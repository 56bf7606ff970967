#include "hub/hub_listing.h"

#include <algorithm>
#include <boost/json.hpp>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "hub/hub_id.h"

namespace fastgen {
namespace {

namespace json = boost::json;

constexpr size_t kMaxDepth = 32;
constexpr size_t kMaxFiles = 100'000;
constexpr int64_t kMaxFileBytes = int64_t{1} << 60;
constexpr size_t kMaxShownFiles = 20;

absl::StatusOr<json::object> ParseObject(std::string_view text, const char* what) {
  if (text.size() > kMaxListingBytes) {
    return absl::DataLossError(
        absl::StrCat(what, " has ", text.size(), " bytes, at most ", kMaxListingBytes));
  }
  json::parse_options options;
  options.max_depth = kMaxDepth;
  json::error_code error;
  json::value value = json::parse({text.data(), text.size()}, error, {}, options);
  if (error)
    return absl::DataLossError(absl::StrCat(what, " is not valid JSON (", error.message(), ")"));
  if (!value.is_object()) return absl::DataLossError(absl::StrCat(what, " is not a JSON object"));
  return std::move(value.get_object());
}

std::string StringMember(const json::object& object, const char* name) {
  const json::value* value = object.if_contains(name);
  if (value == nullptr || !value->is_string()) return "";
  return std::string(value->get_string());
}

// -1 for none, and for what cannot be a size.
int64_t SizeMember(const json::object& object, const char* name) {
  const json::value* value = object.if_contains(name);
  if (value == nullptr || !value->is_int64()) return -1;
  const int64_t size = value->get_int64();
  return size >= 0 && size <= kMaxFileBytes ? size : -1;
}

bool IsSha256(const std::string& text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

absl::StatusOr<HubFile> ParseFile(const json::value& entry) {
  HubFile file;
  if (entry.is_object()) file.name = StringMember(entry.get_object(), "rfilename");
  if (!IsSafeFileName(file.name)) {
    return absl::DataLossError(
        "the hub's list of files holds a name that is not a plain relative path");
  }
  file.size_bytes = SizeMember(entry.get_object(), "size");
  const json::value* lfs = entry.get_object().if_contains("lfs");
  if (lfs == nullptr || !lfs->is_object()) return file;
  const std::string sha256 = StringMember(lfs->get_object(), "sha256");
  if (IsSha256(sha256)) file.sha256 = sha256;
  const int64_t size = SizeMember(lfs->get_object(), "size");
  if (size >= 0) file.size_bytes = size;
  return file;
}

// "-00002-of-00003" before `suffix`.
bool IsShard(absl::string_view name, absl::string_view suffix) {
  constexpr size_t kTail = sizeof("-00002-of-00003") - 1;
  if (!absl::ConsumeSuffix(&name, suffix) || name.size() < kTail) return false;
  const absl::string_view tail = name.substr(name.size() - kTail);
  const auto digits = [&](size_t at) {
    return std::all_of(tail.begin() + at, tail.begin() + at + 5,
                       [](char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)); });
  };
  return tail[0] == '-' && digits(1) && tail.substr(6, 4) == "-of-" && digits(10);
}

bool IsSplitGguf(absl::string_view name) {
  return IsShard(name, ".gguf") && !absl::EndsWith(name, "-00001-of-00001.gguf");
}

bool IsTextFile(absl::string_view name) {
  static constexpr absl::string_view kNames[] = {
      "config.json", "generation_config.json",  "tokenizer.json",    "tokenizer_config.json",
      "tekken.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
      "merges.txt"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames) ||
         absl::StartsWith(name, "tokenizer.model") || absl::StartsWith(name, "chat_template.");
}

using Names = std::vector<std::string>;

bool Contains(const Names& names, absl::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// One copy of the weights: a repository may hold model.safetensors, its shards and
// consolidated.safetensors, all the same numbers.
Names ChooseWeights(const Names& names) {
  if (Contains(names, "model.safetensors")) return {"model.safetensors"};
  const auto all = [&](auto&& is_one) {
    Names found;
    std::copy_if(names.begin(), names.end(), std::back_inserter(found), is_one);
    return found;
  };
  Names shards = all([](absl::string_view name) {
    return absl::StartsWith(name, "model-") && IsShard(name, ".safetensors") &&
           !absl::StrContains(name, '/');
  });
  if (!shards.empty()) {
    if (Contains(names, "model.safetensors.index.json")) {
      shards.insert(shards.begin(), "model.safetensors.index.json");
    }
    return shards;
  }
  const auto is_weight = [](absl::string_view name) {
    return !absl::StrContains(name, '/') && (absl::EndsWith(name, ".safetensors") ||
                                             absl::EndsWith(name, ".safetensors.index.json"));
  };
  Names others = all([&](absl::string_view name) {
    return is_weight(name) && !absl::StartsWith(name, "consolidated");
  });
  if (others.empty()) others = all(is_weight);
  std::stable_partition(others.begin(), others.end(),
                        [](const std::string& name) { return absl::EndsWith(name, ".json"); });
  return others;
}

std::string List(const Names& names) {
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kMaxShownFiles); ++i) {
    absl::StrAppend(&text, i > 0 ? ", " : "", names[i]);
  }
  if (names.size() > kMaxShownFiles)
    absl::StrAppend(&text, " and ", names.size() - kMaxShownFiles, " more");
  return text;
}

absl::Status SplitGguf(const std::string& repo, const std::string& file) {
  return absl::InvalidArgumentError(absl::StrCat(
      repo, ": ", file,
      " is one piece of a split GGUF, which is not supported: choose a file that is whole"));
}

absl::StatusOr<Names> ChooseGguf(const std::string& repo, const Names& names) {
  Names whole, split;
  for (const std::string& name : names) {
    if (absl::EndsWith(name, ".gguf")) (IsSplitGguf(name) ? split : whole).push_back(name);
  }
  if (whole.size() == 1) return whole;
  if (whole.empty() && !split.empty()) return SplitGguf(repo, split[0]);
  if (!whole.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(repo, ": holds ", whole.size(),
                                                   " .gguf files: choose one as ", repo,
                                                   ":FILE, of ", List(whole)));
  }
  return absl::NotFoundError(absl::StrCat(
      repo,
      ": holds neither .safetensors nor .gguf files: it is not a model in a supported format"));
}

}  // namespace

absl::StatusOr<HubListing> ParseHubListing(std::string_view text) {
  ASSIGN_OR_RETURN(const json::object object, ParseObject(text, "the hub's answer"));
  HubListing listing;
  listing.commit = StringMember(object, "sha");
  if (!IsCommit(listing.commit)) {
    return absl::DataLossError(
        "the hub's answer has no \"sha\" of 40 hex digits: is HF_ENDPOINT a hub?");
  }
  const json::value* siblings = object.if_contains("siblings");
  if (siblings == nullptr || !siblings->is_array()) {
    return absl::DataLossError("the hub's answer has no \"siblings\", the list of files");
  }
  if (siblings->get_array().size() > kMaxFiles) {
    return absl::DataLossError(absl::StrCat("the hub lists ", siblings->get_array().size(),
                                            " files, at most ", kMaxFiles));
  }
  for (const json::value& entry : siblings->get_array()) {
    ASSIGN_OR_RETURN(HubFile file, ParseFile(entry));
    listing.files.push_back(std::move(file));
  }
  return listing;
}

absl::StatusOr<std::vector<std::string>> ParseShardIndex(std::string_view text) {
  ASSIGN_OR_RETURN(const json::object object, ParseObject(text, "the shard index"));
  const json::value* map = object.if_contains("weight_map");
  if (map == nullptr || !map->is_object())
    return absl::DataLossError("the shard index has no \"weight_map\"");
  std::set<std::string> names;
  for (const auto& [tensor, file] : map->get_object()) {
    if (!file.is_string() || !IsSafeFileName(std::string_view(file.get_string()))) {
      return absl::DataLossError("the shard index names a file that is not a plain relative path");
    }
    names.emplace(file.get_string());
  }
  return Names(names.begin(), names.end());
}

absl::StatusOr<std::vector<std::string>> ChooseFiles(const std::string& repo,
                                                     const std::string& file,
                                                     const std::vector<std::string>& names) {
  if (!file.empty()) {
    if (IsSplitGguf(file)) return SplitGguf(repo, file);
    if (Contains(names, file)) return Names{file};
    Names others;
    std::copy_if(names.begin(), names.end(), std::back_inserter(others),
                 [](const std::string& name) { return absl::EndsWith(name, ".gguf"); });
    return absl::NotFoundError(
        absl::StrCat(repo, ": has no file ", file,
                     others.empty() ? ", nor any .gguf" : "; its .gguf files are ", List(others)));
  }
  const Names weights = ChooseWeights(names);
  if (weights.empty()) return ChooseGguf(repo, names);
  if (!Contains(names, "config.json")) {
    return absl::NotFoundError(absl::StrCat(repo, ": holds safetensors files but no config.json"));
  }
  Names chosen;
  std::copy_if(names.begin(), names.end(), std::back_inserter(chosen), IsTextFile);
  chosen.insert(chosen.end(), weights.begin(), weights.end());
  return chosen;
}

}  // namespace fastgen
