// HubId: a model named as on a hub, "org/name[@revision][:file.gguf]", and the rules for the names
// that a hub sends.
//
// The rules are those of huggingface_hub, as the same words become folders of the shared cache: org
// and name have letters, digits, '.', '_', '-', no "--", no "..", 96 characters together. A
// revision is a branch, tag, commit or "refs/pr/1". Nothing that passes here can leave the folder
// it is put into.
// Thread rule: any thread.
// Tested by tests/hub/small_parts_test.cc.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace fastgen {

struct HubId {
  std::string repo;               // "org/name"
  std::string revision = "main";  // branch, tag or commit
  std::string file;               // "" : the whole model
};

// Whether the text has the form org/name, followed by anything: what is not a path is then meant as
// an id.
bool LooksLikeHubId(std::string_view text);

// INVALID_ARGUMENT with one sentence: which part is wrong.
absl::StatusOr<HubId> ParseHubId(std::string_view text);

// A relative path of plain components: no "..", no "." , no empty one, no backslash, no control
// character.
bool IsSafeFileName(std::string_view name);

// 40 lower-case hex digits.
bool IsCommit(std::string_view text);

// What may name a blob: hex digits, letters, '-', '_', '.', at most 128, not beginning with '.'.
bool IsSafeEtag(std::string_view etag);

}  // namespace fastgen
