#include "clients/fgbench/report.h"

#include <algorithm>
#include <boost/json.hpp>
#include <functional>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace fastgen {
namespace {

namespace json = boost::json;

constexpr size_t kMaxErrorKinds = 20;
constexpr size_t kMaxErrorBytes = 300;
constexpr int kFirstColumn = 28;
constexpr int kColumn = 14;

// What a server says, as it may stand in a table and in JSON.
std::string Plain(std::string_view text) {
  std::string plain(text.substr(0, kMaxErrorBytes));
  std::replace_if(
      plain.begin(), plain.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return plain;
}

double Ms(BenchClock::duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

json::object ToJson(const Summary& summary) {
  if (summary.count == 0) return {{"count", 0}};
  return {{"count", summary.count}, {"mean", summary.mean}, {"p50", summary.p50},
          {"p90", summary.p90},     {"p99", summary.p99},   {"max", summary.max}};
}

json::object ToJson(const RoundFigures& round) {
  return {{"seconds", round.seconds},
          {"client_cpu_seconds", round.cpu_seconds},
          {"requests", round.num_requests},
          {"errors", round.num_errors},
          {"prompt_tokens", round.prompt_tokens},
          {"output_tokens", round.output_tokens},
          {"output_tokens_per_s", round.output_rate()},
          {"total_tokens_per_s", round.total_rate()}};
}

json::object ToJson(const TargetReport& target, const TargetReport& first) {
  json::object object = ToJson(target.total());
  object["kind"] = target.kind();
  object["address"] = target.address();
  object["model"] = target.model();
  object["gave_up"] = target.gave_up();
  json::object errors;
  for (const auto& [message, count] : target.errors()) errors[message] = count;
  object["error_messages"] = std::move(errors);
  object["ttft_ms"] = ToJson(target.first_token());
  object["itl_ms"] = ToJson(target.between_tokens());
  object["e2e_ms"] = ToJson(target.whole());
  object["output_ratio_to_first"] = OutputRatio(target, first);
  json::array rounds;
  for (const RoundFigures& round : target.rounds()) rounds.push_back(ToJson(round));
  object["rounds"] = std::move(rounds);
  return object;
}

// One row: a figure of each target.
void AppendRow(const std::string& name, const std::vector<TargetReport>& targets,
               const std::function<std::string(const TargetReport&)>& figure, std::string* table) {
  absl::StrAppendFormat(table, "%-*s", kFirstColumn, name);
  for (const TargetReport& target : targets) {
    absl::StrAppendFormat(table, "%*s", kColumn, figure(target));
  }
  *table += '\n';
}

void AppendSummary(const std::string& name, const std::vector<TargetReport>& targets,
                   Summary (TargetReport::*read)() const, std::string* table) {
  std::vector<Summary> summaries;
  for (const TargetReport& target : targets) summaries.push_back((target.*read)());
  const std::pair<const char*, double Summary::*> rows[] = {{"mean", &Summary::mean},
                                                            {"p50", &Summary::p50},
                                                            {"p90", &Summary::p90},
                                                            {"p99", &Summary::p99},
                                                            {"max", &Summary::max}};
  for (const auto& [row, member] : rows) {
    absl::StrAppendFormat(table, "%-*s", kFirstColumn, absl::StrCat(name, " ", row));
    for (const Summary& summary : summaries) {
      absl::StrAppendFormat(table, "%*s", kColumn,
                            summary.count == 0 ? "-" : absl::StrFormat("%.2f", summary.*member));
    }
    *table += '\n';
  }
}

}  // namespace

TargetReport::TargetReport(std::string kind, std::string address, std::string model)
    : kind_(std::move(kind)), address_(std::move(address)), model_(std::move(model)) {}

void TargetReport::Add(LoopResult result, double cpu_seconds) {
  RoundFigures round;
  round.seconds = result.seconds;
  round.cpu_seconds = cpu_seconds;
  gave_up_ = gave_up_ || result.gave_up;
  for (const RequestResult& request : result.requests) AddRequest(request, &round);
  rounds_.push_back(round);
}

void TargetReport::AddRequest(const RequestResult& request, RoundFigures* round) {
  if (!request.error.empty()) {
    ++round->num_errors;
    const std::string error = Plain(request.error);
    const bool has_room = errors_.size() < kMaxErrorKinds || errors_.count(error) > 0;
    ++errors_[has_room ? error : "other"];
    return;
  }
  ++round->num_requests;
  round->prompt_tokens += request.prompt_tokens;
  round->output_tokens += request.output_tokens;
  whole_ms_.push_back(Ms(request.end - request.begin));
  if (request.arrivals.empty()) return;
  first_token_ms_.push_back(Ms(request.arrivals.front() - request.begin));
  for (size_t i = 1; i < request.arrivals.size(); ++i) {
    between_tokens_ms_.push_back(Ms(request.arrivals[i] - request.arrivals[i - 1]));
  }
}

RoundFigures TargetReport::total() const {
  RoundFigures total;
  for (const RoundFigures& round : rounds_) {
    total.seconds += round.seconds;
    total.cpu_seconds += round.cpu_seconds;
    total.num_requests += round.num_requests;
    total.num_errors += round.num_errors;
    total.prompt_tokens += round.prompt_tokens;
    total.output_tokens += round.output_tokens;
  }
  return total;
}

double OutputRatio(const TargetReport& target, const TargetReport& first) {
  std::vector<double> ratios;
  for (size_t i = 0; i < std::min(target.rounds().size(), first.rounds().size()); ++i) {
    const double base = first.rounds()[i].output_rate();
    if (base > 0) ratios.push_back(target.rounds()[i].output_rate() / base);
  }
  return Median(std::move(ratios));
}

std::string Table(const std::vector<TargetReport>& targets) {
  std::string table;
  for (size_t i = 0; i < targets.size(); ++i) {
    absl::StrAppend(&table, "[", i + 1, "] ", targets[i].kind(), " ", targets[i].address(), "  ",
                    targets[i].model(), "\n");
  }
  absl::StrAppendFormat(&table, "%-*s", kFirstColumn, "");
  for (size_t i = 0; i < targets.size(); ++i) {
    absl::StrAppendFormat(&table, "%*s", kColumn,
                          absl::StrCat("[", i + 1, "] ", targets[i].kind()));
  }
  table += '\n';
  const auto row = [&](const char* name, const std::function<std::string(const TargetReport&)>& f) {
    AppendRow(name, targets, f, &table);
  };
  row("requests", [](const TargetReport& t) { return absl::StrCat(t.total().num_requests); });
  row("errors", [](const TargetReport& t) { return absl::StrCat(t.total().num_errors); });
  row("prompt tokens a request", [](const TargetReport& t) {
    const RoundFigures total = t.total();
    return absl::StrFormat("%.1f",
                           static_cast<double>(total.prompt_tokens) /
                               std::max<double>(1, static_cast<double>(total.num_requests)));
  });
  row("output tokens/s",
      [](const TargetReport& t) { return absl::StrFormat("%.1f", t.total().output_rate()); });
  row("total tokens/s",
      [](const TargetReport& t) { return absl::StrFormat("%.1f", t.total().total_rate()); });
  if (targets.size() > 1) {
    row("output ratio to [1]", [&](const TargetReport& t) {
      return absl::StrFormat("%.3f", OutputRatio(t, targets.front()));
    });
  }
  AppendSummary("TTFT ms", targets, &TargetReport::first_token, &table);
  AppendSummary("ITL ms", targets, &TargetReport::between_tokens, &table);
  AppendSummary("E2E ms", targets, &TargetReport::whole, &table);
  // A caller that shares its process with the server gives none.
  if (targets.front().total().cpu_seconds > 0) {
    row("CPU of fgbench, cores", [](const TargetReport& t) {
      const RoundFigures total = t.total();
      return absl::StrFormat("%.3f", total.seconds > 0 ? total.cpu_seconds / total.seconds : 0);
    });
  }
  for (size_t i = 0; i < targets.size(); ++i) {
    for (const auto& [message, count] : targets[i].errors()) {
      absl::StrAppend(&table, "[", i + 1, "] ", count, " x error: ", message, "\n");
    }
  }
  return table;
}

std::string Json(const RunOptions& options, const std::vector<TargetReport>& targets,
                 bool interrupted) {
  json::object object;
  object["fgbench"] = FASTGEN_VERSION;
  object["interrupted"] = interrupted;
  object["options"] = {{"streams", options.loop.num_streams},
                       {"requests", options.loop.max_requests},
                       {"seconds", options.loop.max_time.count()},
                       {"rounds", options.num_rounds},
                       {"warmup", options.num_warmup},
                       {"prompt_tokens", options.workload.prompt_tokens},
                       {"prompt_file", options.workload.prompt_file},
                       {"shared_prefix", options.workload.shared_prefix_tokens},
                       {"seed", options.workload.seed},
                       {"output_tokens", options.shape.output_tokens},
                       {"temperature", options.shape.temperature}};
  json::array list;
  for (const TargetReport& target : targets) list.push_back(ToJson(target, targets.front()));
  object["targets"] = std::move(list);
  return json::serialize(object) + "\n";
}

}  // namespace fastgen
