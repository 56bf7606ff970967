// What a gateway before several daemons shows as /metrics: its own counts, in Prometheus' text
// format.
//
// The daemons' metrics are theirs to show: merged here they would have the scrape interval of
// another, need everybody's key, and be counted twice beside several gateways. The only label of
// unbounded origin is the daemon's address, which the command line gives.
// Thread rule: values.
// Tested by tests/server/gateway/fleet_test.cc.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fastgen::gateway {

struct DaemonReport;

struct FleetCounts {
  int64_t num_retries_refused = 0;
  int64_t num_retries_overloaded = 0;
  int64_t num_retries_lost = 0;
  int64_t num_retries_denied = 0;
  int64_t num_without_daemon = 0;
  int64_t num_spills = 0;
};

std::string FleetMetricsText(const std::vector<DaemonReport>& daemons, const FleetCounts& counts);

}  // namespace fastgen::gateway
