// The "traceparent" of a call's metadata (W3C Trace Context), which its receipts carry, so that a
// trace finds them.
//
//   version "-" trace id "-" parent id "-" flags, in lower-case hex of 2, 32, 16 and 2 digits
// Ids of zeros and version ff are not well-formed; later versions may go on after another "-".
// Thread rule: pure, any thread.
// Tested by tests/server/trace_parent_test.cc.
#pragma once

#include <grpcpp/server_context.h>

#include <string>
#include <string_view>

namespace fastgen {

bool IsTraceParent(std::string_view text);

// "" when the call has none, several, or one that is not well-formed: a trace that is broken is
// none.
std::string TraceParentOf(const grpc::ServerContextBase& context);

}  // namespace fastgen
