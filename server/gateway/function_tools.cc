#include "server/gateway/function_tools.h"

#include <boost/json/serialize.hpp>

#include "absl/strings/str_cat.h"
#include "server/gateway/json_text.h"

namespace fastgen::gateway {
namespace json = boost::json;

std::string FunctionToolJson(std::string_view name, const json::value* description,
                             const json::value* parameters) {
  std::string tool = "{\"type\":\"function\",\"function\":{\"name\":";
  AppendJsonString(name, &tool);
  if (description != nullptr) {
    absl::StrAppend(&tool, ",\"description\":", json::serialize(*description));
  }
  if (parameters != nullptr) {
    absl::StrAppend(&tool, ",\"parameters\":", json::serialize(*parameters));
  }
  tool += "}}";
  return tool;
}

void SettleToolChoice(JsonFields* fields, ToolUse* use) {
  if (!use->offered.empty()) return;
  const bool needs_tools =
      use->choice == ToolUse::Choice::kRequired || use->choice == ToolUse::Choice::kNamed;
  if (needs_tools) fields->Fail("tool_choice", "tool_choice needs tools");
  use->choice = ToolUse::Choice::kNone;
}

}  // namespace fastgen::gateway
