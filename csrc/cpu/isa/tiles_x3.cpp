#include "cpu/amx/linear.h"
#include "cpu/amx/shallow.h"
#include "cpu/isa/parts.h"

namespace mimic {
namespace MIMIC_ISA {

const ShallowKernels<float, Source> tiles_x3 = shallow_kernels<ByTiles<TileFormat<Tiles, 3>>>;
const LinearKernels<float> linear_tiles_x3 = linear_kernels<ByTiledBlocks<TileFormat<Tiles, 3>>, float>;

}  // namespace MIMIC_ISA
}  // namespace mimic
