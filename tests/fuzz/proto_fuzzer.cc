// Fuzzes server/proto_convert: any bytes that parse as a GenerateRequest are either converted, within bounds that do not
// depend on the bytes, or refused with INVALID_ARGUMENT, and every refusal becomes a status that clients can decode.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "fastgen/v1/inference.pb.h"
#include "google/rpc/status.pb.h"
#include "server/proto_convert.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fastgen::v1::GenerateRequest proto;
  if (!proto.ParseFromArray(data, static_cast<int>(size))) return 0;
  const auto unknown = fastgen::UnknownFields(proto);
  CHECK_LE(unknown.size(), fastgen::kMaxIgnoredFields);
  const auto converted = fastgen::FromProto(proto);
  if (converted.ok()) {
    const fastgen::GenerateRequest& request = converted->request;
    CHECK_EQ(request.request_id, proto.request_id());
    CHECK(request.n >= 1 && request.n <= request.best_of && request.best_of <= 128);
    CHECK_LE(request.cache_salt.size(), 256u);
    CHECK_LE(request.sampling.logit_bias.size(), 1024u);
    CHECK_LE(request.sampling.allowed_token_ids.size(), 262144u);
    CHECK_LE(request.sampling.bad_words.size(), 256u);
    CHECK(converted->resume_window >= absl::ZeroDuration());
    CHECK(converted->resume_window <= absl::Hours(1));
    return 0;
  }
  CHECK(absl::IsInvalidArgument(converted.status()));
  const grpc::Status status = fastgen::ToGrpcStatus(converted.status());
  google::rpc::Status rich;
  CHECK(rich.ParseFromString(status.error_details()));
  CHECK_EQ(rich.details_size(), 1);
  return 0;
}
