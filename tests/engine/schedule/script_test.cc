// Runs tests/testdata/schedule/*.txt: commands to a scheduler and what it must answer.
//
// A script is a list of blocks: a line with a command, a line "----", the expected answer, an empty
// line. Lines that begin with # before a command are comments. FASTGEN_REWRITE_SCRIPTS=1 writes
// what the scheduler answers now into the scripts; review that as a diff. Commands:
//   new max_num_seqs=4 max_num_batched_tokens=16 max_model_len=64 block_size=4 num_blocks=8   (each
//   optional) add id=1 prompt=5 max=4 min=0 stop=7,9 score=0   prompt: a length (tokens id*100+i),
//   or ids with commas plan | commit 1=42 2=nan | step 1=42   step is plan then commit; unnamed
//   rows sample id*100 + 50 + position cancel id=1 [reason=deadline] | finish_at id=1 output=2 |
//   stats
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "engine/schedule/scheduler.h"
#include "tests/testing/testdata.h"

namespace fastgen {
namespace {

std::vector<int32_t> ParseIds(const std::string& text) {
  std::vector<int32_t> ids;
  std::istringstream in(text);
  for (std::string id; std::getline(in, id, ',');) ids.push_back(std::stoi(id));
  return ids;
}

std::string Join(const std::vector<int32_t>& ids) {
  std::string text;
  for (const int32_t id : ids) text += " " + std::to_string(id);
  return text;
}

std::string Name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kDeadline:
      return "deadline";
    case FinishReason::kError:
      return "error";
  }
  return "?";
}

// One command line: a verb and key=value words.
struct Command {
  std::string verb;
  std::map<std::string, std::string> words;

  explicit Command(const std::string& line) {
    std::istringstream in(line);
    in >> verb;
    for (std::string word; in >> word;) {
      const size_t equals = word.find('=');
      if (equals == std::string::npos) FAIL("not key=value: " << word << " in: " << line);
      words[word.substr(0, equals)] = word.substr(equals + 1);
    }
  }
  std::string Text(const std::string& key, const std::string& otherwise) const {
    const auto it = words.find(key);
    return it == words.end() ? otherwise : it->second;
  }
  int32_t Number(const std::string& key, int32_t otherwise) const {
    return std::stoi(Text(key, std::to_string(otherwise)));
  }
};

class ScriptRunner {
 public:
  std::string Run(const Command& command) {
    std::string answer = Dispatch(command);
    if (scheduler_ != nullptr) scheduler_->CheckInvariants();
    return answer;
  }

 private:
  std::string Dispatch(const Command& command) {
    if (command.verb == "new") return New(command);
    REQUIRE(scheduler_ != nullptr);
    if (command.verb == "add") return Add(command);
    if (command.verb == "plan") return Plan();
    if (command.verb == "commit") return Commit(command);
    if (command.verb == "step") {
      const std::string planned = Plan();
      return planned + Commit(command);
    }
    if (command.verb == "stats") return Stats();
    FinishedSequence finished;
    const SequenceId id = command.Number("id", 0);
    bool was_live = false;
    if (command.verb == "cancel") {
      const bool is_deadline = command.Text("reason", "cancelled") == "deadline";
      was_live = scheduler_->Cancel(
          id, is_deadline ? FinishReason::kDeadline : FinishReason::kCancelled, &finished);
    } else if (command.verb == "finish_at") {
      was_live = scheduler_->FinishAt(id, command.Number("output", 0), &finished);
    } else {
      FAIL("unknown command: " << command.verb);
    }
    return was_live ? Print(finished) : "not live\n";
  }

  std::string New(const Command& command) {
    SchedulerOptions options;
    options.max_num_seqs = command.Number("max_num_seqs", 4);
    options.max_num_batched_tokens = command.Number("max_num_batched_tokens", 16);
    options.max_model_len = command.Number("max_model_len", 64);
    options.block_size = command.Number("block_size", 4);
    options.num_blocks = command.Number("num_blocks", 32);
    scheduler_ = std::make_unique<Scheduler>(options);
    return "ok\n";
  }

  std::string Add(const Command& command) {
    NewSequence added;
    added.id = command.Number("id", 0);
    const std::string prompt = command.Text("prompt", "1");
    if (prompt.find(',') != std::string::npos) {
      added.prompt = ParseIds(prompt);
    } else {
      for (int32_t i = 0; i < std::stoi(prompt); ++i) {
        added.prompt.push_back(static_cast<int32_t>(added.id) * 100 + i);
      }
    }
    added.stop.max_output_tokens = command.Number("max", 8);
    added.stop.min_output_tokens = command.Number("min", 0);
    added.stop.stop_token_ids = ParseIds(command.Text("stop", ""));
    added.sampling.num_prompt_top_logprobs = command.Number("score", -1);
    scheduler_->Add(std::move(added));
    return "ok\n";
  }

  std::string Plan() {
    plan_ = scheduler_->PlanStep();
    if (plan_.empty()) return "nothing\n";
    std::ostringstream out;
    out << "step " << plan_.step << ", " << plan_.num_tokens << " tokens\n";
    for (const ScheduledSequence& row : plan_.sequences) {
      out << "  " << row.id << ": " << (row.is_decode() ? "decode" : "chunk") << " ["
          << row.context_begin << "," << row.context_begin + row.tokens.size() << ")"
          << Join(row.tokens) << " | blocks" << Join(row.block_table);
      if (!row.score_targets.empty()) out << " | scores" << Join(row.score_targets);
      if (row.samples) out << " | samples #" << row.output_position;
      if (!row.banned_tokens.empty()) out << " | bans" << Join(row.banned_tokens);
      out << "\n";
    }
    return out.str();
  }

  std::string Commit(const Command& command) {
    StepResult result;
    for (const ScheduledSequence& row : plan_.sequences) {
      SequenceResult& row_result = result.sequences.emplace_back();
      const int32_t token = static_cast<int32_t>(row.id) * 100 + 50 + row.output_position;
      const std::string named = command.Text(std::to_string(row.id), std::to_string(token));
      row_result.is_nan = named == "nan";
      row_result.sampled = row.samples;
      if (!row_result.is_nan) row_result.next.token = std::stoi(named);
      for (const int32_t target : row.score_targets) {
        row_result.scored.emplace_back().token = target;
      }
    }
    const CommitResult commit = scheduler_->CommitStep(plan_, result);
    std::ostringstream out;
    for (const CommitResult::Output& output : commit.outputs) {
      out << output.id << ":";
      if (output.token.token >= 0) out << " token " << output.token.token;
      if (!output.scored.empty()) {
        out << " scored";
        for (const TokenScore& score : output.scored) out << " " << score.token;
      }
      if (output.first_chunk) out << " first_chunk";
      if (output.prefilled) out << " prefilled";
      out << "\n";
    }
    for (const FinishedSequence& finished : commit.finished) out << Print(finished);
    return out.str();
  }

  std::string Stats() const {
    const SchedulerStats stats = scheduler_->stats();
    std::ostringstream out;
    out << stats.num_running << " running, " << stats.num_waiting << " waiting, "
        << stats.num_free_blocks << " of " << stats.num_blocks << " blocks free, "
        << stats.num_preemptions << " preemptions\n";
    return out.str();
  }

  static std::string Print(const FinishedSequence& finished) {
    std::ostringstream out;
    out << "finished " << finished.id << ": " << Name(finished.reason);
    if (finished.matched_token_id.has_value()) out << " on " << *finished.matched_token_id;
    if (finished.is_nan) out << " nan";
    out << ", prompt " << finished.prompt_tokens << ", output " << finished.output_tokens
        << ", chunks " << finished.num_chunks << ", steps " << finished.num_steps
        << ", preemptions " << finished.num_preemptions << "\n";
    return out.str();
  }

  std::unique_ptr<Scheduler> scheduler_;
  StepPlan plan_;
};

// Runs one script; returns it with the answers that the scheduler gives. Checks them unless
// `rewrites`.
enum class Answers { kCheck, kRewrite };

std::string RunScript(const std::string& text, Answers answers) {
  std::istringstream in(text);
  std::ostringstream out;
  ScriptRunner runner;
  for (std::string line; std::getline(in, line);) {
    out << line << "\n";
    if (line.empty() || line[0] == '#') continue;
    std::string separator;
    std::string expected;
    std::getline(in, separator);
    INFO("command: " << line);
    REQUIRE(separator == "----");
    for (std::string answer; std::getline(in, answer) && !answer.empty();) {
      expected += answer + "\n";
    }
    const std::string actual = runner.Run(Command(line));
    if (answers == Answers::kCheck) CHECK(actual == expected);
    out << "----\n" << actual << "\n";
  }
  return out.str();
}

TEST_CASE("the scheduler answers every script as written", "[schedule]") {
  const bool rewrites = std::getenv("FASTGEN_REWRITE_SCRIPTS") != nullptr;
  int num_scripts = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(testing::SourceTestdata() / "schedule")) {
    if (entry.path().extension() != ".txt") continue;
    ++num_scripts;
    INFO("script: " << entry.path().filename());
    std::ifstream file(entry.path());
    std::stringstream text;
    text << file.rdbuf();
    const std::string answered =
        RunScript(text.str(), rewrites ? Answers::kRewrite : Answers::kCheck);
    if (rewrites) std::ofstream(entry.path()) << answered;
  }
  CHECK(num_scripts >= 8);
}

}  // namespace
}  // namespace fastgen
