#include "cpu/amx/linear.h"
#include "cpu/isa/parts.h"
#include "cpu/shallow_rounded.h"

namespace mimic {
namespace MIMIC_ISA {

using Format = TileFormat<Tiles, 3>;

const RoundedKernels tiles_x3 = rounded_kernels<ByTiles<Format>>;
const LinearKernels<float> linear_tiles_x3 = {linear<ByTiledBlocks<Format>, float>,
                                              linear_backward<ByTiledBlocks<Format>, float>};

}  // namespace MIMIC_ISA
}  // namespace mimic
