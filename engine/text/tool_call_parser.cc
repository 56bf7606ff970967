#include "engine/text/tool_call_parser.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace fastgen {
namespace {

constexpr std::string_view kArgsTag = "[ARGS]";
constexpr std::string_view kCallIdTag = "[CALL_ID]";

std::string_view OpeningMarker(ToolCallFormat format) {
  switch (format) {
    case ToolCallFormat::kHermes:
      return "<tool_call>";
    case ToolCallFormat::kLlama3Json:
      return "<|python_tag|>";
    case ToolCallFormat::kMistral:
    case ToolCallFormat::kNone:
      break;
  }
  return "[TOOL_CALLS]";
}

// What stands after a call: its end, or the sign that another follows.
std::string_view ClosingMarker(ToolCallFormat format) {
  return format == ToolCallFormat::kHermes ? "</tool_call>" : ";";
}

bool IsWordChar(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}
bool IsNameChar(char c) { return IsWordChar(c) || c == '-' || c == '.' || c == '/' || c == ':'; }
bool IsArguments(std::string_view member) {
  return member == "arguments" || member == "parameters";
}

std::string_view WithoutBlanks(std::string_view text) {
  while (!text.empty() && IsBlank(text.front())) text.remove_prefix(1);
  while (!text.empty() && IsBlank(text.back())) text.remove_suffix(1);
  return text;
}

// How `code` goes on as tool.call(: it does, it may, or it does not.
enum class Match { kYes, kMaybe, kNo };
Match MatchBuiltin(std::string_view code) {
  constexpr std::string_view kCall = ".call(";
  while (!code.empty() && IsBlank(code.front())) code.remove_prefix(1);
  size_t length = 0;
  while (length < code.size() && IsWordChar(code[length])) ++length;
  if (length > 64 || (length == 0 && !code.empty())) return Match::kNo;
  const std::string_view rest = code.substr(length);
  if (rest.substr(0, kCall.size()) == kCall) return Match::kYes;
  return rest == kCall.substr(0, rest.size()) ? Match::kMaybe : Match::kNo;
}

// The object that `a=1, b="x"` writes, or "" when it is not that.
std::string KeywordsToJson(std::string_view keywords) {
  std::string json = "{";
  while (!WithoutBlanks(keywords).empty()) {
    const size_t equals = keywords.find('=');
    if (equals == std::string_view::npos) return "";
    const std::string_view name = WithoutBlanks(keywords.substr(0, equals));
    if (name.empty() || !std::all_of(name.begin(), name.end(), IsWordChar)) return "";
    keywords.remove_prefix(equals + 1);
    size_t end = 0;
    int depth = 0;
    bool in_string = false;
    for (; end < keywords.size(); ++end) {
      const char c = keywords[end];
      if (in_string && c == '\\') ++end;
      if (c == '"') in_string = !in_string;
      if (in_string) continue;
      if (c == '[' || c == '{') ++depth;
      if (c == ']' || c == '}') --depth;
      if (c == ',' && depth == 0) break;
    }
    end = std::min(end, keywords.size());
    if (json.size() > 1) json += ", ";
    json.append("\"").append(name).append("\": ");
    json += WithoutBlanks(keywords.substr(0, end));
    keywords.remove_prefix(std::min(end + 1, keywords.size()));
  }
  json += '}';
  JsonScanner scanner;
  JsonScanner::Step step = JsonScanner::Step::kMore;
  for (char c : json) {
    if (step != JsonScanner::Step::kMore) return "";
    step = scanner.Push(c);
  }
  return step == JsonScanner::Step::kDone ? json : "";
}

}  // namespace

ToolCallParser::ToolCallParser(ToolCallFormat format, uint64_t id_seed)
    : format_(format),
      id_state_(id_seed),
      state_(format == ToolCallFormat::kLlama3Json ? State::kStart : State::kText),
      opener_(OpeningMarker(format)),
      closer_(ClosingMarker(format)) {}

void ToolCallParser::Push(std::string_view text, AnswerDelta* out) {
  if (format_ == ToolCallFormat::kNone) {
    out->content += text;
    return;
  }
  out_ = out;
  for (char c : text) Step(c);
  out_ = nullptr;
}

void ToolCallParser::Finish(CutHead cut_head, AnswerDelta* out) {
  out_ = out;
  if (state_ == State::kPython && python_ != Python::kCode && !AddBuiltinCall()) {
    BeginPython(held_);
  }
  if (state_ == State::kPython && python_ == Python::kCode) {
    AddArguments("\"}");
    EndCall();
    held_.clear();
  }
  // What stands between calls stands there too when no other comes.
  const bool is_between =
      state_ == State::kNext || (state_ == State::kItem && (held_[0] == ',' || held_[0] == ';'));
  if (cut_head == CutHead::kContent) {
    if (!is_between) out->content += held_;
    out->content += opener_.held();
  }
  held_.clear();
  closer_.Clear();
  opener_.Clear();
  state_ = State::kText;
  out_ = nullptr;
}

void ToolCallParser::Step(char c) {
  switch (state_) {
    case State::kStart:
      return StepStart(c);
    case State::kText:
      return StepText(c);
    case State::kOpening:
      return StepOpening(c);
    case State::kItem:
      return StepItem(c);
    case State::kObject:
      return StepObject(c);
    case State::kNext:
      return StepNext(c);
    case State::kName:
      return StepName(c);
    case State::kTag:
      return StepTag(c);
    case State::kCallId:
      return StepCallId(c);
    case State::kArguments:
      return StepArguments(c);
    case State::kPython:
      return StepPython(c);
  }
}

// ---- content

void ToolCallParser::StepStart(char c) {
  if (IsBlank(c) && held_.size() < MarkerScanner::kMaxBlanks) {
    held_ += c;
  } else if (c == '{') {
    BeginObject();
    StepObject(c);
  } else {
    state_ = State::kText;
    Release(std::exchange(held_, ""));
    StepText(c);
  }
}

void ToolCallParser::StepText(char c) {
  if (skips_blanks_ && IsBlank(c)) return;
  skips_blanks_ = false;
  if (!opener_.Push(c, &out_->content)) return;
  held_ = opener_.held();
  opener_.Clear();
  state_ = State::kOpening;
}

void ToolCallParser::Release(std::string_view text) {
  for (char c : text) StepText(c);
}

void ToolCallParser::Abandon(char c) {
  out_->content += std::exchange(held_, "");
  begun_ = in_arguments_ = in_list_ = skips_blanks_ = false;
  state_ = State::kText;
  StepText(c);
}

// ---- the shapes of calls

void ToolCallParser::StepOpening(char c) {
  if (held_.size() >= kMaxHeldBytes) return Abandon(c);
  if (IsBlank(c)) {
    held_ += c;
  } else if (format_ == ToolCallFormat::kMistral) {
    name_.clear();
    id_.clear();
    if (c == '[') {
      held_ += c;
      in_list_ = true;
      state_ = State::kItem;
    } else {
      state_ = State::kName;
      StepName(c);
    }
  } else if (c == '{') {
    BeginObject();
    StepObject(c);
  } else if (format_ == ToolCallFormat::kLlama3Json) {
    held_.erase(0, held_.find("|>") + 2);  // the code begins after the tag
    python_ = Python::kUndecided;
    state_ = State::kPython;
    StepPython(c);
  } else {
    Abandon(c);
  }
}

void ToolCallParser::StepItem(char c) {
  if (held_.size() >= kMaxHeldBytes) return Abandon(c);
  if (IsBlank(c)) {
    held_ += c;
  } else if (c == '{') {
    BeginObject();
    StepObject(c);
  } else if (c == ']' && in_list_ && held_[0] == ',') {
    held_.clear();  // a comma after the last item
    EndCalls();
  } else {
    Abandon(c);
  }
}

bool ToolCallParser::HoldSlip(char c) {
  const bool is_slip = IsBlank(c) || c == '}' || c == ']' || c == ',';
  if (!is_slip || held_.size() >= kMaxSlipBytes) return false;
  held_ += c;
  return true;
}

void ToolCallParser::StepNextInList(char c) {
  if (c == ',') {
    held_ = c;
    state_ = State::kItem;
  } else if (c == ']') {
    held_.clear();
    EndCalls();
  } else if ((!IsBlank(c) || !held_.empty()) && !HoldSlip(c)) {
    EndCalls();
    Release(std::exchange(held_, "") + c);
  }
}

void ToolCallParser::StepNext(char c) {
  if (in_list_) return StepNextInList(c);
  if (closer_.held().empty() && HoldSlip(c)) return;
  std::string text;
  const bool is_closed = closer_.Push(c, &text);
  if (is_closed) {
    held_.clear();
    closer_.Clear();
    EndCalls();
    if (format_ != ToolCallFormat::kLlama3Json) return;
    held_ = c;  // a semicolon: another object must come
    state_ = State::kItem;
  } else if (!text.empty()) {
    text = std::exchange(held_, "") + text + closer_.held();
    closer_.Clear();
    EndCalls();
    Release(text);
  }
}

void ToolCallParser::EndCalls() {
  state_ = State::kText;
  in_list_ = false;
  skips_blanks_ = true;
}

// ---- {"name": .., "arguments": {..}}

void ToolCallParser::BeginObject() {
  json_ = JsonScanner();
  member_.clear();
  value_.clear();
  name_.clear();
  id_.clear();
  in_arguments_ = begun_ = false;
  arguments_begin_ = arguments_end_ = 0;
  state_ = State::kObject;
}

void ToolCallParser::StepObject(char c) {
  const JsonScanner before = json_;
  const JsonScanner::Step step = json_.Push(c);
  if (step == JsonScanner::Step::kBad) {
    if (!begun_ || in_arguments_) return Abandon(c);
    begun_ = false;  // the call is complete, though its object is not
    state_ = State::kNext;
    return StepNext(c);
  }
  if (!begun_) {
    if (held_.size() >= kMaxHeldBytes) return Abandon(c);
    held_ += c;
  }
  if (begun_ && in_arguments_) {
    AddArguments({&c, 1});
    if (json_.depth() == 1) {
      in_arguments_ = false;
      EndCall();
    }
  } else if (!begun_) {
    Observe(c, before);
    if (state_ != State::kObject) return;
  }
  if (step == JsonScanner::Step::kDone) EndObject();
}

void ToolCallParser::Observe(char c, const JsonScanner& before) {
  if (in_arguments_) {
    if (json_.depth() == 1) {
      in_arguments_ = false;
      arguments_end_ = held_.size();
    }
    return;
  }
  if (before.depth() != 1) return;
  if (json_.in_name()) {
    if (before.in_name()) {
      member_ += c;
    } else {
      member_.clear();
    }
  } else if (before.in_name()) {
    EndMember();
  } else if (before.expects_value() && IsArguments(member_) && !IsBlank(c)) {
    if (c != '{') return AbandonAll();
    in_arguments_ = true;
    if (CanBegin()) {
      BeginCall();
      AddArguments("{");
    } else {
      arguments_begin_ = held_.size() - 1;
    }
  } else if (json_.in_text() && json_.depth() == 1) {
    if (before.in_text()) {
      value_ += c;
    } else {
      value_.clear();
    }
  } else if (before.in_text()) {
    EndText();
  }
}

void ToolCallParser::EndText() {
  // With escapes, or very long, it names nothing.
  const bool is_plain = value_.size() <= kMaxNameBytes && value_.find('\\') == std::string::npos;
  if (member_ == "id" && is_plain) id_ = value_;
  if (member_ != "name") return;
  name_ = value_;
  if (!is_plain) AbandonAll();
}

void ToolCallParser::EndMember() {
  const bool is_untagged =
      format_ == ToolCallFormat::kLlama3Json && WithoutBlanks(held_).front() == '{';
  if (!is_untagged || IsArguments(member_)) return;
  for (std::string_view known : {"name", "type", "id"}) {
    if (member_ == known) return;
  }
  AbandonAll();
}

void ToolCallParser::AbandonAll() {
  const char last = held_.back();
  held_.pop_back();
  Abandon(last);
}

void ToolCallParser::EndObject() {
  if (!begun_) {
    const bool has_arguments = arguments_end_ > arguments_begin_;
    // A tool without parameters may be called without arguments, where a marker says that it is a
    // call.
    const bool is_call =
        !name_.empty() && (has_arguments || format_ != ToolCallFormat::kLlama3Json);
    if (!is_call) return AbandonAll();
    const std::string arguments =
        has_arguments ? held_.substr(arguments_begin_, arguments_end_ - arguments_begin_) : "{}";
    BeginCall();
    AddArguments(arguments);
    EndCall();
  }
  begun_ = false;
  state_ = State::kNext;
}

// ---- name{..}

void ToolCallParser::StepName(char c) {
  if (name_.size() < kMaxNameBytes && IsNameChar(c)) {
    held_ += c;
    name_ += c;
  } else if (c == '[' && !name_.empty()) {
    held_ += c;
    tag_ = c;
    state_ = State::kTag;
  } else if (!name_.empty() && (c == '{' || IsBlank(c))) {
    json_ = JsonScanner();
    begun_ = false;
    state_ = State::kArguments;
    StepArguments(c);
  } else {
    Abandon(c);
  }
}

void ToolCallParser::StepTag(char c) {
  const std::string tag = tag_ + c;
  const bool may_be_id = id_.empty() && kCallIdTag.substr(0, tag.size()) == tag;
  if (!may_be_id && kArgsTag.substr(0, tag.size()) != tag) return Abandon(c);
  held_ += c;
  tag_ = tag;
  if (tag_ == kCallIdTag) {
    state_ = State::kCallId;
  } else if (tag_ == kArgsTag) {
    json_ = JsonScanner();
    begun_ = false;
    state_ = State::kArguments;
  }
}

void ToolCallParser::StepCallId(char c) {
  if (id_.size() < kMaxNameBytes && IsNameChar(c)) {
    held_ += c;
    id_ += c;
  } else if (c == '[' && !id_.empty()) {
    held_ += c;
    tag_ = c;
    state_ = State::kTag;
  } else {
    Abandon(c);
  }
}

void ToolCallParser::StepArguments(char c) {
  if (!begun_) {
    if (IsBlank(c) && held_.size() < kMaxHeldBytes) {
      held_ += c;
      return;
    }
    if (c != '{') return Abandon(c);
    BeginCall();
  }
  const JsonScanner::Step step = json_.Push(c);
  if (step == JsonScanner::Step::kBad) return Abandon(c);
  AddArguments({&c, 1});
  if (step != JsonScanner::Step::kDone) return;
  EndCall();
  begun_ = false;
  EndCalls();
}

// ---- after <|python_tag|>

void ToolCallParser::StepPython(char c) {
  if (python_ == Python::kCode) return AddPythonCode({&c, 1});
  held_ += c;
  if (python_ == Python::kUndecided) {
    const Match match = MatchBuiltin(held_);
    if (match == Match::kYes) python_ = Python::kBuiltin;
    if (match == Match::kNo) return BeginPython(held_);
  }
  if (held_.size() >= kMaxHeldBytes) BeginPython(held_);
}

void ToolCallParser::BeginPython(std::string_view code) {
  const std::string text(code);
  python_ = Python::kCode;
  name_ = "python";
  id_.clear();
  BeginCall();
  AddArguments("{\"code\": \"");
  AddPythonCode(text);
}

void ToolCallParser::AddPythonCode(std::string_view code) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string json;
  for (char c : code) {
    const unsigned char byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      json += '\\';
      json += c;
    } else if (c == '\n') {
      json += "\\n";
    } else if (c == '\t') {
      json += "\\t";
    } else if (byte < 0x20) {
      json += "\\u00";
      json += kHex[byte >> 4];
      json += kHex[byte & 15];
    } else {
      json += c;
    }
  }
  AddArguments(json);
}

bool ToolCallParser::AddBuiltinCall() {
  if (python_ != Python::kBuiltin) return false;
  const std::string_view code = WithoutBlanks(held_);
  const size_t open = code.find(".call(");
  if (code.back() != ')') return false;
  const size_t begin = open + 6;
  const std::string json = KeywordsToJson(code.substr(begin, code.size() - 1 - begin));
  if (json.empty()) return false;
  name_ = std::string(code.substr(0, open));
  id_.clear();
  BeginCall();
  AddArguments(json);
  EndCall();
  begun_ = false;
  state_ = State::kText;
  return true;
}

// ---- what goes out

void ToolCallParser::BeginCall() {
  begun_ = true;
  held_.clear();
  out_->tool_calls.push_back({num_begun_++, id_.empty() ? DrawId() : id_, name_, ""});
}

void ToolCallParser::EndCall() { ++num_complete_; }

void ToolCallParser::AddArguments(std::string_view text) {
  const int32_t index = num_begun_ - 1;
  if (out_->tool_calls.empty() || out_->tool_calls.back().index != index) {
    out_->tool_calls.push_back({index, "", "", ""});
  }
  out_->tool_calls.back().arguments += text;
}

std::string ToolCallParser::DrawId() {
  constexpr std::string_view kAlphabet =
      "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  const bool is_mistral = format_ == ToolCallFormat::kMistral;
  std::string id = is_mistral ? "" : "call_";
  for (int i = 0; i < (is_mistral ? 9 : 24); ++i) {
    // One step of SplitMix64 (Steele, Lea and Flood 2014).
    id_state_ += 0x9E3779B97F4A7C15;
    uint64_t z = id_state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    z ^= z >> 31;
    id += kAlphabet[z % kAlphabet.size()];
  }
  return id;
}

}  // namespace fastgen
