#include "engine/load_text.h"

#include <filesystem>
#include <fstream>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/text/sentencepiece_source.h"
#include "engine/text/tekken.h"
#include "engine/text/tokenizer_config.h"
#include "engine/text/tokenizer_json.h"

namespace fastgen {
namespace {

// Published templates stay below 20 KB.
constexpr size_t kMaxTemplateBytes = size_t{1} << 20;

// What a model's files say about text, before anything is built from it.
struct TextSource {
  TokenizerSource tokenizer;
  std::string tokenizer_origin;  // the file it comes from, for messages
  std::string chat_template;
  std::string template_origin;  // where the template stands, for messages
};

absl::Status About(const std::string& name, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(name, ": ", status.message()));
}

bool Exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error);
}

absl::StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes) {
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) return absl::NotFoundError(absl::StrCat(path, ": ", error.message()));
  if (size > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", size, " bytes exceed the limit of ", max_bytes));
  }
  std::string bytes(size, '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file.read(bytes.data(), static_cast<std::streamsize>(size))) {
    return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  }
  return bytes;
}

// The file's own tokenizer, with what tokenizer_config.json adds to it.
using ParseFile = absl::StatusOr<TokenizerSource> (*)(std::string bytes,
                                                      std::string_view config_json);

absl::StatusOr<TokenizerSource> WithWholeConfig(absl::StatusOr<TokenizerSource> source,
                                                std::string_view config_json) {
  if (!source.ok()) return source;
  ASSIGN_OR_RETURN(const TokenizerConfig config, ParseTokenizerConfig(config_json));
  RETURN_IF_ERROR(ApplyWholeConfig(config, &*source));
  return source;
}

absl::StatusOr<TokenizerSource> ParseJsonFile(std::string bytes, std::string_view config_json) {
  return ParseTokenizerJson(bytes, config_json);
}
// tekken.json says everything itself; a tokenizer_config.json beside it is about a tokenizer.json.
absl::StatusOr<TokenizerSource> ParseTekkenFile(std::string bytes, std::string_view) {
  return ParseTekken(bytes);
}
absl::StatusOr<TokenizerSource> ParseModelFile(std::string bytes, std::string_view config_json) {
  return WithWholeConfig(SourceFromSentencePieceModel(std::move(bytes)), config_json);
}

// The first of them that is there is read.
constexpr struct {
  const char* name;
  size_t max_bytes;
  ParseFile parse;
} kTokenizerFiles[] = {
    {"tokenizer.json", kMaxTokenizerJsonBytes, ParseJsonFile},
    {"tekken.json", kMaxTokenizerJsonBytes, ParseTekkenFile},
    {"tokenizer.model.v3", kMaxSentencePieceBytes, ParseModelFile},
    {"tokenizer.model", kMaxSentencePieceBytes, ParseModelFile},
};

absl::Status ReadTokenizer(const std::string& directory, std::string_view config_json,
                           TextSource* source) {
  std::string names;
  for (const auto& file : kTokenizerFiles) {
    const std::string path = absl::StrCat(directory, "/", file.name);
    absl::StrAppend(&names, names.empty() ? "" : ", ", file.name);
    if (!Exists(path)) continue;
    ASSIGN_OR_RETURN(std::string bytes, ReadFile(path, file.max_bytes));
    auto tokenizer = file.parse(std::move(bytes), config_json);
    if (!tokenizer.ok()) return About(path, tokenizer.status());
    source->tokenizer = *std::move(tokenizer);
    source->tokenizer_origin = path;
    return absl::OkStatus();
  }
  return absl::NotFoundError(absl::StrCat(directory, ": no tokenizer (looked for ", names, ")"));
}

// A file of its own is the newer place for the template.
absl::Status ReadTemplate(const std::string& directory, const std::string& config_path,
                          const TokenizerConfig& config, TextSource* source) {
  const std::string jinja_path = absl::StrCat(directory, "/chat_template.jinja");
  const std::string json_path = absl::StrCat(directory, "/chat_template.json");
  if (Exists(jinja_path)) {
    ASSIGN_OR_RETURN(source->chat_template, ReadFile(jinja_path, kMaxTemplateBytes));
    source->template_origin = jinja_path;
    return absl::OkStatus();
  }
  if (Exists(json_path)) {
    ASSIGN_OR_RETURN(const std::string bytes, ReadFile(json_path, kMaxTemplateBytes));
    auto chat_template = ParseChatTemplateJson(bytes);
    if (!chat_template.ok()) return About(json_path, chat_template.status());
    source->chat_template = *std::move(chat_template);
    source->template_origin = json_path;
    return absl::OkStatus();
  }
  source->chat_template = config.chat_template;
  source->template_origin = absl::StrCat(config_path, ": chat_template");
  return absl::OkStatus();
}

absl::StatusOr<TextSource> ReadDirectory(const std::string& directory) {
  const std::string config_path = absl::StrCat(directory, "/tokenizer_config.json");
  std::string config_json;
  if (Exists(config_path)) {
    ASSIGN_OR_RETURN(config_json, ReadFile(config_path, kMaxTokenizerJsonBytes));
  }
  auto config = ParseTokenizerConfig(config_json);
  if (!config.ok()) return About(config_path, config.status());
  TextSource source;
  RETURN_IF_ERROR(ReadTokenizer(directory, config_json, &source));
  RETURN_IF_ERROR(ReadTemplate(directory, config_path, *config, &source));
  return source;
}

absl::StatusOr<TextSource> ReadGguf(const std::string& path, const GgufFile& file) {
  TextSource source;
  auto tokenizer = TokenizerSourceFromGguf(file);
  if (!tokenizer.ok()) return About(path, tokenizer.status());
  source.tokenizer = *std::move(tokenizer);
  source.tokenizer_origin = path;
  source.chat_template = std::string(file.FindString("tokenizer.chat_template").value_or(""));
  source.template_origin = absl::StrCat(path, ": tokenizer.chat_template");
  return source;
}

// The text of a special token that a template may write; "" when there is none.
std::string TokenText(const Tokenizer& tokenizer, const std::optional<int32_t>& id) {
  return id.has_value() ? std::string(tokenizer.TokenBytes(*id)) : "";
}

absl::StatusOr<ChatTemplate> CompileTemplate(const TextSource& source, const Tokenizer& tokenizer,
                                             const std::optional<int32_t>& bos_id,
                                             const std::optional<int32_t>& eos_id) {
  if (source.chat_template.empty()) {
    return absl::FailedPreconditionError(
        "the model has no chat template; send text, or start with a template file");
  }
  if (source.chat_template.size() > kMaxTemplateBytes) {
    return absl::FailedPreconditionError(
        absl::StrCat(source.template_origin, ": ", source.chat_template.size(),
                     " bytes exceed the limit of ", kMaxTemplateBytes));
  }
  auto compiled = ChatTemplate::Compile(source.chat_template, TokenText(tokenizer, bos_id),
                                        TokenText(tokenizer, eos_id));
  if (compiled.ok()) return compiled;
  return absl::FailedPreconditionError(
      absl::StrCat(source.template_origin, ": ", compiled.status().message()));
}

}  // namespace

absl::StatusOr<ModelText> LoadText(const std::string& model_path, const GgufFile* gguf,
                                   const std::string& chat_template_path) {
  ASSIGN_OR_RETURN(TextSource source,
                   gguf != nullptr ? ReadGguf(model_path, *gguf) : ReadDirectory(model_path));
  if (!chat_template_path.empty()) {
    ASSIGN_OR_RETURN(source.chat_template, ReadFile(chat_template_path, kMaxTemplateBytes));
    source.template_origin = chat_template_path;
  }
  const std::optional<int32_t> bos_id = source.tokenizer.bos_id;
  std::vector<int32_t> eos_ids = source.tokenizer.eos_ids;
  auto tokenizer = MakeTokenizer(std::move(source.tokenizer));
  if (!tokenizer.ok()) return About(source.tokenizer_origin, tokenizer.status());
  const std::optional<int32_t> eos_id =
      eos_ids.empty() ? std::nullopt : std::optional<int32_t>(eos_ids.front());
  auto chat_template = CompileTemplate(source, **tokenizer, bos_id, eos_id);
  if (!chat_template.ok()) {
    if (!chat_template_path.empty()) return chat_template.status();
    LogWarning(absl::StrCat("chat prompts will be refused: ", chat_template.status().message()));
  }
  return ModelText{*std::move(tokenizer), std::move(chat_template), std::move(eos_ids)};
}

}  // namespace fastgen
