// Whether this process may use AMX tiles: CPUID, the register state that the operating system
// saves, and its permission, which Linux wants to be asked for.
//
// Tile data are 8 KB of state a thread, so Linux (5.16 and later) gives them only to processes that
// ask, and raises SIGILL in others. It refuses where a thread's signal stack is too small for them.
// Thread rule: any thread; call it first while few threads run. Threads share the answer.
// Tested by tests/kernels/amx_test.cc.
#pragma once

namespace fastgen::cpu {

// True where the CPU has AMX with int8 and bf16 and the operating system lets this process use it.
// The first call asks for it.
bool TilesPermitted();

}  // namespace fastgen::cpu
