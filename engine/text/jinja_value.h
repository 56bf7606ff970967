// Value: what a template's expression evaluates to, and the Heap that owns values while one
// template renders.
//
// A Value is 16 bytes and copied freely; strings, lists, dicts and the rest are owned by the
// render's Heap (or by the program, for literals) and die together, so that no cycle leaks and no
// deep structure is destroyed recursively. The Heap is also the sandbox's meter: every evaluation
// step and every byte of a new string is charged to it.
// Invariants: 1. lists and dicts never change once made and nest at most kMaxNesting deep, so
// walking them recursively is safe; 2. only Namespace is mutable, and printing or comparing never
// descends into one.
// Thread rule: one render, one thread; program-owned values are immutable.
// Tested by tests/engine/text/chat_template_golden_test.cc and jinja_sandbox_test.cc.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/jinja_text.h"

namespace fastgen::jinja {

enum class Kind : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kList,
  kTuple,
  kDict,
  kNamespace,
  kLoop,
  kMacro,
  kFunction,
  kMethod,
};

// The global functions.
enum class Function : uint8_t { kRange, kDict, kNamespace, kRaiseException, kStrftimeNow };

struct List;
struct Dict;
struct Namespace;
struct Loop;
struct Macro;
struct Method;

class Value {
 public:
  Value() : kind_(Kind::kUndefined), text_(nullptr) {}

  static Value None(bool untrusted = false);
  static Value Bool(bool v, bool untrusted = false);
  static Value Int(int64_t v, bool untrusted = false);
  static Value Float(double v, bool untrusted = false);
  static Value String(const Text* v);
  // A variable (owner kUndefined) or an attribute of a value of kind `owner` that is not there.
  static Value Undefined(const Text* name, Kind owner = Kind::kUndefined);
  static Value Of(const List* v, Kind kind);
  static Value Of(const Dict* v);
  static Value Of(Namespace* v);
  static Value Of(Loop* v);
  static Value Of(const Macro* v);
  static Value Of(const Method* v);
  static Value Of(Function v);

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_list() const { return is(Kind::kList) || is(Kind::kTuple); }
  bool is_integral() const { return is(Kind::kInt) || is(Kind::kBool); }
  bool is_number() const { return is_integral() || is(Kind::kFloat); }
  bool is_callable() const { return kind_ >= Kind::kMacro; }

  // REQUIRES: the kind. AsInt reads a bool as 0 or 1, AsFloat any number.
  bool as_bool() const { return bool_; }
  int64_t AsInt() const { return is(Kind::kBool) ? bool_ : int_; }
  double AsFloat() const { return is(Kind::kFloat) ? float_ : static_cast<double>(AsInt()); }
  const Text& text() const { return *text_; }
  std::string_view bytes() const { return text_->bytes; }
  const List& list() const { return *list_; }
  const Dict& dict() const { return *dict_; }
  Namespace& name_space() const { return *namespace_; }
  Loop& loop() const { return *loop_; }
  const Macro& macro() const { return *macro_; }
  const Method& method() const { return *method_; }
  Function function() const { return function_; }
  const Text* undefined_name() const { return text_; }
  Kind undefined_owner() const { return owner_; }

  // For numbers, bools and None: the value itself came from the request; for lists and dicts: their
  // shape did. For strings: any byte did.
  bool untrusted() const;
  // The same value, untrusted when it was or when `also` is; a string keeps its own ranges.
  Value WithUntrusted(bool also) const;

 private:
  Kind kind_;
  bool untrusted_ = false;
  Kind owner_ = Kind::kUndefined;
  union {
    bool bool_;
    int64_t int_;
    double float_;
    const Text* text_;
    const List* list_;
    const Dict* dict_;
    Namespace* namespace_;
    Loop* loop_;
    const Macro* macro_;
    const Method* method_;
    Function function_;
  };
};

struct List {
  std::vector<Value> items;
  int depth = 1;
  bool is_group = false;  // groupby's pair, whose items are named grouper and list
};

struct Dict {
  std::vector<std::pair<Value, Value>> entries;  // in the order given
  std::unordered_map<std::string_view, size_t> by_name;
  int depth = 1;

  const Value* Find(std::string_view name) const;
};

struct Namespace {
  std::vector<std::pair<std::string_view, Value>> attributes;

  Value* Find(std::string_view name);
};

// A method looked up on a value and not called yet.
struct Method {
  Value self;
  std::string_view name;
};

struct ForStatement;
struct Scope;

// What `loop` is inside a for block.
struct Loop {
  std::vector<Value> items;
  size_t index = 0;
  int level = 0;
  const ForStatement* recursive = nullptr;  // set when the block is recursive
  Scope* outer = nullptr;
  std::vector<Value> last_changed;
};

// Bounds of one render.
inline constexpr size_t kMaxTextBytes = size_t{4} << 20;  // of any one string and of the output
inline constexpr size_t kMaxSteps = 4'000'000;
inline constexpr size_t kMaxBytesMade = size_t{256} << 20;  // of all strings made while rendering
inline constexpr int kMaxNesting = 128;
inline constexpr int64_t kMaxRange = 100'000;

// Owns what one render (or one program's literals) makes, and counts what it costs.
class Heap {
 public:
  Heap() = default;
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;

  // RESOURCE_EXHAUSTED once the steps or the bytes are used up.
  absl::Status Charge(size_t steps);
  absl::Status ChargeBytes(size_t num_bytes);
  // Of work that looks at each of these bytes: a step for 16 of them, so that the slowest such work
  // uses the steps up within about a second.
  absl::Status ChargeScan(size_t num_bytes) { return Charge(1 + num_bytes / 16); }

  // A text over bytes that outlive the heap; a text over bytes copied into it.
  Value View(Text text);
  Value Constant(std::string_view bytes) { return View(Text{bytes, {}}); }
  Value Copy(std::string_view bytes, bool untrusted);
  absl::StatusOr<Value> Take(TextBuilder builder);

  // RESOURCE_EXHAUSTED when nested too deeply.
  absl::StatusOr<Value> MakeList(std::vector<Value> items, Kind kind = Kind::kList);
  // A tuple whose items are also named grouper and list.
  absl::StatusOr<Value> MakeGroup(const Value& grouper, const Value& list);
  // A key given twice keeps its first place and its last value. INVALID_ARGUMENT for a key that
  // cannot be one.
  absl::StatusOr<Value> MakeDict(std::vector<std::pair<Value, Value>> entries);
  Namespace* MakeNamespace();
  Loop* MakeLoop();
  Value MakeMethod(Value self, std::string_view name);
  std::string_view Keep(std::string bytes);

 private:
  size_t num_steps_ = 0;
  size_t num_bytes_ = 0;
  std::deque<std::string> strings_;
  std::deque<Text> texts_;
  std::deque<List> lists_;
  std::deque<Dict> dicts_;
  std::deque<Namespace> namespaces_;
  std::deque<Loop> loops_;
  std::deque<Method> methods_;
};

// The name Python gives the value's type.
std::string_view TypeName(Kind kind);

bool IsTrue(const Value& value);
// Strings, numbers, bools and None can be a dict's key.
bool CanBeKey(const Value& value);
// Where `key` stands among the dict's entries, or their number.
size_t FindEntry(const Dict& dict, const Value& key);
// Python's ==. Charges the heap for what it walks.
absl::StatusOr<bool> IsEqual(Heap& heap, const Value& a, const Value& b);
// Negative, zero or positive as a < b, a == b, a > b. INVALID_ARGUMENT where Python would not order
// them.
absl::StatusOr<int> Compare(Heap& heap, const Value& a, const Value& b);
// The dict's value under `key`, or null.
absl::StatusOr<const Value*> FindKey(Heap& heap, const Dict& dict, const Value& key);
// What a for loop would walk over: items, keys or characters. INVALID_ARGUMENT for what is not
// iterable.
absl::StatusOr<std::vector<Value>> Iterate(Heap& heap, const Value& value);
// Number of items or characters.
absl::StatusOr<int64_t> Length(Heap& heap, const Value& value);
// "'x' is undefined": the error of using an undefined value. REQUIRES: value is undefined.
absl::Status UndefinedError(const Value& value);

}  // namespace fastgen::jinja
