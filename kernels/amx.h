// Whether the tiles of AMX can be used: asked of the processor, of the kernel, and of a product.
#pragma once

namespace gangline {

// Asks the kernel to let this process use tiles, and compares a small product with that of the
// path avx512. False where one refuses, the results differ, or an instruction is illegal (virtual
// machines may announce AMX and not have it). Asked once; the answer is kept.
bool amx_works();

}  // namespace gangline
