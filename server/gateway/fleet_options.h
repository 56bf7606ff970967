// FleetOptions: the daemons that one gateway stands before, and how it keeps watch over them.
//
// Thread rule: values.
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace fastgen {

struct FleetOptions {
  struct Daemon {
    std::string address;  // names it in the log, in /health and in metrics
    std::shared_ptr<grpc::Channel> channel;
  };
  std::vector<Daemon> daemons;
  // What all of them must serve; "": what the first of them, in this order, serves at the start.
  std::string model;
  // Shown when daemons are asked for their model and load; "": none is.
  std::string api_key;
  absl::Duration check_interval = absl::Seconds(1);
  absl::Duration check_timeout = absl::Seconds(3);
  double load_bound = 1.25;  // times the mean load, beyond which a daemon is passed over
};

}  // namespace fastgen
