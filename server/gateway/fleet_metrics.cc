#include "server/gateway/fleet_metrics.h"

#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/strings.h"
#include "server/gateway/daemon_pool.h"

namespace fastgen::gateway {
namespace {

constexpr std::string_view kPrefix = "fastgen_gateway_";

void AppendHead(std::string_view name, std::string_view type, std::string_view help,
                std::string* out) {
  absl::StrAppend(out, "# HELP ", ToAbsl(kPrefix), ToAbsl(name), " ", ToAbsl(help), "\n# TYPE ",
                  ToAbsl(kPrefix), ToAbsl(name), " ", ToAbsl(type), "\n");
}

// `labels`: `daemon="a"`, or "".
void AppendSample(std::string_view name, std::string_view labels, int64_t value, std::string* out) {
  absl::StrAppend(out, ToAbsl(kPrefix), ToAbsl(name));
  if (!labels.empty()) absl::StrAppend(out, "{", ToAbsl(labels), "}");
  absl::StrAppend(out, " ", value, "\n");
}

template <typename ValueOf>
void AppendPerDaemon(const std::vector<DaemonReport>& daemons, std::string_view name,
                     std::string_view type, std::string_view help, ValueOf value_of,
                     std::string* out) {
  AppendHead(name, type, help, out);
  for (const DaemonReport& daemon : daemons) {
    const std::string address =
        absl::StrReplaceAll(daemon.address, {{"\\", "\\\\"}, {"\"", "\\\""}, {"\n", "\\n"}});
    AppendSample(name, absl::StrCat("daemon=\"", address, "\""), value_of(daemon), out);
  }
}

}  // namespace

std::string FleetMetricsText(const std::vector<DaemonReport>& daemons, const FleetCounts& counts) {
  std::string out;
  AppendPerDaemon(
      daemons, "daemon_up", "gauge", "1 while the daemon is sent requests.",
      [](const DaemonReport& daemon) { return daemon.is_used ? 1 : 0; }, &out);
  AppendPerDaemon(
      daemons, "circuit_state", "gauge", "0 closed, 1 half open, 2 open.",
      [](const DaemonReport& daemon) {
        return daemon.circuit == CircuitBreaker::State::kClosed     ? 0
               : daemon.circuit == CircuitBreaker::State::kHalfOpen ? 1
                                                                    : 2;
      },
      &out);
  AppendPerDaemon(
      daemons, "circuit_openings_total", "counter", "Times that the circuit breaker opened.",
      [](const DaemonReport& daemon) { return daemon.num_circuit_openings; }, &out);
  AppendPerDaemon(
      daemons, "in_flight_calls", "gauge", "Calls of this gateway that the daemon answers now.",
      [](const DaemonReport& daemon) { return daemon.num_in_flight; }, &out);
  AppendPerDaemon(
      daemons, "calls_total", "counter", "Calls sent to the daemon, each attempt by itself.",
      [](const DaemonReport& daemon) { return daemon.num_calls; }, &out);
  AppendPerDaemon(
      daemons, "failures_total", "counter",
      "Calls that ended as the daemon's failure: unavailable, or internal before any event.",
      [](const DaemonReport& daemon) { return daemon.num_failures; }, &out);
  AppendHead("retries_total", "counter", "Calls tried again on another daemon, by why.", &out);
  AppendSample("retries_total", "reason=\"refused\"", counts.num_retries_refused, &out);
  AppendSample("retries_total", "reason=\"overloaded\"", counts.num_retries_overloaded, &out);
  AppendSample("retries_total", "reason=\"lost\"", counts.num_retries_lost, &out);
  AppendHead("retries_denied_total", "counter", "Retries that the retry budget did not allow.",
             &out);
  AppendSample("retries_denied_total", "", counts.num_retries_denied, &out);
  AppendHead("without_daemon_total", "counter", "Calls for which there was no daemon.", &out);
  AppendSample("without_daemon_total", "", counts.num_without_daemon, &out);
  AppendHead("affinity_spills_total", "counter",
             "Calls that the bound on load kept from the daemon of their prompt's beginning.",
             &out);
  AppendSample("affinity_spills_total", "", counts.num_spills, &out);
  return out;
}

}  // namespace fastgen::gateway
