#include "cpu/amx/linear.h"
#include "cpu/amx/shallow.h"
#include "cpu/isa/parts.h"

namespace mimic {
namespace MIMIC_ISA {

const ShallowKernels<float, Source> tiles = shallow_kernels<ByTiles<TileFormat<Tiles, 1>>>;
const LinearKernels<float> linear_tiles = linear_kernels<ByTiledBlocks<TileFormat<Tiles, 1>>, float>;

}  // namespace MIMIC_ISA
}  // namespace mimic
