#include "cpu/amx/linear.h"
#include "cpu/isa/parts.h"
#include "cpu/shallow_bf16.h"

namespace mimic {
namespace MIMIC_ISA {

using Format = TileFormat<Tiles, 3>;

const ShallowBf16Kernels tiles_x3 = bf16_kernels<ByTiles<Format>>;
const LinearKernels<float> linear_tiles_x3 = {linear<ByTiledBlocks<Format>, float>,
                                              linear_backward<ByTiledBlocks<Format>, float>};

}  // namespace MIMIC_ISA
}  // namespace mimic
